"""One engine that answers for any checkpoint: loads it when it is asked for, under a lease, and plays evaluations.

The class is plain asyncio; `deployment` puts it into a process of its own. Episodes are played here, beside the
engine, and judged by verifiers elsewhere: one that crashes or hangs is a failed item, and the engine goes on.

How long somebody may hold the engine, while those who want another checkpoint wait: a request and an episode on
request until their deadline; an episode of an evaluation until its end, at most `viter` answers of `max_tokens` at each
of its positions.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import envs
from cluster.metrics import UNMEASURED, Meters
from cluster.rollout import Decoding, Generate, Heard, Quarantined, Seeds, play, turn_seeds
from cluster.verifiers import VerifierPool
from envs import suites
from envs.task import Environment, Task
from services.config import ServiceConfig
from services.engines import episodes
from services.engines.account import Account, CountedStream, VerifierAccount, with_usage
from services.engines.episodes import EpisodeEvent, EpisodeOrder
from services.engines.kinds import kind_of
from services.engines.leases import Leases
from services.evaluations.items import item_of
from services.evaluations.orders import Item, PlayOrder
from services.http.problems import EngineDown
from trainers.chat import ChatFormat
from trainers.checkpoints import Checkpoint, materialise
from trainers.episode import Episode
from trainers.model_safety import refuse_unsafe

logger = logging.getLogger("viter.replica")


class Completions(Protocol):
    """OpenAI's two completion routes over one engine."""

    async def chat(self, body: dict[str, Any]) -> "dict[str, Any] | AsyncGenerator[str, None]": ...

    async def completion(self, body: dict[str, Any]) -> "dict[str, Any] | AsyncGenerator[str, None]": ...


class ServedEngine(Protocol):
    """What a replica asks of an engine; `cluster.engine.Engine` is one."""

    @property
    def generate(self) -> Generate: ...

    async def swap(self, model_dir: Path, version: int) -> None: ...

    async def check_health(self) -> None: ...

    async def close(self) -> None: ...


StartEngine = Callable[[Path, int], Awaitable[tuple[ServedEngine, Completions]]]
"""Starts an engine on a model directory, as a weight version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How an answer begins: its status, and its body unless a stream of server-sent events follows."""

    status: int
    body: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaState:
    """What a replica is doing."""

    is_up: bool
    digest: str | None
    users: int
    swaps: int
    swap_s: list[float] = field(default_factory=list)


class EngineReplica:
    """Answers requests and plays evaluations on one engine."""

    def __init__(
        self, config: ServiceConfig, start_engine: StartEngine, verifiers: VerifierPool, meters: Meters = UNMEASURED
    ):
        self._config = config
        self._start_engine = start_engine
        self.verifiers = verifiers
        self._account, self._verifier_account = Account(meters), VerifierAccount(meters)
        verifiers.on_call = self._verifier_account.judged
        self._leases = Leases(self._load, patience_s=config.patience_s)
        self._checkpoints: dict[str, Checkpoint] = {}  # by digest: what those in line wait for
        self._directories: dict[str, Path] = {}  # by digest: verified, on this machine
        self._engine: ServedEngine | None = None
        self._completions: Completions | None = None
        self._chat: ChatFormat | None = None
        self._kind: str | None = None
        self._version = 0
        self._swap_s: list[float] = []

    async def warm(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint before anybody asks for it."""
        async with self._lease(checkpoint):
            pass

    async def complete(
        self, route: str, body: dict[str, Any], checkpoint: Checkpoint, deadline_s: float
    ) -> AsyncGenerator[Head | str, None]:
        """Answer a completion request: a Head, then server-sent events where the request asked for a stream.

        Raises:
            TimeoutError: `deadline_s` ran out, waiting included. The engine's work on it is aborted.
        """
        started = time.perf_counter()
        async with asyncio.timeout(deadline_s), self._lease(checkpoint):
            assert self._completions is not None
            answer = await getattr(self._completions, route)(with_usage(body))
            if isinstance(answer, dict):
                self._account.completed(route, checkpoint, answer.get("usage"), time.perf_counter() - started)
                error = answer.get("error")
                yield Head(status=int(error["code"]) if error else 200, body=answer)
                return
            yield Head(status=200)
            counted = CountedStream(answer, body)
            try:
                async with aclosing(counted.pass_on()) as events:
                    async for event in events:
                        yield event
            finally:
                self._account.completed(route, checkpoint, counted.usage, time.perf_counter() - started)

    async def whole(self, route: str, body: dict[str, Any], checkpoint: Checkpoint, deadline_s: float) -> Head:
        """An answer in one piece, as `complete` gives it. Serve carries one message for less than a stream of one."""
        async with aclosing(self.complete(route, body, checkpoint, deadline_s)) as answers:
            head = await anext(answers)
            assert isinstance(head, Head)
            return head

    async def play(self, order: PlayOrder) -> AsyncGenerator[list[Item], None]:
        """Play items of a suite, many at once, and yield them as they finish.

        Each episode takes its own lease, so that others get their turn between episodes.
        """
        suite = suites.load(order.suite, order.order.n)
        tasks = suites.presented(suite.tasks, viter=order.order.viter, **order.order.options)
        environment = envs.make(suite.environment, **tasks[0].options)
        waiting, running = deque(order.indices), set[asyncio.Task[Item]]()
        try:
            while waiting or running:
                while waiting and len(running) < self._config.episodes_in_flight:
                    index = waiting.popleft()
                    running.add(asyncio.create_task(self._item(order, environment, tasks[index], index)))
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                yield [task.result() for task in done]
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def episode(
        self, order: EpisodeOrder, checkpoint: Checkpoint, deadline_s: float
    ) -> AsyncGenerator[EpisodeEvent, None]:
        """Play one task and tell it: the task at once, each turn as it is judged, how it ended.

        Raises:
            ConfigError, DataError: the order asks for a task that cannot be.
            TimeoutError: `deadline_s` ran out, waiting included.
        """
        async with asyncio.timeout(deadline_s):
            environment, task = await asyncio.to_thread(episodes.task_of, order, checkpoint)
            yield episodes.shown(environment, task, checkpoint)
            told: asyncio.Queue[Heard | None] = asyncio.Queue()  # filled by the player, ended by its None
            decoding = self._decoding(order.temperature, order.max_tokens)
            seeds = turn_seeds(order.seed, "episode")
            playing = asyncio.create_task(
                self._played(checkpoint, environment, task, decoding, seeds, on_turn=told.put_nowait)
            )
            playing.add_done_callback(lambda _: told.put_nowait(None))
            turns = 0
            try:
                while (heard := await told.get()) is not None:
                    turns += 1
                    yield episodes.turn_told(environment, task, turns, heard)
                yield episodes.ended(checkpoint, turns, playing.result())
            finally:
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)

    def state(self) -> ReplicaState:
        """What it is doing now."""
        return ReplicaState(
            is_up=self._engine is not None,
            digest=self._leases.held,
            users=self._leases.users,
            swaps=len(self._swap_s),
            swap_s=self._swap_s[-100:],
        )

    async def check_health(self) -> None:
        """Raises where the engine died: whoever runs this replica starts it anew."""
        self._account.show(self._leases)
        self._verifier_account.show(self.verifiers.stats)
        if self._engine is not None:
            try:
                await self._engine.check_health()
            except Exception:
                self._account.died()
                raise

    async def close(self) -> None:
        """End the engine, and ask the verifiers nothing more."""
        await self.verifiers.close()
        await self._end_engine()

    async def _item(self, order: PlayOrder, environment: Environment, task: Task, index: int) -> Item:
        decoding = self._decoding(order.order.decoding.temperature, order.order.decoding.max_tokens)
        seeds = turn_seeds(order.order.decoding.seed, "evaluation", order.suite, index)
        started = time.perf_counter()
        outcome = await self._played(order.checkpoint, environment, task, decoding, seeds, index=index)
        self._account.item(time.perf_counter() - started)
        return item_of(order, environment, task, index, outcome)

    async def _played(
        self, checkpoint: Checkpoint, environment: Environment, task: Task, decoding: Decoding, seeds: Seeds,
        *, index: int = 0, on_turn: Callable[[Heard], object] = lambda _: None,
    ) -> Episode | Quarantined:  # fmt: skip
        """An episode under a lease of its own, by the weights of this checkpoint alone."""
        async with self._lease(checkpoint):
            assert self._engine is not None
            assert self._chat is not None
            version = self._version
            outcome = await play(
                task,
                environment,
                self._chat,
                self._engine.generate,
                self.verifiers.verify,
                decoding=decoding,
                seeds=seeds,
                index=index,
                on_turn=on_turn,
            )
        if isinstance(outcome, Episode) and not _is_of_one_version(outcome, version):
            raise EngineDown(f"{checkpoint.name}: an episode met other weights than its own; it is not counted")
        self._account.played(outcome)
        return outcome

    def _decoding(self, temperature: float, max_tokens: int) -> Decoding:
        max_model_len = self._config.engine.max_model_len
        return Decoding(temperature=temperature, max_tokens=max_tokens, max_model_len=max_model_len)

    def _lease(self, checkpoint: Checkpoint) -> AbstractAsyncContextManager[None]:
        self._checkpoints[checkpoint.digest] = checkpoint
        return self._leases.lease(checkpoint.digest)

    async def _load(self, digest: str) -> None:
        """Make the engine hold a checkpoint: in place where the architecture is the same, anew where not."""
        started = time.perf_counter()
        directory = await self._directory(digest)
        kind = await asyncio.to_thread(kind_of, directory)
        self._version += 1
        in_place = self._engine is not None and kind == self._kind
        if self._engine is not None and in_place:
            await self._engine.swap(directory, self._version)
        else:
            await self._end_engine()
            self._engine, self._completions = await self._start_engine(directory, self._version)
            self._kind = kind
        self._chat = await asyncio.to_thread(ChatFormat.load, directory)
        self._swap_s.append(time.perf_counter() - started)
        self._account.loaded(self._checkpoints[digest], self._swap_s[-1], in_place=in_place)

    async def _end_engine(self) -> None:
        if self._engine is not None:
            await self._engine.close()
            self._engine = None

    async def _directory(self, digest: str) -> Path:
        """The model directory on this machine, verified and found safe when it is first used here."""
        if digest not in self._directories:
            root = await asyncio.to_thread(materialise, self._checkpoints[digest], learner=False)
            await asyncio.to_thread(refuse_unsafe, root / "model")
            self._directories[digest] = root / "model"
        return self._directories[digest]


def _is_of_one_version(episode: Episode, version: int) -> bool:
    return all(bool((s.weight_versions[s.sampled] == version).all()) for s in episode.segments)
