"""Environments, tasks and verdicts as the routes take and give them. Plain values; knows no HTTP."""

import io
from collections.abc import Sequence
from typing import Any, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

import envs
from cluster.verifiers import Judgement, Question
from envs import suites
from envs.base import ConfigError, DataError, ViterError
from envs.task import Environment, Sighted, State, Task
from envs.verify import LineError, question_of, told
from services.engines.episodes import DEALT, given, opening
from services.http.problems import TooMuch, VerifierFailed


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskOrder(Asked):
    """Which task to deal."""

    seed: int = Field(0, ge=0, lt=2**63)
    options: dict[str, Any] = Field(default_factory=dict, max_length=64)


class PictureOrder(Asked):
    """Which picture of which task to draw."""

    data: dict[str, Any]
    options: dict[str, Any] = Field(default_factory=dict, max_length=64)
    key: str = Field(max_length=200)


class AnswerOrder(Asked):
    """An answer to judge, as one line of `viter verify`."""

    env: str = "general_points"
    options: dict[str, Any] = Field(default_factory=dict)
    state: dict[str, Any]
    attempts_left: int = Field(5, ge=0)
    answer: str


class VerifyOrder(Asked):
    """An answer to judge, as one line of `viter verify`; or `answers`, several of them."""

    env: str = "general_points"
    options: dict[str, Any] = Field(default_factory=dict)
    state: dict[str, Any] | None = None
    attempts_left: int = Field(5, ge=0)
    answer: str | None = None
    answers: list[AnswerOrder] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _is_one_or_several(self) -> Self:
        if self.answers is not None and self.model_fields_set != {"answers"}:
            raise ValueError("answers: send them alone; each holds its own env, options, state and attempts_left")
        if self.answers is None and (self.state is None or self.answer is None):
            raise ValueError("send `state` and `answer`, or a list of both in `answers`")
        return self

    @property
    def each(self) -> list[AnswerOrder]:
        return self.answers or [AnswerOrder(**self.model_dump(exclude={"answers"}))]


class EnvironmentCard(BaseModel):
    """An environment, and what can be asked of it."""

    name: str
    tasks_word: str
    headline: str
    options: dict[str, Any] | None
    """With their defaults; null where it cannot be made without being told some."""
    presentation: list[str]
    """Options that show the same tasks in another way."""
    suites: list[str]


class EnvironmentList(BaseModel):
    """Every installed environment."""

    object: str = "list"
    data: list[EnvironmentCard]
    first_id: str | None
    last_id: str | None
    has_more: bool = False


class TaskCard(BaseModel):
    """A task, and the prompt that opens it."""

    environment: str
    options: dict[str, Any]
    """Resolved: with `data` they are the task."""
    data: dict[str, Any]
    prompt: str
    images: list[str]
    state: dict[str, Any] | None
    """What /v1/verify takes for this task; null where the environment reads none."""


class VerdictAnswer(BaseModel):
    """What the verifier says of an answer."""

    reward: float
    status: str
    feedback: str
    terminated: bool
    truncated: bool


class Unjudged(BaseModel):
    """What kept an answer from a verdict."""

    error: str


class VerdictList(BaseModel):
    """Verdicts in the order of the answers."""

    data: list[VerdictAnswer | Unjudged]


def environments() -> EnvironmentList:
    """Every installed environment."""
    cards = [
        EnvironmentCard(
            name=name,
            tasks_word=suites.tasks_word(name),
            headline=suites.headline(name),
            options=_defaults(name),
            presentation=list(suites.presentation(name)),
            suites=list(suites.suite_names(name)),
        )
        for name in envs.names()
    ]
    first, last = (cards[0].name, cards[-1].name) if cards else (None, None)
    return EnvironmentList(data=cards, first_id=first, last_id=last)


def dealt(name: str, order: TaskOrder) -> TaskCard:
    """The task of a seed. Raises ConfigError or DataError for options that cannot be."""
    environment = envs.make(name, **order.options)
    task = environment.sample(DEALT, order.seed)
    state = dict(task.data) if hasattr(environment, "task_of") else None
    first = opening(environment.prompt(task, environment.start(task)))
    return TaskCard(
        environment=name,
        options=dict(task.options),
        data=dict(task.data),
        prompt=first.prompt,
        images=first.images,
        state=state,
    )


def picture(name: str, order: PictureOrder) -> bytes:
    """A picture of a task as PNG.

    Raises:
        DataError: the environment draws none, or this task shows none of that key.
    """
    from PIL import Image

    environment = envs.make(name, **order.options)
    task = given(environment, order.data)
    shown = [key for state in _states(environment, task) for key in opening(environment.prompt(task, state)).images]
    if order.key not in shown:
        known = f"it shows {', '.join(dict.fromkeys(shown[:8]))}" if shown else "it shows none with these options"
        raise DataError(f"key: {order.key[:80]!r} is no picture of this task; {known}")
    file = io.BytesIO()
    Image.fromarray(cast(Sighted, environment).image(order.key)).save(file, "png")
    return file.getvalue()


def questions(order: VerifyOrder, most: int) -> list[Question | ViterError]:
    """What there is to judge, each a question or what is wrong with it.

    Raises:
        TooMuch: there are more than `most`.
        ConfigError: the one answer cannot be judged.
    """
    each = order.each
    if len(each) > most:
        raise TooMuch(f"answers: {len(each)} are more than {most}; send them in several requests")
    found = [_question(answer) for answer in each]
    if order.answers is None and isinstance(found[0], ViterError):
        raise found[0]
    return found


def verdicts(
    order: VerifyOrder, asked: Sequence[Question | ViterError], judged: Sequence[Judgement]
) -> VerdictAnswer | VerdictList:
    """The verdicts at the places of their questions. Raises VerifierFailed where the one answer got none."""
    judgements = iter(judged)
    rows = [
        Unjudged(error=str(question)) if isinstance(question, ViterError) else _verdict(next(judgements))
        for question in asked
    ]
    if order.answers is not None:
        return VerdictList(data=rows)
    if isinstance(rows[0], Unjudged):
        raise VerifierFailed(rows[0].error)
    return rows[0]


def _question(answer: AnswerOrder) -> Question | ViterError:
    try:
        return question_of(answer.model_dump_json(), 1)
    except LineError as error:
        return ConfigError(str(error).removeprefix("line 1: "))


def _verdict(judgement: Judgement) -> VerdictAnswer | Unjudged:
    verdict, _ = judgement
    if not verdict.status.is_judgement:
        return Unjudged(error=f"the verifier failed ({verdict.status}): {verdict.feedback}")
    return VerdictAnswer(**told(verdict))


def _states(environment: Environment, task: Task) -> Sequence[State]:
    staged: Any = environment
    return staged.states(task) if hasattr(staged, "states") else (environment.start(task),)


def _defaults(name: str) -> dict[str, Any] | None:
    try:
        return envs.make(name).options.model_dump(mode="json")
    except ViterError:
        return None
