"""Steps of a Play on the head of a rig, as they are told while nodes come and go: what `afar` prints, line by line."""

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.chaos.outcome import Claim, Outcome
from services.chaos.rig import Rig, RigError

STEP_WITHIN_S = 180.0
BACK_WITHIN_S = 300.0

Line = dict[str, Any]


@contextmanager
def afar(
    on: Rig, model: Path, workers: int, episodes: int, staleness: int, seed: int,
    *, most_workers: int | None = None, tokens_per_s: float | None = None,
) -> Iterator[Iterator[Line]]:  # fmt: skip
    """Steps of a Play on the head, as they are told: until the block ends."""
    words = [str(word) for word in (model, workers, most_workers or workers, episodes, staleness, seed)]
    words += [] if tokens_per_s is None else [str(tokens_per_s)]
    with subprocess.Popen(
        on.command(sys.executable, "-m", "services.chaos.afar", *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=on.environment, cwd=Path(__file__).parents[2],
    ) as process:  # fmt: skip
        assert process.stdin is not None
        try:
            yield _lines(process)
        finally:
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _lines(process: "subprocess.Popen[str]") -> Iterator[Line]:
    """Each line that is one of JSON, with the time it came at. Raises RigError where none comes for long."""
    assert process.stdout is not None
    silence = threading.Timer(STEP_WITHIN_S, process.kill)
    silence.start()
    try:
        for text in process.stdout:
            if text.startswith("{"):
                silence.cancel()
                yield {**json.loads(text), "at": time.monotonic()}
                silence = threading.Timer(STEP_WITHIN_S, process.kill)
                silence.start()
    finally:
        silence.cancel()
    raise RigError(f"the play on the head ended, or a step took longer than {STEP_WITHIN_S:g} s")


def happened(events: list[dict[str, Any]], kind: str, when: float) -> float:
    """The time of the first event of a kind after another time; infinite where there is none."""
    return min((event["time"] for event in events if event["kind"] == kind and event["time"] >= when), default=math.inf)


def until(kind: str, since: float, steps: Iterator[Line], met: list[Line]) -> list[Line]:
    """The lines met so far, and more of them until one tells of an event since then, or none does for long."""
    while happened(events_of(met), kind, since) == math.inf:
        met.append(next(steps))
        if met[-1]["at"] - met[0]["at"] > BACK_WITHIN_S:
            break
    return met


def events_of(lines: list[Line]) -> list[dict[str, Any]]:
    """Every event of some lines; each stands in one line alone."""
    return [event for line in lines for event in line["events"]]


def impossible(drill: str, reason: str) -> Outcome:
    """What a drill finds on a machine that can have no rig."""
    return Outcome(drill=drill, faults=0, claims=(Claim(f"may have namespaces ({reason})", False),))
