"""Every drill: what is broken, how often, and the function that does it."""

import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from envs.base import ConfigError
from services.chaos.outcome import Claim, Outcome


@dataclass(frozen=True, slots=True)
class Drill:
    """One way to break things."""

    function: str
    """`module:name` below `services.chaos`, loaded when it is run: listing drills loads neither Ray nor torch."""
    about: str
    short: int
    """Faults in `make test`; 0 leaves it to the long form."""
    long: int
    """Faults in `make chaos`."""
    plays_here: bool = True
    """Whether it wants this process connected to a small Ray cluster; others start what they need."""


DRILLS = {
    "rollout-kills": Drill("rollouts:rollout_kills", "a rollout worker is killed", 3, 50),
    "verifier-kills": Drill("rollouts:verifier_kills", "a verifier is killed, or hangs", 5, 100),
    "broadcast-kills": Drill("broadcasts:broadcast_kills", "a worker is killed while weights are broadcast", 2, 30),
    "poison": Drill("rollouts:poison", "an episode kills whoever plays it", 1, 3),
    "slow-worker": Drill("rollouts:slow_worker", "a worker is ten times too slow, steps", 1, 10),
    "save-kills": Drill("storage:save_kills", "a save is killed inside", 20, 200, plays_here=False),
    "disk-full": Drill("storage:disk_full", "the disk fills inside a save", 20, 100, plays_here=False),
    "harmed-files": Drill("storage:harmed_files", "a file is cut, flipped, swapped or gone", 40, 500, plays_here=False),
    "node-kills": Drill("nodes:node_kills", "a node is killed and comes back", 0, 10, plays_here=False),
    "link-cuts": Drill("nodes:link_cuts", "a node's link is cut and healed", 0, 10, plays_here=False),
    "node-joins": Drill("joins:node_joins", "a new node joins, and goes", 0, 10, plays_here=False),
    "head-kills": Drill("head:head_kills", "the head is killed while a service answers", 0, 5, plays_here=False),
    "three-nodes": Drill("nodes:three_nodes", "nothing: real PPO on 1, 2 and 3 nodes, steps", 0, 4, plays_here=False),
    "scale-out": Drill("nodes:scale_out", "nothing: tokens/s on 1, 2 and 3 nodes, steps", 0, 8, plays_here=False),
    "learner-kills": Drill("runs:learner_kills", "the learner is killed", 0, 20, plays_here=False),
    "driver-kills": Drill("runs:driver_kills", "the driver is killed", 1, 10, plays_here=False),
    "sigterm": Drill("runs:sigterm", "the driver gets SIGTERM", 0, 20, plays_here=False),
    "other-size": Drill(
        "sizes:other_size", "a run goes on with another number of learner ranks", 0, 2, plays_here=False
    ),
    "nan-gradients": Drill("nonfinite:nan_gradients", "a step's gradients are not finite", 0, 5, plays_here=False),
    "soak": Drill("soak:soak", "one thing after another, every 20 s", 0, 90, plays_here=False),
}


def chosen(asked: Sequence[str], *, long: bool) -> dict[str, int]:
    """Times by drill, of words like `poison` or `poison=3`; all drills where there are none. Raises ConfigError."""
    times: dict[str, int] = {}
    for word in asked or [name for name, drill in DRILLS.items() if long or drill.short]:
        name, _, number = word.partition("=")
        if name not in DRILLS:
            raise ConfigError(f"drill {name!r}: unknown; there are {', '.join(DRILLS)}")
        if number and not (number.isdecimal() and int(number)):
            raise ConfigError(f"drill {word!r}: {number!r} is no number of times; write it as {name}=3")
        drill = DRILLS[name]
        times[name] = int(number) if number else drill.long if long or not drill.short else drill.short
    return times


def run_all(times: Mapping[str, int], *, seed: int, tell: Callable[[str], None]) -> Iterator[Outcome]:
    """Run drills one after another, telling each before and after."""
    with ExitStack() as stack:
        if any(DRILLS[name].plays_here for name in times):
            stack.enter_context(cluster())
        for number, (name, count) in enumerate(times.items(), start=1):
            tell(f"[{number}/{len(times)}] {name}: {DRILLS[name].about} (×{count})")
            outcome = run(name, times=count, seed=seed)
            broken = "; ".join(claim.text for claim in outcome.claims if not claim.holds)
            tell(f"    {'held' if outcome.held else f'did NOT hold: {broken}'}, {outcome.seconds:.0f} s")
            yield outcome


def run(name: str, *, times: int, seed: int) -> Outcome:
    """Run one drill in a directory of its own. One that cannot go on is an outcome too: its one claim did not hold."""
    drill = DRILLS[name]
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="viter-chaos-") as scratch:
            outcome = _function(drill)(times, seed, Path(scratch))
    except Exception as error:
        traceback.print_exc()
        words = f"went on to its end ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        outcome = Outcome(drill=name, faults=0, claims=(Claim(words, False),))
    return replace(outcome, seconds=time.monotonic() - started)


@contextmanager
def cluster() -> Iterator[None]:
    """A small Ray cluster of this process, for drills that play here."""
    import ray

    ray.init(
        "local", num_cpus=16, include_dashboard=False, object_store_memory=2**28, log_to_driver=False,
        logging_level="error",
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


def _function(drill: Drill) -> Callable[[int, int, Path], Outcome]:
    import importlib

    module, _, name = drill.function.partition(":")
    function: Callable[[int, int, Path], Outcome] = getattr(importlib.import_module(f"services.chaos.{module}"), name)
    return function
