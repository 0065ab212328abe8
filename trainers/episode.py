"""What flows from rollouts to the learner: Turn, Segment, Episode. NumPy only; the Arrow form is `episode_arrow`."""

from dataclasses import dataclass

import numpy as np

from envs.task import Status, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One response and the verdict on it."""

    start: int  # first sampled token within the segment
    stop: int  # one past the last
    reward: float
    status: Status
    answer: str  # decoded once, for the verifier and for people; never tokenised again
    feedback: str
    finish_reason: str  # "stop" or "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of turns whose token history only grows: one row for the learner.

    Prompt P (3 tokens), answer A (2), feedback F (2), second answer B (1):
        token_ids  P P P A A F F B
        sampled    0 0 0 1 1 0 0 1        turns at [3, 5) and [7, 8)
    The engine's log-probs serve the mismatch check and the correction for staleness;
    PPO's denominator is the learner's own score.
    """

    token_ids: np.ndarray  # [L] int32
    sampled: np.ndarray  # [L] bool, True where the policy drew the token; only these are trained on
    engine_logp: np.ndarray  # [L] float32, 0 where not sampled
    weight_versions: np.ndarray  # [L] int32, -1 where not sampled
    turns: tuple[Turn, ...]
    images: tuple[str, ...] = ()  # keys, in order of their placeholders
    pictures: tuple[np.ndarray, ...] = ()  # [H, W, 3] uint8 of each; empty in the run log, which keeps the keys alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Counted tokens and seconds of one episode."""

    prefill_tokens: int  # computed by the engine, cache hits left out
    cached_tokens: int
    sampled_tokens: int
    generate_s: float
    verify_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """The policy's whole attempt at a task. `(step, index)` names it: at most one is ever delivered."""

    step: int  # learner step it was asked for
    index: int  # its place within that step
    task: Task
    segments: tuple[Segment, ...]
    terminated: bool
    truncated: bool
    usage: Usage
    worker: str = ""
    overflowed: bool = False  # truncated since the context had no room for another answer

    @property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(turn for segment in self.segments for turn in segment.turns)

    @property
    def is_success(self) -> bool:
        return self.terminated and self.turns[-1].status is Status.CORRECT

    @property
    def reward(self) -> float:
        return sum(turn.reward for turn in self.turns)
