"""The words of an evaluation: what is ordered, what one episode gave, what came of it all."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs.task import Status
from services.scoring import Difference, Outcome, Rate
from trainers.checkpoints import Checkpoint

MAX_N = 2000
State = Literal["queued", "in_progress", "completed", "failed", "canceled"]
ENDED: tuple[State, ...] = ("completed", "failed", "canceled")
Name = Annotated[str, Field(min_length=1, max_length=200)]


class EvaluationOrder(BaseModel):
    """Play frozen tasks with one checkpoint and score them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    checkpoint: Name
    """`run@step-000040`, `run@latest` or `run@ALIAS`; an alias is followed once, now."""
    environment: Name = "general_points"
    """Whose default suites are played where `suites` is empty."""
    suites: tuple[Name, ...] = Field((), max_length=16)
    """Suites by name; empty takes the environment's ID and rule-OOD suites."""
    n: int = Field(512, ge=1, le=MAX_N)
    """Tasks of each suite: its first n."""
    viter: int = Field(5, ge=1, le=50)
    """Judged attempts per state."""
    temperature: float = Field(1.0, ge=0, le=5)
    """Sampling temperature; 0 decodes greedily."""
    max_tokens: int = Field(256, ge=1, le=8192)
    """Longest answer, in tokens."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Names every draw: the same order gives the same episodes on the same weights."""

    @model_validator(mode="after")
    def _suites_are_distinct(self) -> Self:
        if len(set(self.suites)) != len(self.suites):
            raise ValueError("suites: each suite may stand once")
        return self


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


class Item(BaseModel):
    """One task of a suite, played to its end."""

    id: str
    suite: str
    index: int
    task: str
    data: dict[str, Any]
    prompt: str
    success: bool
    reward: float
    turns: list[ItemTurn]
    recognised: bool | None = None
    """Whether the first answer reads what was dealt; null where the environment does not ask."""
    prefill_tokens: int
    cached_tokens: int
    decoded_tokens: int
    digest: str
    error: str | None = None
    """What failed, where the episode could not be judged; such an item counts in no rate."""

    @property
    def outcome(self) -> Outcome:
        correct = tuple(turn.status == Status.CORRECT for turn in self.turns)
        return Outcome(is_success=self.success, is_correct=correct, recognised=self.recognised)


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
    n: int
    failed: int
    success: RateModel
    first_attempt: RateModel
    by_iteration: list[RateModel]
    per_step_accuracy: RateModel
    recognition: RateModel | None
    regressions: RateModel
    tokens: Tokens
    flops: int | None
    """Null where the checkpoint does not say how many parameters it has."""


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
    counts: Counts
    results: list[SuiteResult] | None = None
    generalisation_gap: DifferenceModel | None = None
    error: str | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


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
