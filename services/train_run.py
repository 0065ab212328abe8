"""A run from its file to its report: train, measure, tell."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from cluster import launch
from cluster.config import RunConfig
from cluster.launch import RunResult
from services import evaluate_run
from services.console import Console
from services.reports import findings, report
from services.reports.measured import STAGE_NAMES, Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A run that came to its end."""

    result: RunResult
    found: Measured | None  # None where the run file asks for no evaluation
    page: Path


def run(config: RunConfig) -> None:
    """Train every stage, measure them as the run file asks, write the report, and say what came of it."""
    done, console = complete(config), Console()
    stages = done.result.checkpoints
    console.tell()
    console.tell(summary(done.found) if done.found else "\n".join(f"{stage}: {c.name}" for stage, c in stages.items()))
    last = list(stages.values())[-1].name
    console.tell(f"\n{next_steps(last, config.store.uri, str(done.page))}")


def complete(config: RunConfig) -> Completed:
    """Train every stage, measure them as the run file asks and write the report, with live progress."""
    with Console() as console, launch.leased(config, console.show) as lease:
        result = launch.run(config, progress=console.show, lease=lease)
        found = evaluate_run.measure(config, config.evaluation, console.show) if config.evaluation else None
        return Completed(result=result, found=found, page=report.write(config.store.uri, config.name))


def summary(found: Measured) -> str:
    """The last checkpoint of each stage on each suite, and the finding in words."""
    rows = [
        (name, point.results[suite])
        for suite in found.suites
        for stage, name in STAGE_NAMES.items()
        if (point := found.final(stage)) and suite in point.results
    ]
    return "\n\n".join((evaluate_run.table(rows), "\n".join(findings.sentences(found))))


def next_steps(checkpoint: str, store: str, page: str) -> str:
    """Three things to try, as commands that work from here."""
    at = "" if store == "runs" else f" --store {shlex.quote(store)}"
    token_at = "" if "://" in store else at  # the service of a bucket keeps its token in ./runs
    return "\n".join(
        (
            "Three things to try:",
            f"  open {page}",
            f"  viter serve{at}        # then, in another terminal: curl http://127.0.0.1:8000/readyz",
            f"  viter eval {checkpoint}{token_at} --n 100 --viter 10",
        )
    )
