"""The words every environment speaks: Task, State, Verdict, Message, and the Environment protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from envs.base import Config

if TYPE_CHECKING:
    import numpy as np


class Status(StrEnum):
    """What a verifier made of an answer. The last two are no judgement: the verifier itself failed; no reward counts."""

    CORRECT = "correct"
    PARTIAL = "partial"
    WRONG_VALUE = "wrong_value"
    WRONG_NUMBERS = "wrong_numbers"
    ILLEGAL_FORMULA = "illegal_formula"
    WRONG_RECOGNITION = "wrong_recognition"
    WRONG_ACTION = "wrong_action"
    LIMIT = "limit"
    TIMEOUT = "timeout"
    CRASHED = "crashed"

    @property
    def is_judgement(self) -> bool:
        return self not in (Status.TIMEOUT, Status.CRASHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message. Images are named by key (`Sighted.image`) and come before the text."""

    role: str  # "user" | "assistant" | "system"
    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One deal of cards, one route: all that is needed to play and judge it anywhere.

    Task(environment="general_points", options={"face_cards": "ten", ...}, id="C7-CK-C7-CA", data={"cards": [...]})
    """

    environment: str  # the name `envs.make` knows
    options: Mapping[str, Any] = field(hash=False)  # the environment's resolved options, JSON-able
    id: str  # names the deal, not the draw: equal for equal tasks
    data: Mapping[str, Any] = field(hash=False)  # what only the environment reads, JSON-able


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where an episode stands. Small, immutable, and enough (with the task) to verify the next answer.

    `position` counts rebuilt prompts: when a verdict raises it, the next turn starts a new segment from
    `Environment.prompt`; while it stays, the verdict's feedback is appended to the chat.
    """

    attempts_left: int  # judged answers still allowed at this position
    position: int = 0
    is_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the verifier says of one answer."""

    reward: float
    status: Status
    feedback: str  # the words the model hears; the protocol of each environment
    terminated: bool = False  # the task ended: solved, or reached its goal
    truncated: bool = False  # the attempts ran out


class Environment(Protocol):
    """A task family with its options fixed. Pure: every method is a function of its arguments alone."""

    name: str
    options: Config

    def sample(self, *counters: int | str) -> Task:
        """The training task of these counters, e.g. (run seed, step, index)."""

    def start(self, task: Task) -> State: ...

    def prompt(self, task: Task, state: State) -> tuple[Message, ...]:
        """The chat that opens the segment at `state.position`."""

    def verify(self, task: Task, state: State, answer: str) -> tuple[Verdict, State]:
        """Judge an answer. Never raises on any text, never runs it, and takes microseconds."""

    def feedback(self, verdict: Verdict) -> Message:
        """The user turn that tells a verdict to the model, within a segment."""

    def expert(self, task: Task, state: State, *counters: int | str) -> str:
        """An answer the verifier accepts; `counters` choose among several."""


class Sighted(Protocol):
    """What an environment offers whose messages name images."""

    def image(self, key: str) -> "np.ndarray":
        """The picture of a key that one of its messages names: [H, W, 3] uint8, read-only. Drawn when first asked for.

        A function of the key and the environment's options: the same bytes on every machine.

        Raises:
            DataError: the picture is made from a file that is missing or corrupt.
        """


class Staged(Protocol):
    """What an environment offers whose tasks have several positions."""

    def states(self, task: Task) -> tuple[State, ...]:
        """Every state that an expert is asked in, in order; the first is `Environment.start`."""
