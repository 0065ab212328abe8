"""Drills on nodes: killed and brought back, cut off and healed, and a training that lies on three of them."""

import json
import math
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.chaos import play, rig
from services.chaos.outcome import Claim, Outcome
from services.chaos.rig import Rig
from services.chaos.runs import PPO, Training

STEP_WITHIN_S = 180.0
BACK_WITHIN_S = 300.0
LINEAR = 0.95  # of so many times the tokens of one node: what coordination may not cost

Line = dict[str, Any]
Change = Callable[[Rig, int], None]
"""Something done to one node of a rig."""


def node_kills(times: int, seed: int, scratch: Path) -> Outcome:
    """One of two rollout nodes is killed, and brought back a few seconds later."""
    return _broken("node-kills", Rig.kill, Rig.bring, (2.0, 6.0), times, seed, scratch)


def link_cuts(times: int, seed: int, scratch: Path) -> Outcome:
    """The link of one of two rollout nodes is cut, for long enough that the cluster gives it up, and healed."""
    return _broken("link-cuts", Rig.cut, Rig.heal, (12.0, 16.0), times, seed, scratch)


def three_nodes(times: int, seed: int, scratch: Path) -> Outcome:  # noqa: ARG001  (nothing is drawn here)
    """A PPO run with real engines on two, then three nodes against one without: the same episodes, the same weights."""
    if reason := rig.why_not():
        return _impossible("three-nodes", reason)
    settings = {**PPO, "steps": 2 + times}
    alone = Training(scratch / "alone", "ppo", settings)
    codes, digests, hosts = [alone.finish()], [], []
    for nodes in (2, 3):
        wide = Training(scratch / str(nodes), "ppo", settings, workers=nodes)
        with Rig(nodes, cpus=[3] + [1] * (nodes - 1)) as on:
            codes.append(wide.finish(on.command, on.environment))
        digests.append(wide.digest())
        hosts.append(len({event["node"] for event in wide.events("worker_ready")}))
    return Outcome(
        drill="three-nodes",
        faults=0,
        claims=(
            Claim("a worker on each node", hosts == [2, 3]),
            Claim("weights of a run with one worker on one machine, bit for bit",
                  codes == [0] * 3 and set(digests) == {alone.digest()} != {""}),
        ),
    )  # fmt: skip


def scale_out(times: int, seed: int, scratch: Path) -> Outcome:
    """Sampled tokens per second with 1, 2 and 3 rollout nodes whose engines are throttled: what coordination costs."""
    if reason := rig.why_not():
        return _impossible("scale-out", reason)
    model, rates = play.nano(scratch), {}
    for nodes in (1, 2, 3):
        with (
            Rig(nodes + 1, cpus=[1] + [2] * nodes) as on,
            _afar(on, model, nodes, 96 * nodes, 1, seed, 800.0) as lines,
        ):
            first, *_, last = [next(lines) for _ in range(2 + times)]
            tokens = last["stats"]["sampled_tokens"] - first["stats"]["sampled_tokens"]
            rates[nodes] = tokens / (last["at"] - first["at"])
    linear = {nodes: rate / rates[1] / nodes for nodes, rate in rates.items()}
    return Outcome(
        drill="scale-out",
        faults=0,
        claims=(Claim(f"at least {LINEAR:g} of linear", min(linear.values()) >= LINEAR),),
        numbers={
            "tokens/s on 1": rates[1], "on 2": rates[2], "on 3": rates[3], "2 nodes / twice one": linear[2],
            "3 nodes / three times one": linear[3],
        },
    )  # fmt: skip


def _broken(
    drill: str, harm: Change, mend: Change, lasts_s: tuple[float, float], times: int, seed: int, scratch: Path
) -> Outcome:
    """Steps of a Play while one node after another is harmed and, some seconds later, mended."""
    if reason := rig.why_not():
        return _impossible(drill, reason)
    dice, model, lines = random.Random(seed), play.nano(scratch), []
    at: list[tuple[float, float]] = []  # when it was broken and when mended

    def fault(on: Rig) -> None:
        node = dice.choice((2, 3))
        harm(on, node)
        broken = time.time()
        time.sleep(dice.uniform(*lasts_s))
        mend(on, node)
        at.append((broken, time.time()))

    with Rig(3, cpus=[1, 2, 2]) as on, _afar(on, model, 2, 96, seed % 2, seed, None) as steps:
        lines += [next(steps) for _ in range(2)]
        for _ in range(times):
            breaking = threading.Thread(target=fault, args=(on,))
            breaking.start()
            met = [next(steps)]
            breaking.join()
            lines += _until_back(steps, met, at[-1][0])
    events = [event for line in lines for event in line["events"]]
    noticed = [_after(events, "worker_died", broken) - broken for broken, _ in at]
    back = [_after(events, "worker_ready", broken) - mended for broken, mended in at]
    last = lines[-1]
    return Outcome(
        drill=drill,
        faults=times,
        claims=(
            Claim("every episode once, as without faults", all(line["as_expected"] for line in lines)),
            Claim("noticed each time, and played with what is left", max(noticed) < math.inf),
            Claim("a worker in its place again each time", max(back) < math.inf),
        ),
        numbers={
            "steps": len(lines), "longest notice s": max(noticed), "longest return after mending s": max(back),
            "late results refused": last["stats"].get("episodes_refused", 0), "steps again": last["again"],
        },
    )  # fmt: skip


def _after(events: list[dict[str, Any]], kind: str, when: float) -> float:
    """The time of the first event of a kind after another time; infinite where there is none."""
    return min((event["time"] for event in events if event["kind"] == kind and event["time"] >= when), default=math.inf)


def _until_back(steps: Iterator[Line], met: list[Line], broken: float) -> list[Line]:
    """The lines met since a fault, and more of them until one tells of a worker that began after it, or none does."""
    while _after([event for line in met for event in line["events"]], "worker_ready", broken) == math.inf:
        met.append(next(steps))
        if met[-1]["at"] - met[0]["at"] > BACK_WITHIN_S:
            break
    return met


@contextmanager
def _afar(
    on: Rig, model: Path, workers: int, episodes: int, staleness: int, seed: int, tokens_per_s: float | None
) -> Iterator[Iterator[Line]]:
    """Steps of a Play on the head, as they are told."""
    words = [str(word) for word in (model, workers, episodes, staleness, seed)]
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
    raise rig.RigError(f"the play on the head ended, or a step took longer than {STEP_WITHIN_S:g} s")


def _impossible(drill: str, reason: str) -> Outcome:
    return Outcome(drill=drill, faults=0, claims=(Claim(f"may have namespaces ({reason})", False),))
