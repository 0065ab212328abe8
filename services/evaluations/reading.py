"""What can be known of evaluations: those that this process plays from memory, all others from the journal.

A reader who follows one asks for its news again and again, and waits each time until there is some.
"""

import asyncio
import time
from contextlib import suppress

from services.evaluations.compare import Comparison, compare
from services.evaluations.events import News, news_of
from services.evaluations.journal import EvaluationMissing, Journal
from services.evaluations.listing import EvaluationQuery, ItemCache, page_of, page_of_items
from services.evaluations.orders import Evaluation, EvaluationList, Item, ItemList
from services.evaluations.playing import Playing, counts_of

NEWS_ITEMS = 500  # told at once
ELSEWHERE_S = 1.0  # how often the journal is asked about an evaluation that another manager plays


class EvaluationReader:
    """The reading half of `jobs.Evaluations`."""

    def __init__(self, journal: Journal):
        self._journal = journal
        self._known: dict[str, Evaluation] = {}  # those that stand in this process's line, and any that have ended
        self._playing: dict[str, Playing] = {}  # those whose first turn has begun
        self._ended_items = ItemCache()
        self._rung = asyncio.Event()  # set, and replaced, when anything changes; `news` waits for it

    async def get(self, evaluation_id: str) -> Evaluation:
        """An evaluation of this service, or as another one journals it. Raises EvaluationMissing."""
        if evaluation_id in self._known:
            return self._known[evaluation_id]
        evaluation = await asyncio.to_thread(self._journal.load, evaluation_id)
        if evaluation.has_ended:
            return self._known.setdefault(evaluation_id, evaluation)  # it does not change any more
        evaluation.counts = counts_of(evaluation, await asyncio.to_thread(self._journal.items, evaluation_id))
        return evaluation

    async def page(self, query: EvaluationQuery) -> EvaluationList:
        """Those that `query` asks for. Raises EvaluationMissing where its `after` is unknown."""
        ids = {*self._known, *await asyncio.to_thread(self._journal.ids)}
        found = await asyncio.gather(*map(self._readable, ids))
        after = await self.get(query.after) if query.after else None
        return page_of([evaluation for evaluation in found if evaluation], query, after)

    async def items(self, evaluation_id: str, limit: int, after: str | None) -> ItemList:
        """Finished items in the order they finished. Raises EvaluationMissing."""
        return page_of_items(await self._items_of(await self.get(evaluation_id)), limit, after)

    async def item(self, evaluation_id: str, item: str) -> Item:
        """One finished item. Raises EvaluationMissing."""
        found = [each for each in await self._items_of(await self.get(evaluation_id)) if each.id == item]
        if not found:
            raise EvaluationMissing(f"{evaluation_id} has no finished item {item[:200]!r}")
        return found[0]

    async def news(self, evaluation_id: str, seen: int, status: str | None, wait_s: float) -> News:
        """What a reader who knows `seen` items and `status` does not know yet. Waits until there is something.

        After `wait_s` there may be nothing. Raises EvaluationMissing.
        """
        end = time.monotonic() + wait_s
        while True:
            rung = self._rung
            evaluation = await self.get(evaluation_id)
            items = await self._items_of(evaluation)
            left = end - time.monotonic()
            if len(items) > seen or evaluation.status != status or left <= 0:
                return news_of(evaluation, items, seen=seen, most=NEWS_ITEMS)
            with suppress(TimeoutError):
                async with asyncio.timeout(left if evaluation_id in self._known else min(left, ELSEWHERE_S)):
                    await rung.wait()

    async def compare(self, first: str, second: str) -> Comparison:
        """The second evaluation against the first. Raises EvaluationMissing."""
        one, two = await self.get(first), await self.get(second)
        return await asyncio.to_thread(compare, one, two, await self._items_of(one), await self._items_of(two))

    async def _readable(self, evaluation_id: str) -> Evaluation | None:
        try:
            return await self.get(evaluation_id)
        except EvaluationMissing:
            return None

    async def _items_of(self, evaluation: Evaluation) -> list[Item]:
        playing = self._playing.get(evaluation.id)
        if playing is not None:
            return list(playing.items.values())
        if evaluation.id in self._known and evaluation.has_ended:
            return await self._ended_items.get(evaluation.id, self._journal.items)
        return await asyncio.to_thread(self._journal.items, evaluation.id)

    def _ring(self) -> None:
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()
