"""A drill on a cluster that grows and shrinks under a run, as an autoscaler or a spot market has it."""

import math
import time
from pathlib import Path

from services.chaos import play, rig
from services.chaos.outcome import Claim, Outcome
from services.chaos.rig import Rig
from services.chaos.steps import afar, events_of, happened, impossible, until

NEW = 3  # the node that comes and goes; the head and one other stay
STEPS = 3  # played with it, each time


def node_joins(times: int, seed: int, scratch: Path) -> Outcome:
    """A node that was not there when the run began joins the cluster, gets a worker, and goes again without a word."""
    if reason := rig.why_not():
        return impossible("node-joins", reason)
    model, came, went = play.nano(scratch), list[float](), list[float]()
    with (
        Rig(3, cpus=[1, 2, 2], late=(NEW,)) as on,
        afar(on, model, 1, 96, seed % 2, seed, most_workers=2) as steps,
    ):
        lines = [next(steps) for _ in range(2)]
        for _ in range(times):
            came.append(time.time())
            on.bring(NEW)
            lines += until("worker_ready", came[-1], steps, [next(steps)])
            lines += [next(steps) for _ in range(STEPS)]
            went.append(time.time())
            on.kill(NEW)
            lines += until("worker_died", went[-1], steps, [next(steps)])
            lines += [next(steps) for _ in range(STEPS)]
    events = events_of(lines)
    joined = [happened(events, "worker_ready", at) - at for at in came]
    left = [happened(events, "worker_died", at) - at for at in went]
    hosts = {event["node"] for event in events if event["kind"] == "worker_ready"}
    return Outcome(
        drill="node-joins",
        faults=times,
        claims=(
            Claim("every episode once, as without faults", all(line["as_expected"] for line in lines)),
            Claim("a worker on the new node each time", max(joined) < math.inf and len(hosts) == 1 + times),
            Claim("noticed each time that it went, and played with what is left", max(left) < math.inf),
        ),
        numbers={
            "steps": len(lines), "longest until its worker played s": max(joined), "longest notice s": max(left),
        },
    )  # fmt: skip
