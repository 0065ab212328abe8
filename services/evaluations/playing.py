"""One evaluation at play: what its journal lacks is played, what finishes is journaled in batches, then shown.

    missing items ─► a share for each replica ─► finished ─► journal, every 0.2 s ─► `items`, counts, `on_news`

Each item's randomness is a counter, so an item that was lost with its engine is, played again, the item it would have been.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing

from envs.base import ViterError
from services.evaluations.journal import Journal
from services.evaluations.orders import Counts, Evaluation, Item, Play, PlayOrder, item_id
from services.http.problems import cause_of, status_of
from trainers.checkpoints import Checkpoint

TRIES_WITHOUT_PROGRESS = 3  # a replica is back within seconds; three dead ones in a row are no accident
RETRY_PAUSE_S = 2.0
JOURNAL_EVERY_S = 0.2  # an item is lost with the manager for this long, and no longer

logger = logging.getLogger("viter.evaluations")


class Playing:
    """An evaluation that this process has claimed. `items` are those that the journal holds, in its order."""

    def __init__(
        self,
        evaluation: Evaluation,
        items: Sequence[Item],
        journal: Journal,
        play: Play,
        *,
        replicas: int,
        on_news: Callable[[], None],
        on_items: Callable[[Sequence[Item]], None],
    ):
        self.evaluation = evaluation
        self.items = {item.id: item for item in items}
        self._journal = journal
        self._play = play
        self._replicas = replicas
        self._on_news, self._on_items = on_news, on_items
        self._finished: list[Item] = []  # not journaled yet
        self._tries = 0
        evaluation.counts = counts_of(evaluation, items)

    @property
    def is_done(self) -> bool:
        return len(self.items) == self.evaluation.counts.total

    async def turn(self, checkpoint: Checkpoint, quota: int | None, is_over: Callable[[int], bool]) -> None:
        """Play until nothing is missing, or the turn is over: after `quota` items, or when `is_over` of those played.

        Raises:
            LeaseLost: another process plays it.
            Exception: what engines failed with, once that is final: a user's mistake, or the third time for nothing.
        """
        order, begun = self.evaluation.order, len(self.items)

        def played() -> int:
            return len(self.items) + len(self._finished) - begun

        for name in order.suites:
            while missing := [i for i in range(order.n) if item_id(name, i) not in self.items]:
                left = None if quota is None else quota - played()
                if is_over(played()) or left == 0:
                    return
                orders = self._shares(checkpoint, name, missing[:left])
                await self._try(orders, lambda: is_over(played()))

    def _shares(self, checkpoint: Checkpoint, suite: str, indices: Sequence[int]) -> list[PlayOrder]:
        shares = (tuple(indices[share :: self._replicas]) for share in range(self._replicas))
        return [
            PlayOrder(checkpoint=checkpoint, suite=suite, indices=share, order=self.evaluation.order)
            for share in shares
            if share
        ]

    async def _try(self, orders: Sequence[PlayOrder], is_over: Callable[[], bool]) -> None:
        """Play these, through dying replicas as long as anything gets finished."""
        before = len(self.items)
        failures = await self._play_and_journal(orders, is_over)
        if not failures:
            return
        self._tries = 0 if len(self.items) > before else self._tries + 1
        if self._tries >= TRIES_WITHOUT_PROGRESS or any(map(_is_final, failures)):
            raise failures[0]
        logger.warning("%s: %s; playing the rest again", self.evaluation.id, cause_of(failures[0]))
        await asyncio.sleep(RETRY_PAUSE_S)

    async def _play_and_journal(self, orders: Sequence[PlayOrder], is_over: Callable[[], bool]) -> list[Exception]:
        """What replicas failed with. Whatever ends it, what was finished is journaled, each write whole."""
        has_ended = asyncio.Event()
        journaling = asyncio.create_task(self._keep_journaling(has_ended))
        playing = [asyncio.create_task(self._collect(order, is_over)) for order in orders]
        journaling.add_done_callback(lambda _: [task.cancel() for task in playing])  # a full disk, a lost lease
        try:
            results = await asyncio.gather(*playing, return_exceptions=True)
        finally:
            for task in playing:
                task.cancel()
            await asyncio.gather(*playing, return_exceptions=True)
            has_ended.set()
            await journaling
        return [result for result in results if isinstance(result, Exception)]

    async def _collect(self, order: PlayOrder, is_over: Callable[[], bool]) -> None:
        batches: AsyncGenerator[list[Item], None]
        async with aclosing(self._play(order)) as batches:
            async for batch in batches:
                self._finished += [item for item in batch if item.id not in self.items]
                if is_over():
                    return

    async def _keep_journaling(self, has_ended: asyncio.Event) -> None:
        """Write what has finished, every 0.2 s, and what is left once `has_ended`. Never cancelled within a write."""
        while not has_ended.is_set():
            try:
                async with asyncio.timeout(JOURNAL_EVERY_S):
                    await has_ended.wait()
            except TimeoutError:
                pass
            batch, self._finished = self._finished, []
            if batch:
                await asyncio.to_thread(self._journal.append, self.evaluation.id, batch)
                self.items.update({item.id: item for item in batch})
                self.evaluation.counts = counts_of(self.evaluation, self.items.values())
                self._on_items(batch)
                self._on_news()


def counts_of(evaluation: Evaluation, items: Iterable[Item]) -> Counts:
    """How far an evaluation is that has finished these."""
    found = list(items)
    return Counts(
        total=evaluation.counts.total,
        done=len(found),
        succeeded=sum(item.success for item in found),
        failed=sum(item.error is not None for item in found),
    )


def _is_final(error: Exception) -> bool:
    """Whether it would only happen again: a user's mistake, as against an engine or a process that died."""
    cause = cause_of(error)
    return isinstance(cause, ViterError) and status_of(cause) < 500
