"""Many episodes at once on one engine: orders in, record batches of finished episodes out. No Ray, no vLLM."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import pyarrow as pa

from cluster.ledger import Order, Receipt
from cluster.rollout import Decoding, Generate, Quarantined, Verify, play, turn_seeds
from envs.task import Environment
from trainers.chat import ChatFormat
from trainers.episode import Episode
from trainers.episode_arrow import to_batch, with_pictures

GATHER_S = 0.05  # finished episodes wait this long for company, so that one actor call carries several home
PATIENCE_S = 5.0  # a worker with nothing finished answers after this long, having asked its engine for its health


class Sampler(Protocol):
    """What a worker asks of an engine; `Engine` is one."""

    @property
    def generate(self) -> Generate: ...

    async def check_health(self) -> None: ...


class RolloutWorker:
    """Many episodes in flight on one engine. Orders come in by `give`, finished episodes leave by `collect`.

    `_waiting` holds orders beyond `episodes_in_flight`: a place that becomes free is taken at once, without asking the
    orchestrator. `_news` wakes `collect` and is set by every episode that ends; `_all_done` ends the gathering early.
    """

    def __init__(
        self,
        engine: Sampler,
        environment_at: Callable[[int], Environment],
        chat: ChatFormat,
        verify: Verify,
        *,
        decoding: Decoding,
        seed: int,
        episodes_in_flight: int,
        name: str = "",
    ) -> None:
        """Args: environment_at: what the episodes of a step are played in; asked for each."""
        self.engine, self.name = engine, name
        self._environment_at, self._chat, self._verify = environment_at, chat, verify
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
        environment = self._environment_at(order.step)
        outcome = await play(
            environment.sample(self._seed, "train", order.step, order.index),
            environment,
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


def _harvest(finished: Sequence[tuple[Order, Episode | Quarantined]]) -> tuple[list[Receipt], pa.RecordBatch | None]:
    receipts: list[Receipt] = []
    episodes: list[Episode] = []
    for order, outcome in finished:
        if isinstance(outcome, Quarantined):
            reason = f"{outcome.status}: {outcome.reason}"
            receipts.append(Receipt(ticket=order.ticket, quarantined=reason, outcome=outcome))
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
    return receipts, with_pictures(to_batch(episodes), episodes) if episodes else None
