"""Rates of a finished PPO stage, read off its log: what `viter plan --like` forecasts other settings from."""

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cluster.bubble import EngineSpeed, Load, Played, play_step
from cluster.forecast import Rates
from envs.base import DataError
from envs.task import Status
from trainers.episode import Episode, Segment
from trainers.runlog import RunLog, episode_steps, read_episodes, read_metrics

WARM_UP = 1  # first steps that are left out: engines and caches are cold
BISECTIONS = 12
EPISODE_STEPS = 4  # newest steps whose episodes are read; of a curriculum those with as many iterations as the last


def like(store: str, run: str) -> tuple[Load, Rates]:
    """How episodes of the stage `run` are, and how fast its parts were.

    Raises:
        DataError: the store holds no such run, or too little of it; or it overlapped rollouts and learning.
    """
    with tempfile.TemporaryDirectory(prefix="viter-rates-") as staging:
        directory = RunLog.of(store, run, staging=Path(staging)).directory
        rows = [row for row in read_metrics(directory) if row.get("stage") == "ppo"][WARM_UP:]
        by_step = {row["step"] - 1: row for row in rows if row.get("viter") == rows[-1].get("viter")}
        steps = [step for step in episode_steps(directory) if step in by_step][-EPISODE_STEPS:]
        if not rows or not steps:
            raise DataError(f"{run}: {store} holds no PPO stage of that name with more than {WARM_UP} steps in its log")
        if any(row["staleness_mean"] > 0 for row in rows):
            raise DataError(f"{run}: its rollouts overlapped its learning; name a run with ppo.max_staleness=0")
        episodes = [episode for step in steps for episode in read_episodes(directory, step)]
    load = load_of(episodes)
    return load, _rates(load, episodes, [by_step[step] for step in steps])


def load_of(episodes: Sequence[Episode]) -> Load:
    """What these episodes are like. A position's last recorded attempt says how any later one would do."""
    segments = [segment for episode in episodes for segment in episode.segments]
    answers = [turn.stop - turn.start for segment in segments for turn in segment.turns]
    heard = [b.start - a.stop for s in segments for a, b in zip(s.turns, s.turns[1:], strict=False)]
    mean = statistics.fmean(answers)
    return Load(
        prompt=statistics.fmean(segment.turns[0].start for segment in segments),
        answer=mean,
        answer_spread=statistics.pstdev(answers) / mean,
        feedback=statistics.fmean(heard) if heard else 0.0,
        hazards=_hazards(segments),
        positions=len(segments) / len(episodes),
    )


def _hazards(segments: Sequence[Segment]) -> tuple[float, ...]:
    longest = max(len(segment.turns) for segment in segments)
    found = []
    for attempt in range(longest):
        tried = [
            segment.turns[attempt].status is Status.CORRECT for segment in segments if len(segment.turns) > attempt
        ]
        found.append(statistics.fmean(tried))
    return tuple(found)


def _rates(load: Load, episodes: Sequence[Episode], rows: Sequence[dict[str, float]]) -> Rates:
    def total(*keys: str) -> float:
        return sum(row[key] for row in rows for key in keys)

    rollout_s = total("rollout_wait_s", "probe_s")  # workers play from the moment they hold the weights
    learn_s, sync_s, all_s = total("score_s", "update_s"), total("publish_s"), total("step_s")
    turns = sum(len(episode.turns) for episode in episodes)
    tokens = sum(len(segment.token_ids) for episode in episodes for segment in episode.segments)
    verdict_s = sum(episode.usage.verify_s for episode in episodes) / turns
    return Rates(
        engine=_engine(load, episodes, rollout_s / len(rows), verdict_s, steps=len(rows)),
        learner_token_s=learn_s / tokens,
        sync_s=sync_s / len(rows),
        fixed_s=max(0.0, all_s - rollout_s - learn_s - sync_s) / len(rows),
    )


def _engine(load: Load, episodes: Sequence[Episode], rollout_s: float, verdict_s: float, *, steps: int) -> EngineSpeed:
    """The engine whose simulated step takes as long, and whose tokens slow down as much with company, as in the run.

    Episodes of one attempt had the engine full, those that used all attempts had it to themselves in the end: the more
    alike their seconds per token, the more of a decoding step is fixed.
    """
    workers = len({episode.worker for episode in episodes})
    viter = max(len(segment.turns) for episode in episodes for segment in episode.segments)
    positions = round(load.positions * len(episodes) / steps)
    slots = -(-positions // workers)
    wanted = _token_s(episodes, viter) / _token_s(episodes, 1)

    def played(fixed: float) -> tuple[EngineSpeed, Played]:
        speed = EngineSpeed(fixed_s=fixed, sequence_s=(1.0 - fixed) / slots, prefill_s=0.0)
        return speed, play_step(workers=workers, slots=slots, episodes=positions, viter=viter, load=load, engine=speed)

    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):  # the ratio grows with the fixed share
        middle = (low + high) / 2
        once, most = played(middle)[1].token_s
        low, high = (middle, high) if most / once < wanted else (low, middle)
    speed, found = played((low + high) / 2)
    scale = max(0.0, rollout_s - verdict_s * load.attempts(viter)) / found.seconds
    return EngineSpeed(
        fixed_s=speed.fixed_s * scale, sequence_s=speed.sequence_s * scale, prefill_s=0.0, verdict_s=verdict_s
    )


def _token_s(episodes: Sequence[Episode], attempts: int) -> float:
    """Mean seconds per token of the episodes with so many attempts; of all where there are none."""
    mine = [e for e in episodes if len(e.turns) == attempts] or list(episodes)
    return statistics.fmean(e.usage.generate_s / e.usage.sampled_tokens for e in mine)
