"""Verdicts from other processes: batches in, deadlines and retries around, and a typed failure instead of a reward of 0.

    play ─► VerifierPool.verify ─► queue ─► one loop per verifier ─► Judge.judge(batch) ─► VerifierWorker
                                     ▲                │ died, or silent past the deadline
                                     └── asked again ─┘

A verifier is pure, so asking again elsewhere is harmless. Knows no Ray: `actors` makes a `Judge` of an actor.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

import envs
from envs.base import ViterError
from envs.task import State, Status, Task, Verdict

BATCH = 256  # answers of one call
ATTEMPTS = 5  # calls that an answer may lose on its own before it counts as the answer's fault
RECOVERY_S = 120.0  # how long answers wait while no verifier is alive; Ray restarts one in a few seconds
REVIVE_EVERY_S = 0.2
MOST_REWARD = float(np.finfo(np.float32).max)

Question = tuple[Task, State, str]
Judgement = tuple[Verdict, State]


class JudgeDied(ViterError):
    """A verifier process is gone; what it was asked has no answer."""


class Judge(Protocol):
    """One verifier, wherever it lives."""

    async def judge(self, questions: Sequence[Question]) -> list[Judgement]:
        """Raises `JudgeDied`."""

    async def revive(self) -> None:
        """Returns once it answers again, having ended it first if it hangs. Raises `JudgeDied` if that fails."""


class VerifierWorker:
    """Judges batches. Environments are made once and kept."""

    def judge(self, questions: Sequence[Question]) -> list[Judgement]:
        """A verdict for each, in order. An answer that makes the verifier raise gets CRASHED and spoils no other."""
        return [_judge(*question) for question in questions]


def _judge(task: Task, state: State, answer: str) -> Judgement:
    try:
        verdict, after = envs.make(task.environment, **task.options).verify(task, state, answer)
        if not abs(verdict.reward) <= MOST_REWARD:  # NaN is not, either: one alone would spoil its whole step
            raise ValueError(f"the reward is {verdict.reward:g}, which float32 does not hold")
        return verdict, after
    except Exception as error:  # whatever a verifier raises is a failure of the verifier, told as a status
        return _failure(Status.CRASHED, f"{type(error).__name__}: {error}"), state


def _failure(status: Status, reason: str) -> Verdict:
    return Verdict(reward=0.0, status=status, feedback=reason[:500])


@dataclass(slots=True, eq=False)
class _Pending:
    """An answer on its way to a verdict. `alone`: it was in a call that failed, so it now travels by itself."""

    question: Question
    verdict: asyncio.Future[Judgement]
    alone: bool = False
    losses: int = 0
    last_judge: int | None = None


@dataclass(slots=True, kw_only=True)
class PoolStats:
    """Counts since the start, and seconds of verifier calls."""

    verdicts: int = 0
    calls: int = 0
    call_s: float = 0.0
    retries: int = 0
    timeouts: int = 0
    deaths: int = 0
    failures: int = 0


@dataclass(eq=False)
class VerifierPool:
    """Verdicts of several verifiers, each with one call at a time.

    Answers queue in `_queue`; a verifier that becomes free takes all that wait (at most `BATCH`), so batches grow with
    load and nobody waits for a batch to fill. `_changed` wakes the verifiers' loops when something is queued or a
    verifier comes back. A call that fails says nothing about which answer is to blame, so its answers then travel one
    by one; `ATTEMPTS` failures alone, each on another verifier where there is one, end with a typed status.
    """

    judges: Sequence[Judge]
    deadline_s: float = 10.0
    recovery_s: float = RECOVERY_S
    stats: PoolStats = field(default_factory=PoolStats)
    on_call: Callable[[float], object] = lambda _: None  # told the seconds of each call that was answered

    def __post_init__(self) -> None:
        self._queue: deque[_Pending] = deque()
        self._changed = asyncio.Event()
        self._alive = set(range(len(self.judges)))
        self._loops: list[asyncio.Task[None]] = []

    @property
    def depth(self) -> int:
        """Answers that wait for a verifier."""
        return len(self._queue)

    async def verify(self, task: Task, state: State, answer: str) -> Judgement:
        """The verdict, or one whose status is TIMEOUT or CRASHED when the verifiers failed. Never raises for an answer."""
        if not self._loops:
            self._loops = [asyncio.create_task(self._serve(number)) for number in range(len(self.judges))]
        pending = _Pending((task, state, answer), asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        self._changed.set()
        return await pending.verdict

    async def close(self) -> None:
        """End the loops. Nothing may be waiting for a verdict."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []

    async def _serve(self, number: int) -> None:
        """One verifier for ever: take what waits, ask, tell; after a failure bring it back first."""
        while True:
            batch = self._take(number)
            if not batch:
                self._changed.clear()
                await self._changed.wait()
                await asyncio.sleep(0)  # verdicts wanted by one engine step are all queued within one round of the loop
                continue
            started = time.perf_counter()
            questions = [pending.question for pending in batch]
            try:
                async with asyncio.timeout(self.deadline_s):
                    judged = await self.judges[number].judge(questions)
            except Exception as error:  # the door around a verifier call: whatever it is becomes a status
                self._lose(number, batch, error)
                await self._bring_back(number)
                continue
            self.stats.calls += 1
            self.stats.verdicts += len(batch)
            self.stats.call_s += (seconds := time.perf_counter() - started)
            self.on_call(seconds)
            for pending, judgement in zip(batch, judged, strict=True):
                _tell(pending, judgement)

    def _take(self, number: int) -> list[_Pending]:
        """What this verifier asks next: one answer that must travel alone, or all others that wait.

        An answer that this verifier lost is left to the others while any is alive.
        """
        others = bool(self._alive - {number})
        batch: list[_Pending] = []
        passed: list[_Pending] = []
        while self._queue and len(batch) < BATCH:
            pending = self._queue.popleft()
            if pending.verdict.done():  # its episode was dropped
                continue
            if (others and pending.last_judge == number) or (pending.alone and batch):
                passed.append(pending)
                continue
            batch.append(pending)
            if pending.alone:
                break
        self._queue.extendleft(reversed(passed))
        return batch

    def _lose(self, number: int, batch: list[_Pending], error: Exception) -> None:
        """A call failed: queue its answers again, first in line, each by itself."""
        is_timeout = isinstance(error, TimeoutError)
        self.stats.timeouts += is_timeout
        self.stats.deaths += not is_timeout
        for pending in reversed(batch):
            pending.losses += len(batch) == 1
            pending.last_judge, pending.alone = number, True
            if pending.losses < ATTEMPTS:
                self.stats.retries += 1
                self._queue.appendleft(pending)
                continue
            status = Status.TIMEOUT if is_timeout else Status.CRASHED
            reason = f"no verdict within {self.deadline_s:g} s" if is_timeout else f"{type(error).__name__}: {error}"
            self._fail(pending, status, f"{reason}, {ATTEMPTS} times")

    async def _bring_back(self, number: int) -> None:
        """Return once the verifier answers. While none does for `recovery_s`, whoever waits is told so."""
        self._alive.discard(number)
        self._changed.set()
        give_up = time.monotonic() + self.recovery_s
        while True:
            try:
                async with asyncio.timeout(self.recovery_s):
                    await self.judges[number].revive()
                break
            except (JudgeDied, TimeoutError):
                await asyncio.sleep(REVIVE_EVERY_S)
            if not self._alive and time.monotonic() > give_up:
                while self._queue:
                    reason = f"no verifier came back within {self.recovery_s:g} s"
                    self._fail(self._queue.popleft(), Status.CRASHED, reason)
        self._alive.add(number)
        self._changed.set()

    def _fail(self, pending: _Pending, status: Status, reason: str) -> None:
        self.stats.failures += 1
        _tell(pending, (_failure(status, reason), pending.question[1]))


def _tell(pending: _Pending, judgement: Judgement) -> None:
    if not pending.verdict.done():
        pending.verdict.set_result(judgement)
