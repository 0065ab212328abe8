"""The words of an evaluation: what is ordered, what one episode gave, what came of it all."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from envs.suites import Headline
from envs.task import Status
from services.evaluations.scoring import Difference, Outcome, Rate
from trainers.checkpoints import Checkpoint

MAX_N = 2000
State = Literal["queued", "in_progress", "completed", "failed", "canceled"]
Source = Literal["client", "service"]
ENDED: tuple[State, ...] = ("completed", "failed", "canceled")
Name = Annotated[str, Field(min_length=1, max_length=200)]


class DecodingOrder(BaseModel):
    """How answers are drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    temperature: float = Field(1.0, ge=0, le=5)
    """Sampling temperature; 0 decodes greedily."""
    max_tokens: int = Field(256, ge=1, le=8192)
    """Longest answer, in tokens."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Names every draw: the same order gives the same episodes on the same weights."""


class EvaluationOrder(BaseModel):
    """Play frozen tasks with one checkpoint and score them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    checkpoint: Name
    """`run@step-000040`, `run@latest` or `run@ALIAS`; an alias is followed once, now."""
    environment: Name | None = None
    """Whose default suites are played where `suites` is empty; null takes the one that the checkpoint trained on."""
    modality: Literal["language", "vision"] | None = None
    """How the default suites show their tasks; null takes how the checkpoint trained."""
    suites: tuple[Name, ...] = Field((), max_length=16)
    """Suites by name; empty takes the first ID and the first OOD suite of the environment in this modality."""
    options: dict[Name, Any] = Field(default_factory=dict, max_length=16)
    """Options of the environment that show the same tasks in another way, e.g. `{"resolution": 128}`; those left out
    are as the checkpoint trained. An option that a suite fixes is refused."""
    n: int = Field(512, ge=1, le=MAX_N)
    """Tasks of each suite: its first n."""
    viter: int = Field(5, ge=1, le=50)
    """Judged attempts per state."""
    decoding: DecodingOrder = DecodingOrder()
    """How answers are drawn."""
    idempotency: Name | None = None
    """The same key and order again give the same evaluation, as the header Idempotency-Key does; null orders a new one."""

    @model_validator(mode="after")
    def _suites_are_distinct(self) -> Self:
        if len(set(self.suites)) != len(self.suites):
            raise ValueError("suites: each suite may stand once")
        return self

    @field_validator("options")
    @classmethod
    def _viter_stands_once(cls, options: dict[str, Any]) -> dict[str, Any]:
        if "viter" in options:
            raise ValueError("`viter` has a key of its own; set that one")
        return options


class RateModel(BaseModel):
    """k of n, with the 95 % Wilson interval."""

    k: int
    n: int
    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, rate: Rate) -> Self:
        return cls(**asdict(rate))


class DifferenceModel(BaseModel):
    """A difference of two rates, with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, difference: Difference) -> Self:
        return cls(**asdict(difference))


class ItemTurn(BaseModel):
    """One answer and the verdict on it."""

    answer: str
    feedback: str
    reward: float
    status: str
    tokens: int
    finish_reason: str
    position: int = 0
    """Which of the task's positions it answers, from 0; always 0 in tasks of a single prompt."""
    recognised: bool | None = None
    """Whether it reads what is shown. Asked of the first answer at a position; null where there is nothing to read."""


class Position(BaseModel):
    """What the prompt of one position showed."""

    news: str = ""
    """Its lines that the position before did not have; empty at the first, whose words are the item's prompt."""
    images: list[str] = []
    """Keys of the pictures that came with it."""


class Item(BaseModel):
    """One task of a suite, played to its end."""

    id: str
    suite: str
    index: int
    task: str
    data: dict[str, Any]
    options: dict[str, Any] = {}
    """The task's options, resolved: with the suite's environment and `data` they are the task again."""
    prompt: str
    success: bool
    reward: float
    turns: list[ItemTurn]
    positions: list[Position] = []
    """Those that were reached, in order."""
    prefill_tokens: int
    cached_tokens: int
    decoded_tokens: int
    digest: str
    error: str | None = None
    """What failed, where the episode could not be judged; such an item counts in no rate."""

    @property
    def outcome(self) -> Outcome:
        return Outcome(
            is_success=self.success,
            attempts=tuple(
                tuple(turn.status == Status.CORRECT for turn in turns)
                for _, turns in groupby(self.turns, key=attrgetter("position"))
            ),
            recognised=tuple(turn.recognised for turn in self.turns if turn.recognised is not None),
        )


def item_id(suite: str, index: int) -> str:
    """The name of an item within its evaluation."""
    return f"{suite}/{index:06d}"


class Tokens(BaseModel):
    """Counted tokens."""

    prefill: int
    cached: int
    decoded: int


class SuiteResult(BaseModel):
    """What one suite showed."""

    suite: str
    kind: str
    digest: str
    headline: Headline = "success"
    """Which of these rates the environment is measured by."""
    n: int
    failed: int
    success: RateModel
    first_attempt: RateModel
    """Solved with every first answer correct."""
    by_iteration: list[RateModel]
    """Solved within 1, 2, … attempts at every position."""
    per_step_accuracy: RateModel
    """Correct answers of all judged answers, revisions included."""
    first_answers: RateModel | None = None
    """First answers at a position that are correct; null in files from before it was counted."""
    recognition: RateModel | None
    regressions: RateModel
    tokens: Tokens
    flops: int | None
    """Null where the checkpoint does not say how many parameters it has."""

    @property
    def main(self) -> RateModel:
        """The rate that the environment is measured by."""
        rate: RateModel = getattr(self, self.headline)
        return rate


class Counts(BaseModel):
    """How far it is."""

    total: int
    done: int = 0
    succeeded: int = 0
    failed: int = 0


class Evaluation(BaseModel):
    """An evaluation as a resource: poll it until its status has ended."""

    id: str
    object: Literal["evaluation"] = "evaluation"
    status: State = "queued"
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    model: str
    digest: str
    order: EvaluationOrder
    ordered_by: Source = "client"
    """`service`: by itself, for a checkpoint that was just committed; those of clients go first."""
    manager: str = ""
    """Which manager took the order; another one plays it once that one is gone."""
    counts: Counts
    results: list[SuiteResult] | None = None
    generalisation_gap: DifferenceModel | None = None
    error: str | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def run(self) -> str:
        """The stage run whose checkpoint is measured."""
        return self.model.partition("@")[0]


class EvaluationList(BaseModel):
    """Evaluations, newest first."""

    object: str = "list"
    data: list[Evaluation]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ItemList(BaseModel):
    """Items in the order they were finished."""

    object: str = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayOrder:
    """Items of one suite, to be played on one checkpoint."""

    checkpoint: Checkpoint
    suite: str
    indices: tuple[int, ...]
    order: EvaluationOrder


Play = Callable[[PlayOrder], AsyncGenerator[list[Item], None]]
"""Plays items at once and yields them in batches as they finish."""
