"""The drill on weights that are broadcast: a worker is killed while it receives them."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from services.chaos import play, stand_in
from services.chaos.outcome import Claim, Outcome
from services.chaos.play import Play, expected, playing, told
from trainers.episode import Episode

TENSOR_S = 0.02  # that a stand-in takes for each tensor: a broadcast of some 0.7 s, so that kills find it under way


def broadcast_kills(times: int, seed: int, scratch: Path) -> Outcome:
    """One of three rollout workers is killed at a random time of a broadcast; every other one is left alone."""
    of = play.config(play.nano(scratch), seed=seed, steps=2 * times + 1, workers=3, weights="broadcast")
    dice = random.Random(seed)
    wrong: list[int] = []
    stale: list[int] = []
    took: list[float] = []
    with playing(of, actor=stand_in.actor(tensor_s=TENSOR_S)) as run:
        for step in range(2 * times + 1):
            started = time.monotonic()
            with _a_kill(run, dice) if step % 2 else nullcontext():
                run.publish(step)
                took.append(time.monotonic() - started)
                episodes = run.take(step)
            if told(episodes) != expected(of, step):
                wrong.append(step)
            if _versions(episodes) != {step}:
                stale.append(step)
        stats = run.stats()
        ends = {name: stats.get(f"weights_by_{name}", 0) for name in ("broadcast", "parcel")}
        broken_off = run.broadcasts_failed
    return Outcome(
        drill="broadcast-kills",
        faults=times,
        claims=(
            Claim("every episode of every step delivered once, with the tokens of an undisturbed run", not wrong),
            Claim("every token by the step's own weights", not stale),
            Claim("broadcasts broke off, and weights were fetched", len(broken_off) > 0 and ends["parcel"] > 0),
            Claim("the next ones were sent to their end", ends["broadcast"] >= times),
        ),
        numbers={
            "broken off": len(broken_off), "engines reached": ends["broadcast"], "fetched": ends["parcel"],
            "longest publication s": max(took[1:]),
        },
    )  # fmt: skip


@contextmanager
def _a_kill(run: Play, dice: random.Random) -> Iterator[None]:
    """A random worker dies by SIGKILL while the block runs."""
    workers = sorted(run.processes("rollout").values())
    killer = threading.Timer(dice.uniform(0.0, 1.0), os.kill, (dice.choice(workers), signal.SIGKILL))
    killer.start()
    try:
        yield
    finally:
        killer.join()


def _versions(episodes: list[Episode]) -> set[int]:
    """Weights that any sampled token was drawn by."""
    return {
        int(version)
        for episode in episodes
        for segment in episode.segments
        for version in segment.weight_versions[segment.sampled]
    }
