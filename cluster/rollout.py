"""One episode as a plain coroutine, and a worker that plays many at once. Imports neither Ray nor vLLM."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from cluster.engine.reply import Reply
from cluster.ledger import Order, Receipt
from envs.base import DataError, seed_of
from envs.task import Environment, State, Status, Task, Verdict
from trainers.chat import ChatFormat, Transcript
from trainers.episode import Episode, Segment, Usage
from trainers.episode_arrow import to_batch

GATHER_S = 0.05  # finished episodes wait this long for company, so that one actor call carries several home
PATIENCE_S = 5.0  # a worker with nothing finished answers after this long, having asked its engine for its health

Verify = Callable[[Task, State, str], Awaitable[tuple[Verdict, State]]]
Seeds = Callable[[int], int]


class Generate(Protocol):
    """What `play` asks of an engine; `Engine.generate` is one."""

    def __call__(
        self, token_ids: Sequence[int], *, seed: int, temperature: float, max_tokens: int, stop_ids: Sequence[int]
    ) -> Awaitable[Reply]: ...


class Sampler(Protocol):
    """What a worker asks of an engine; `Engine` is one."""

    @property
    def generate(self) -> Generate: ...

    async def check_health(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How answers are drawn: from the whole distribution at `temperature`, or greedily at 0."""

    temperature: float = 1.0
    max_tokens: int = 512  # longest answer
    max_model_len: int = 1024  # history and answer together


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """An episode that no verifier could judge. It is counted, and never becomes a reward of 0."""

    task: Task
    status: Status  # TIMEOUT or CRASHED
    reason: str
    step: int = 0
    index: int = 0


def turn_seeds(*counters: int | str) -> Seeds:
    """Seeds of the turns of one episode, for example of (run seed, step, index): the same whoever plays it, whenever."""
    return lambda turn: seed_of(*counters, "turn", turn)


def here(environment: Environment) -> Verify:
    """Verdicts in this process: for evaluation, where the verifier costs less than a call to an actor."""

    async def verify(task: Task, state: State, answer: str) -> tuple[Verdict, State]:
        return environment.verify(task, state, answer)

    return verify


async def play(
    task: Task,
    environment: Environment,
    chat: ChatFormat,
    generate: Generate,
    verify: Verify,
    *,
    decoding: Decoding,
    seeds: Seeds,
    step: int = 0,
    index: int = 0,
    worker: str = "",
) -> Episode | Quarantined:
    """Play one task to its end: answer, hear the verdict, revise.

    `generate` and `verify` are all it knows of engines and actors, so the same lines play in a rollout worker, in an
    evaluation replica, and in a test with two small functions. A history that leaves no room for an answer ends the
    episode: `truncated` and `overflowed`.

    Raises:
        DataError: not even the first answer has room.
    """
    state = environment.start(task)
    transcript = Transcript(chat, environment.prompt(task, state))
    segments: list[Segment] = []
    meter = _Meter()
    verdict: Verdict | None = None
    while not state.is_over and (has_room := _has_room(transcript, decoding)):
        with meter.generating():
            reply = await generate(
                transcript.token_ids,
                seed=seeds(meter.turns),
                temperature=decoding.temperature,
                max_tokens=decoding.max_tokens,
                stop_ids=chat.stop_ids,
            )
        meter.count(reply)
        answer = transcript.append_reply(reply.token_ids, reply.logp, reply.weight_versions, reply.finish_reason)
        with meter.verifying():
            verdict, after = await verify(task, state, answer)
        if not verdict.status.is_judgement:
            return Quarantined(task=task, status=verdict.status, reason=verdict.feedback, step=step, index=index)
        if after.position > state.position and not after.is_over:
            transcript.append_verdict(verdict)
            segments.append(transcript.segment())
            transcript = Transcript(chat, environment.prompt(task, after))
        else:
            _close_turn(transcript, chat, environment, verdict, decoding)
        state = after
    if verdict is None:
        raise DataError(
            f"rollout.engine.max_model_len {decoding.max_model_len}: a prompt of {len(transcript.token_ids)} tokens and an "
            f"answer of {decoding.max_tokens} do not fit; raise it or lower ppo.answer_tokens"
        )
    if transcript.turns:
        segments.append(transcript.segment())
    return Episode(
        step=step,
        index=index,
        task=task,
        segments=tuple(segments),
        terminated=verdict.terminated,
        truncated=not verdict.terminated,
        overflowed=not state.is_over and not has_room,
        usage=meter.usage(),
        worker=worker,
    )


def _has_room(transcript: Transcript, decoding: Decoding) -> bool:
    return len(transcript.token_ids) + decoding.max_tokens <= decoding.max_model_len


def _close_turn(
    transcript: Transcript, chat: ChatFormat, environment: Environment, verdict: Verdict, decoding: Decoding
) -> None:
    """The verdict, and its words unless the task is solved: after a truncation the critic reads the value behind them."""
    feedback = None if verdict.terminated else environment.feedback(verdict)
    if feedback is not None:
        length = len(transcript.token_ids) + 1 + len(chat.feedback_ids(feedback))
        feedback = feedback if length <= decoding.max_model_len else None
    transcript.append_verdict(verdict, feedback)


class _Meter:
    """Tokens and seconds of an episode in the making."""

    def __init__(self) -> None:
        self.turns = self.prefill = self.cached = self.sampled = 0
        self.generate_s = self.verify_s = 0.0

    def generating(self) -> "_Watch":
        return _Watch(self, "generate_s")

    def verifying(self) -> "_Watch":
        return _Watch(self, "verify_s")

    def count(self, reply: Reply) -> None:
        self.turns += 1
        self.prefill += reply.prompt_tokens - reply.cached_tokens
        self.cached += reply.cached_tokens
        self.sampled += len(reply.token_ids)

    def usage(self) -> Usage:
        return Usage(
            prefill_tokens=self.prefill,
            cached_tokens=self.cached,
            sampled_tokens=self.sampled,
            generate_s=self.generate_s,
            verify_s=self.verify_s,
        )


class _Watch:
    def __init__(self, meter: _Meter, name: str) -> None:
        self._meter, self._name = meter, name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        setattr(self._meter, self._name, getattr(self._meter, self._name) + time.perf_counter() - self._start)


class RolloutWorker:
    """Many episodes in flight on one engine. Orders come in by `give`, finished episodes leave by `collect`.

    `_waiting` holds orders beyond `episodes_in_flight`: a place that becomes free is taken at once, without asking the
    orchestrator. `_news` wakes `collect` and is set by every episode that ends; `_all_done` ends the gathering early.
    """

    def __init__(
        self,
        engine: Sampler,
        environment: Environment,
        chat: ChatFormat,
        verify: Verify,
        *,
        decoding: Decoding,
        seed: int,
        episodes_in_flight: int,
        name: str = "",
    ) -> None:
        self.engine, self.name = engine, name
        self._environment, self._chat, self._verify = environment, chat, verify
        self._decoding, self._seed, self._places = decoding, seed, episodes_in_flight
        self._waiting: deque[Order] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._finished: list[tuple[Order, Episode | Quarantined]] = []
        self._failure: Exception | None = None
        self._news, self._all_done = asyncio.Event(), asyncio.Event()

    async def give(self, orders: Sequence[Order]) -> None:
        """Play these too."""
        self._waiting.extend(orders)
        self._fill()

    async def collect(self, patience_s: float = PATIENCE_S) -> tuple[list[Receipt], pa.RecordBatch | None]:
        """Episodes finished since the last call; waits for the first, at most `patience_s`.

        Returns:
            A receipt for each, and the episodes themselves, one per row; the receipt names the row.
        Raises:
            Whatever ended an episode: a dead engine, a bug. The worker is of no use then.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._news.wait()
            async with asyncio.timeout(GATHER_S):
                await self._all_done.wait()
        if self._failure is not None:
            raise self._failure
        if not self._finished:
            await self.engine.check_health()
        finished, self._finished = self._finished, []
        self._news.clear()
        return _harvest(finished)

    async def drop(self) -> None:
        """Forget every order: the learner went back to an earlier step."""
        self._waiting.clear()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._finished.clear()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._places:
            task = asyncio.create_task(self._play(self._waiting.popleft()))
            self._running.add(task)
            task.add_done_callback(self._ended)
        if self._running:
            self._all_done.clear()
        else:
            self._all_done.set()

    async def _play(self, order: Order) -> None:
        outcome = await play(
            self._environment.sample(self._seed, "train", order.step, order.index),
            self._environment,
            self._chat,
            self.engine.generate,
            self._verify,
            decoding=self._decoding,
            seeds=turn_seeds(self._seed, order.step, order.index),
            step=order.step,
            index=order.index,
            worker=self.name,
        )
        self._finished.append((order, outcome))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
            self._all_done.set()
        self._news.set()
        self._fill()


def _harvest(finished: Sequence[tuple[Order, Any]]) -> tuple[list[Receipt], pa.RecordBatch | None]:
    receipts: list[Receipt] = []
    episodes: list[Episode] = []
    for order, outcome in finished:
        if isinstance(outcome, Quarantined):
            receipts.append(Receipt(ticket=order.ticket, quarantined=f"{outcome.status}: {outcome.reason}"))
            continue
        usage = outcome.usage
        receipts.append(
            Receipt(
                ticket=order.ticket,
                row=len(episodes),
                tokens=sum(len(segment.token_ids) for segment in outcome.segments),
                oldest_version=min(
                    int(s.weight_versions[s.sampled].min()) for s in outcome.segments if s.sampled.any()
                ),
                turns=len(outcome.turns),
                overflowed=outcome.overflowed,
                prefill_tokens=usage.prefill_tokens,
                cached_tokens=usage.cached_tokens,
                sampled_tokens=usage.sampled_tokens,
                generate_s=usage.generate_s,
                verify_s=usage.verify_s,
            )
        )
        episodes.append(outcome)
    return receipts, to_batch(episodes) if episodes else None
