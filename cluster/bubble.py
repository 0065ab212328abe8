"""How long engines play a step, and how long their slots stand empty meanwhile: a simulation. Pure arithmetic.

An episode ends at its first correct answer or after `viter` attempts, so slots that started together fall free one after
another. While there is more to play a free slot is filled at once; at the end of a synchronous step nothing is left, and
the unlucky episodes' last attempts keep whole engines waiting. That is the revision bubble.
"""

import heapq
import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What episodes are like."""

    prompt: float  # tokens
    answer: float  # tokens, mean
    feedback: float  # tokens
    hazards: tuple[float, ...]  # chance that the 1st, 2nd, … attempt solves what is not solved yet; the last goes on
    answer_spread: float = 0.0  # standard deviation of an answer's length over its mean
    positions: float = 1.0  # of an episode, each with a prompt and attempts of its own (V-IRL)

    def hazard(self, attempt: int) -> float:
        """Chance that attempt number `attempt` (from 0) solves an episode that reached it."""
        return self.hazards[min(attempt, len(self.hazards) - 1)]

    def attempts(self, viter: int) -> float:
        """Mean attempts of an episode: Σ_{k < viter} Π_{j < k} (1 − hazard_j)."""
        reached, total = 1.0, 0.0
        for attempt in range(viter):
            total += reached
            reached *= 1.0 - self.hazard(attempt)
        return total

    def success(self, viter: int) -> float:
        """Share of episodes solved within `viter` attempts."""
        unsolved = 1.0
        for attempt in range(viter):
            unsolved *= 1.0 - self.hazard(attempt)
        return 1.0 - unsolved


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpeed:
    """One engine: a decoding step of n sequences takes `fixed_s + n · sequence_s`, and prefill its own time."""

    fixed_s: float  # reading the weights
    sequence_s: float  # each sequence's share: its cache, its arithmetic
    prefill_s: float  # per prompt or feedback token
    verdict_s: float = 0.0  # from an answer to the next token: verifier and calls

    def tokens_s(self, sequences: int) -> float:
        """Tokens per second with so many sequences, prefill left out."""
        return sequences / (self.fixed_s + sequences * self.sequence_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A simulated step."""

    seconds: float
    slots_idle: float  # share of slot-time without an episode
    turns: int
    tokens: float  # decoded
    token_s: tuple[float, float]  # seconds per token of episodes with one attempt, and of those that used up all


def play_step(
    *, workers: int, slots: int, episodes: int, viter: int, load: Load, engine: EngineSpeed, seed: int = 0
) -> Played:
    """Play `episodes` to their end on `workers` engines of `slots` each, filled from one queue.

    Every sequence of an engine advances at the same speed, which depends on how many there are (processor sharing);
    the queue goes to the engines in turn at the start and then to whoever has a free slot first.
    """
    dice = random.Random(seed)
    engines = [_Engine(slots, engine, load, viter, dice) for _ in range(workers)]
    waiting = episodes
    for _ in range(slots):  # one more for each in turn, as the orchestrator's fair shares do
        for each in engines:
            if waiting:
                each.begin()
                waiting -= 1
    events = [(each.next_at(), number) for number, each in enumerate(engines) if each.running]
    heapq.heapify(events)
    now = 0.0
    while events:
        now, number = heapq.heappop(events)
        each = engines[number]
        if each.finish_turn(now) and waiting:
            each.begin()
            waiting -= 1
        if each.running:
            heapq.heappush(events, (each.next_at(), number))
    busy = sum(each.busy_s for each in engines)
    once, most = (
        [seconds for each in engines for attempts, seconds in each.latencies if attempts == wanted]
        for wanted in (1, viter)
    )
    total = workers * min(slots, -(-episodes // workers))
    return Played(
        seconds=now,
        slots_idle=1.0 - busy / (total * now) if now else 0.0,
        turns=sum(each.turns for each in engines),
        tokens=sum(each.tokens for each in engines),
        token_s=(_mean(once), _mean(most)),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


class _Engine:
    """One engine's episodes, in virtual time: the tokens that each running sequence has drawn since the start."""

    def __init__(self, slots: int, speed: EngineSpeed, load: Load, viter: int, dice: random.Random):
        self._slots, self._speed, self._load, self._viter, self._dice = slots, speed, load, viter, dice
        self._turns: list[tuple[float, int, _Episode]] = []  # virtual end, tie-break, whose turn
        self._virtual = self._then = 0.0
        self._number = 0
        self.busy_s = self.tokens = 0.0
        self.latencies: list[tuple[int, float]] = []  # attempts and seconds per token of every episode played
        self.turns = 0

    @property
    def running(self) -> int:
        return len(self._turns)

    def next_at(self) -> float:
        """When the next turn ends."""
        return self._then + (self._turns[0][0] - self._virtual) * self._token_s()

    def begin(self) -> None:
        """A new episode in a free slot."""
        self._start_turn(_Episode(began=self._then), self._load.prompt)

    def finish_turn(self, now: float) -> bool:
        """The next turn ends: its episode goes on with another attempt, or is over (True)."""
        self.busy_s += self.running * (now - self._then)
        self._virtual, _, episode = heapq.heappop(self._turns)
        self._then = now
        is_over = self._dice.random() < self._load.hazard(episode.attempts - 1) or episode.attempts == self._viter
        if is_over:
            self.turns += episode.attempts
            self.tokens += episode.tokens
            drawing_s = now - episode.began - episode.attempts * self._speed.verdict_s
            self.latencies.append((episode.attempts, drawing_s / episode.tokens))
        else:
            self._start_turn(episode, self._load.feedback)
        return is_over

    def _start_turn(self, episode: "_Episode", read: float) -> None:
        spread = self._load.answer_spread * self._load.answer
        drawn = max(1.0, self._dice.gauss(self._load.answer, spread)) if spread else self._load.answer
        episode.attempts += 1
        episode.tokens += drawn
        # what is read and judged costs seconds; as tokens of a full engine it stands in the same clock
        aside = (read * self._speed.prefill_s * self._slots + self._speed.verdict_s) / self._token_s(self._slots)
        heapq.heappush(self._turns, (self._virtual + drawn + aside, self._number, episode))
        self._number += 1

    def _token_s(self, sequences: int | None = None) -> float:
        return self._speed.fixed_s + (sequences or self.running) * self._speed.sequence_s


@dataclass(slots=True)
class _Episode:
    began: float
    attempts: int = 0
    tokens: float = 0.0
