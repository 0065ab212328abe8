"""Drills on rollout workers and verifiers: killed, hanging, ten times too slow, and episodes that kill whoever plays them."""

import random
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from cluster.config import RunConfig
from cluster.ledger import MOST_LOSSES
from cluster.quarantine import Artefact, artefact
from cluster.rollout_spec import RolloutSpec
from cluster.stage_log import StageLog
from cluster.tally import Event
from envs.task import Task
from services.chaos import play, stand_in
from services.chaos.outcome import Claim, Outcome
from services.chaos.play import Play, breaking, expected, playing, signalled, told

MANY = 10_000  # steps of a stage that goes on for as long as there are faults to make
KILL_EVERY_S = 4.0  # of two workers that start in some 6 s: faster, and none would live to play


def rollout_kills(times: int, seed: int, scratch: Path) -> Outcome:
    """A random rollout worker is killed with SIGKILL, at random times."""
    of = play.config(play.nano(scratch), seed=seed, steps=MANY, workers=2, staleness=seed % 2)
    with playing(of) as run:
        wrong, made, steps = _until_broken(run, signalled(run, "rollout"), times, seed, every_s=KILL_EVERY_S)
        events, stats = run.events(), run.stats()
    recovery = _recoveries(events)
    return Outcome(
        drill="rollout-kills",
        faults=made,
        claims=(
            Claim("every episode of every step delivered once, with the tokens of an undisturbed run", not wrong),
            Claim("none quarantined", not stats.get("episodes_quarantined", 0)),
            Claim("each kill seen", stats["worker_restarts"] >= made * 0.9),  # two kills may hit one start
        ),
        numbers={"steps": steps, "episodes": stats["episodes_kept"], "played again":
                 stats["episodes_lost_and_requeued"], "median recovery s": statistics.median(recovery or [0.0]), "longest s":
                 max(recovery, default=0.0)},
    )  # fmt: skip


def verifier_kills(times: int, seed: int, scratch: Path) -> Outcome:
    """A random verifier is killed, and every fifth time stopped instead, so that it hangs."""
    of = play.config(play.nano(scratch), seed=seed, steps=MANY, workers=2, deadline_s=2.0)
    turn = iter(range(10 * times + 10))

    with playing(of) as run:

        def fault(dice: random.Random) -> bool:
            number = signal.SIGSTOP if next(turn) % 5 == 4 else signal.SIGKILL
            return signalled(run, "verifier", number)(dice)

        wrong, made, steps = _until_broken(run, fault, times, seed, every_s=0.6)
        stats = run.stats()
    return Outcome(
        drill="verifier-kills",
        faults=made,
        claims=(
            Claim("every verdict that of an undisturbed run", not wrong),
            Claim("none missing", not stats.get("episodes_quarantined", 0) and not stats["verifier_failures"]),
        ),
        numbers={
            "steps": steps, "verdicts": stats["verifier_verdicts"], "asked again": stats["verifier_retries"],
            "hangs": stats["verifier_timeouts"],
        },
    )  # fmt: skip


def poison(times: int, seed: int, scratch: Path) -> Outcome:
    """Episodes that kill the worker which plays them."""
    dice, episodes = random.Random(seed), 48
    bad = {(0, index) for index in dice.sample(range(episodes), times)}
    of = play.config(play.nano(scratch), seed=seed, steps=1, workers=2, episodes=episodes)
    with playing(of, actor=stand_in.actor(poison=bad)) as run:
        said = told(run.step(0))
        events, stats = run.events(), run.stats()
    told_of = {(e.fields["step"], e.fields["index"]) for e in events if e.kind == "quarantined"}
    kept = _kept(events, of, scratch)
    good = {index: episode for index, episode in expected(of, 0).items() if (0, index) not in bad}
    return Outcome(
        drill="poison",
        faults=times,
        claims=(
            Claim("each quarantined and told", told_of == bad),
            Claim("a file for each that names its task and the workers lost", kept.keys() == bad and all(
                episode.task == task and len(episode.deaths) == MOST_LOSSES for episode, task in kept.values())),
            Claim("all others delivered, unchanged", said == good),
            Claim(f"at most {MOST_LOSSES} workers lost to each", stats["worker_restarts"] <= MOST_LOSSES * times),
        ),
        numbers={"workers lost": stats["worker_restarts"]},
    )  # fmt: skip


def _kept(events: list[Event], of: RunConfig, store: Path) -> dict[tuple[int, int], tuple[Artefact, Task]]:
    """What a run's log keeps of quarantined episodes, each beside the task that it was about."""
    spec, log = RolloutSpec.of(of, of.model.source), StageLog(str(store), "chaos-ppo", "ppo", 1, {}, 0)
    for case in (event.case for event in events if event.case):
        log.quarantined(case.step, case.index, artefact(case, spec, run="chaos-ppo").told())
    found = [Artefact.load(path) for path in (store / "chaos-ppo" / "quarantine").glob("*.json")]
    return {
        (each.step, each.index): (
            each, spec.environment_at(each.step).sample(spec.seed, "train", each.step, each.index)
        )
        for each in found
    }  # fmt: skip


def slow_worker(times: int, seed: int, scratch: Path) -> Outcome:
    """One of three rollout workers is ten times too slow, for as many steps as `times`."""
    of = play.config(play.nano(scratch), seed=seed, steps=MANY, workers=3, episodes=96)
    seconds = {}
    twice = 0.0
    wrong = False
    for name, slow in {"even": {}, "one slow": {"rollout-0": 10.0}}.items():
        with playing(of, actor=stand_in.actor(slow=slow, token_s=0.02)) as run:
            run.step(0)  # processes start, durations are learnt
            started = time.monotonic()
            for step in range(1, times + 1):
                wrong |= told(run.step(step)) != expected(of, step)
            seconds[name] = time.monotonic() - started
            twice = run.stats().get("episodes_played_twice", 0.0)
    ratio = seconds["even"] / seconds["one slow"]
    return Outcome(
        drill="slow-worker",
        faults=times,
        claims=(
            Claim("episodes unchanged, each once", not wrong),
            Claim("the slow one's episodes played by others too", twice > 0),
        ),
        numbers={"throughput / that of three": ratio, "/ that of the other two": ratio * 3 / 2, "played twice": twice},
    )


def _until_broken(
    run: Play, fault: Callable[[random.Random], bool], times: int, seed: int, *, every_s: float
) -> tuple[list[int], int, int]:
    """Steps, until so many faults were made and one more step is done: steps that came out wrong, faults, steps."""
    wrong: list[int] = []
    step = 0
    with breaking(fault, seed=seed, every_s=every_s, most=times) as made:
        while len(made) < times:
            if told(run.step(step)) != expected(run.config, step):
                wrong.append(step)
            step += 1
    if told(run.step(step)) != expected(run.config, step):
        wrong.append(step)
    return wrong, len(made), step + 1


def _recoveries(events: list[Event]) -> list[float]:
    """Seconds from each death of a worker to its successor's readiness."""
    died: dict[str, float] = {}
    took = []
    for event in events:
        place = str(event.fields.get("worker", "")).partition(".")[0]
        if event.kind == "worker_died":
            died.setdefault(place, event.time)
        elif event.kind == "worker_ready" and place in died:
            took.append(event.time - died.pop(place))
    return took
