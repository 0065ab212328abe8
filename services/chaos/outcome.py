"""What a drill found: claims that held or did not, and numbers. One table for people, one file for programs."""

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that must hold under a fault."""

    text: str
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One drill, done."""

    drill: str
    faults: int
    """How many were really made."""
    claims: tuple[Claim, ...]
    numbers: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Whether every claim did."""
        return all(claim.holds for claim in self.claims)


def table(outcomes: Sequence[Outcome]) -> str:
    """GitHub-flavoured Markdown, a row for each drill."""
    rows = ["| drill | faults | must hold | held | measured | time |", "|---|---|---|---|---|---|"]
    for outcome in outcomes:
        claims = "; ".join(claim.text if claim.holds else f"**not: {claim.text}**" for claim in outcome.claims)
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in outcome.numbers.items())
        held = "yes" if outcome.held else "**no**"
        rows.append(f"| {outcome.drill} | {outcome.faults} | {claims} | {held} | {numbers} | {outcome.seconds:.0f} s |")
    return "\n".join(rows)


def save(outcomes: Sequence[Outcome], path: Path) -> None:
    """Everything found, with the day and the machine, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"date": time.strftime("%Y-%m-%d"), "machine": platform.machine(), "cores": _cores()}
    path.write_text(json.dumps({**about, "drills": [asdict(outcome) for outcome in outcomes]}, indent=1))


def _cores() -> int:
    return len(os.sched_getaffinity(0))
