"""One episode on request: the task it plays, and each turn as it happens, in words that travel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

import envs
from cluster.rollout import Heard, Quarantined
from envs.base import ConfigError, DataError
from envs.task import Environment, Message, Task
from services.evaluations.orders import Name
from trainers.checkpoints import Checkpoint
from trainers.episode import Episode

DEALT = "dealt"
"""The counter beside the seed of a task that is dealt on request, so that it is no task of training by accident."""
OF_TRAINING = ("deals", "viter")
"""Options of training that say nothing of how a task is shown or judged."""


class EpisodeOrder(BaseModel):
    """Play one task with one checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    checkpoint: Name
    """`run@step-000040`, `run@latest` or `run@ALIAS`; an alias is followed once, now."""
    environment: Name | None = None
    """Null takes the one that the checkpoint trained on, with the options it trained with beneath these `options`."""
    options: dict[Name, Any] = Field(default_factory=dict, max_length=64)
    """Options of the environment."""
    data: dict[str, Any] | None = None
    """The task, e.g. `{"cards": ["C7", "CK", "C7", "CA"]}`; null deals the one that `seed` names."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Names the task where it is dealt, and every draw of the episode."""
    viter: int = Field(5, ge=1, le=50)
    """Judged attempts per state."""
    temperature: float = Field(1.0, ge=0, le=5)
    """Sampling temperature; 0 decodes greedily."""
    max_tokens: int = Field(256, ge=1, le=8192)
    """Longest answer, in tokens."""


class Opening(BaseModel):
    """A prompt: what it asks, and the keys of its pictures."""

    prompt: str
    images: list[str]


class TaskShown(Opening):
    """How an episode begins."""

    environment: str
    options: dict[str, Any]
    data: dict[str, Any]
    model: str
    digest: str


class TurnTold(BaseModel):
    """One answer and what came of it."""

    turn: int
    position: int
    answer: str
    feedback: str
    reward: float
    status: str
    tokens: int
    finish_reason: str
    attempts_left: int
    """At the position where the episode now stands."""
    next: Opening | None
    """The prompt of the next position, where this answer led to one."""


class EpisodeEnd(BaseModel):
    """What came of an episode. One that could not be judged has an `error` in place of success and reward."""

    model: str
    digest: str
    turns: int
    success: bool | None
    reward: float | None
    overflowed: bool = False
    """Whether it ended since its history left no room for another answer."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class EpisodeEvent:
    """What happened, and its words."""

    event: Literal["task", "turn", "end"]
    data: TaskShown | TurnTold | EpisodeEnd


def task_of(order: EpisodeOrder, checkpoint: Checkpoint) -> tuple[Environment, Task]:
    """The environment and the task that an order asks for.

    Raises:
        ConfigError, DataError: options or data that cannot be.
    """
    trained = checkpoint.info.config.get("environment", {}) if order.environment is None else {}
    name = order.environment or trained.get("name")
    if name is None:
        raise ConfigError(f"environment: {checkpoint.name} does not say what it trained on; name an environment")
    known = {key: value for key, value in trained.get("options", {}).items() if key not in OF_TRAINING}
    environment = envs.make(name, **{**known, **order.options, "viter": order.viter})
    if order.data is None:
        return environment, environment.sample(DEALT, order.seed)
    return environment, given(environment, order.data)


def given(environment: Environment, data: dict[str, Any]) -> Task:
    """The task that `data` holds.

    Raises:
        ConfigError: names the field that is wrong.
        DataError: the environment reads no tasks.
    """
    if not hasattr(environment, "task_of"):
        raise DataError(f"data: environment {environment.name!r} reads no tasks; leave it out, and one is dealt")
    task: Task = cast(Any, environment).task_of(data)
    return task


def opening(messages: Sequence[Message]) -> Opening:
    """A prompt in the words of this page."""
    return Opening(prompt=messages[-1].text, images=[key for message in messages for key in message.images])


def shown(environment: Environment, task: Task, checkpoint: Checkpoint) -> EpisodeEvent:
    """The task, before anything is played."""
    first = opening(environment.prompt(task, environment.start(task)))
    told = TaskShown(
        environment=task.environment, options=dict(task.options), data=dict(task.data), model=checkpoint.name,
        digest=checkpoint.digest, **first.model_dump(),
    )  # fmt: skip
    return EpisodeEvent("task", told)


def turn_told(environment: Environment, task: Task, number: int, heard: Heard) -> EpisodeEvent:
    """One turn, with the next prompt where it led to one."""
    verdict, before, after = heard.verdict, heard.before, heard.after
    goes_on = after.position > before.position and not after.is_over
    told = TurnTold(
        turn=number, position=before.position, answer=heard.answer, feedback=verdict.feedback, reward=verdict.reward,
        status=verdict.status, tokens=heard.tokens, finish_reason=heard.finish_reason, attempts_left=after.attempts_left,
        next=opening(environment.prompt(task, after)) if goes_on else None,
    )  # fmt: skip
    return EpisodeEvent("turn", told)


def ended(checkpoint: Checkpoint, turns: int, outcome: Episode | Quarantined) -> EpisodeEvent:
    """What came of it. A verifier that failed is an error, and no reward."""
    known: dict[str, Any] = {"model": checkpoint.name, "digest": checkpoint.digest, "turns": turns}
    if isinstance(outcome, Quarantined):
        error = f"the verifier failed ({outcome.status}): {outcome.reason}"
        return EpisodeEvent("end", EpisodeEnd(**known, success=None, reward=None, error=error))
    end = EpisodeEnd(**known, success=outcome.is_success, reward=outcome.reward, overflowed=outcome.overflowed)
    return EpisodeEvent("end", end)
