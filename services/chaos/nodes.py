"""Drills on nodes: killed and brought back, cut off and healed, and a training that lies on three of them."""

import math
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from services.chaos import play, rig
from services.chaos.outcome import Claim, Outcome
from services.chaos.rig import Rig
from services.chaos.runs import PPO, Training
from services.chaos.steps import afar, events_of, happened, impossible, until

LINEAR = 0.95  # of so many times the tokens of one node: what coordination may not cost

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
        return impossible("three-nodes", reason)
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
        return impossible("scale-out", reason)
    model, rates = play.nano(scratch), {}
    for nodes in (1, 2, 3):
        with (
            Rig(nodes + 1, cpus=[1] + [2] * nodes) as on,
            afar(on, model, nodes, 96 * nodes, 1, seed, tokens_per_s=800.0) as lines,
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
        return impossible(drill, reason)
    dice, model, lines = random.Random(seed), play.nano(scratch), []
    at: list[tuple[float, float]] = []  # when it was broken and when mended

    def fault(on: Rig) -> None:
        node = dice.choice((2, 3))
        harm(on, node)
        broken = time.time()
        time.sleep(dice.uniform(*lasts_s))
        mend(on, node)
        at.append((broken, time.time()))

    with Rig(3, cpus=[1, 2, 2]) as on, afar(on, model, 2, 96, seed % 2, seed) as steps:
        lines += [next(steps) for _ in range(2)]
        for _ in range(times):
            breaking = threading.Thread(target=fault, args=(on,))
            breaking.start()
            met = [next(steps)]
            breaking.join()
            lines += until("worker_ready", at[-1][0], steps, met)
    events = events_of(lines)
    noticed = [happened(events, "worker_died", broken) - broken for broken, _ in at]
    back = [happened(events, "worker_ready", broken) - mended for broken, mended in at]
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
