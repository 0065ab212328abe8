"""Episodes as a page shows them: what was seen at each position, what was said, and the verifier's words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import envs
from envs.base import ViterError
from envs.task import Environment, Status, Task
from services.evaluations.items import by_position, positions_of, turns_of
from services.evaluations.orders import ItemTurn, Position
from services.reports.measured import STAGE_NAMES, Measured
from services.reports.pictures import Picture, Pictures
from trainers import runlog

TRAINING_EPISODES = 3


@dataclass(frozen=True, slots=True)
class Said:
    """One answer and the verifier's word on it."""

    answer: str
    status: str
    reward: float
    feedback: str
    recognised: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One position: what it showed, and what was said there."""

    news: str
    keys: tuple[str, ...]
    turns: tuple[Said, ...]
    pictures: tuple[Picture, ...] = ()

    @property
    def line(self) -> str:
        """The last line of what it showed, which is what it is about; empty at the first position."""
        return self.news.rpartition("\n")[2]

    @property
    def before(self) -> str:
        """The lines before that one."""
        return self.news.rpartition("\n")[0]

    @property
    def is_passed(self) -> bool:
        return self.turns[-1].status == Status.CORRECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One episode on the page."""

    whose: str
    style: str
    task: str
    prompt: str
    is_success: bool
    scenes: tuple[Scene, ...]
    environment: str
    options: Mapping[str, Any]

    @property
    def answers(self) -> int:
        return sum(len(scene.turns) for scene in self.scenes)

    @property
    def end(self) -> str:
        """How it ended: solved with every first answer, solved after revision, or not."""
        if not self.is_success:
            return "not solved"
        return "at once" if self.answers == len(self.scenes) else "revised"


def episodes(found: Measured | None, logs: Mapping[str, Path], pictures: Pictures) -> list[Shown]:
    """A few episodes of each last checkpoint and suite, then a few that RL learned from.

    Pictures stand beside the first of those that have the same origin and end alike.
    """
    told = [*(_evaluated(found) if found else ()), *_trained(logs)]
    firsts = {(shown.whose, shown.end): index for index, shown in reversed(list(enumerate(told)))}
    for index in sorted(firsts.values()):
        told[index] = _pictured(told[index], pictures)
    return told


def _pictured(shown: Shown, pictures: Pictures) -> Shown:
    scenes = tuple(
        replace(scene, pictures=pictures.of(shown.environment, shown.options, scene.keys, _alt(shown, number)))
        for number, scene in enumerate(shown.scenes, start=1)
    )
    return replace(shown, scenes=scenes)


def _alt(shown: Shown, number: int) -> str:
    return shown.task if len(shown.scenes) == 1 else f"{shown.task}, position {number}"


def _evaluated(found: Measured) -> Iterator[Shown]:
    for stage, name in STAGE_NAMES.items():
        point = found.final(stage)
        for item in point.episodes if point else ():
            yield Shown(
                whose=f"{name} on {item.suite}", style=stage, task=item.task, prompt=item.prompt,
                is_success=item.success, scenes=_scenes(item.positions, item.turns), environment=found.environment,
                options=item.options,
            )  # fmt: skip


def _trained(logs: Mapping[str, Path]) -> Iterator[Shown]:
    """A few episodes of the last step that RL learned from."""
    log = logs.get("ppo")
    steps = runlog.episode_steps(log) if log else []
    if log is None or not steps:
        return
    for episode in runlog.read_episodes(log, steps[-1])[:TRAINING_EPISODES]:
        task, environment = episode.task, _environment(episode.task)
        yield Shown(
            whose=f"RL while training, step {steps[-1]}", style="ppo", task=task.id, prompt="",
            is_success=episode.is_success, environment=task.environment, options=task.options,
            scenes=_scenes(positions_of(environment, episode), turns_of(environment, episode)),
        )  # fmt: skip


def _environment(task: Task) -> Environment | None:
    """What dealt a task; None where it cannot be made here."""
    try:
        return envs.make(task.environment, **task.options)
    except ViterError:
        return None


def _scenes(positions: Sequence[Position], turns: Sequence[ItemTurn]) -> tuple[Scene, ...]:
    groups = by_position(turns)
    return tuple(
        Scene(
            news=position.news, keys=tuple(position.images),
            turns=tuple(Said(t.answer, t.status, t.reward, t.feedback, t.recognised) for t in group),
        )
        for position, group in zip(positions or [Position()] * len(groups), groups, strict=True)
    )  # fmt: skip
