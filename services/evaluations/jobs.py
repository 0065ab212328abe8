"""Evaluation jobs: ordered, played item by item, journaled, scored.

    order ─► queue ─► play what the journal lacks ─► journal each finished item ─► score ─► result

Plain asyncio over a `Play` callable and a journal. One evaluation runs at a time, with every replica at work on it: two
at once would only take turns with the same engines. A manager that starts anew queues what has not ended, and of that
plays only the items its journal lacks; since each item's randomness is a counter, it is the item that would have been.
"""

import asyncio
import hashlib
import json
import logging
import time
import uuid
from collections.abc import Sequence
from contextlib import aclosing, suppress

from envs import suites
from envs.base import ViterError
from services.evaluations.best import settle_aliases
from services.evaluations.journal import Journal
from services.evaluations.orders import (
    Counts,
    Evaluation,
    EvaluationList,
    EvaluationOrder,
    Item,
    ItemList,
    Play,
    PlayOrder,
    item_id,
)
from services.evaluations.results import generalisation_gap, suite_result
from services.evaluations.settled import asks_for, settled
from services.http.problems import Busy, IdempotencyConflict, PlayedElsewhere, cause_of, status_of
from services.registry import Registry
from trainers.checkpoints import Checkpoint

TRIES_WITHOUT_PROGRESS = 3  # a replica is back within seconds; three dead ones in a row are no accident
RETRY_PAUSE_S = 2.0
ADOPT_EVERY_S = 2.0
JOURNAL_EVERY_S = 0.2  # items are synced to disk in batches this long

logger = logging.getLogger("viter.evaluations")


class Evaluations:
    """The jobs of one service. `start` before use, `close` after."""

    def __init__(self, journal: Journal, registry: Registry, play: Play, *, replicas: int = 1, most_open: int = 64):
        self._journal = journal
        self._registry = registry
        self._play = play
        self._replicas = replicas
        self._most_open = most_open
        self._known: dict[str, Evaluation] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue()  # ids, first come first; `_work` takes them
        self._current: asyncio.Task[None] | None = None  # the evaluation being played; `cancel` cancels it
        self._tasks: list[asyncio.Task[None]] = []  # live from `start` to `close`; `check` raises their errors

    async def start(self) -> None:
        """Take over what the journal holds, and go on with what nobody plays and has not ended."""
        self._adopt_orphans()
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._keep_adopting())]

    async def close(self) -> None:
        """Stop playing; what has not ended goes on at the next start."""
        for task in (*self._tasks, *([self._current] if self._current else [])):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._journal.close()

    def check(self) -> None:
        """Raises what ended a background task, if anything did."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def order(self, order: EvaluationOrder, *, key: str | None = None) -> Evaluation:
        """Queue an evaluation. The same `key` gives the same one again.

        Raises:
            CheckpointMissing, DataError, ConfigError: the checkpoint is unknown, or what it shall play (`settled`).
            IdempotencyConflict: `key` was used for another order.
            Busy: too many are open.
        """
        identity = f"eval-{hashlib.sha256(key.encode()).hexdigest()[:24] if key else uuid.uuid4().hex[:24]}"
        if self._exists(identity):
            return self._same(identity, order)
        open_ones = sum(not evaluation.has_ended for evaluation in self._known.values())
        if open_ones >= self._most_open:
            raise Busy(f"{open_ones} evaluations are queued or running, which is the limit; wait for one to end")
        checkpoint = await self._registry.resolve(order.checkpoint)
        order = await asyncio.to_thread(settled, order, checkpoint)
        if self._exists(identity):  # the same key came twice at once
            return self._same(identity, order)
        evaluation = Evaluation(
            id=identity,
            created_at=time.time(),
            model=checkpoint.name,
            digest=checkpoint.digest,
            order=order,
            counts=Counts(total=len(order.suites) * order.n),
        )
        self._journal.create(evaluation)
        self._known[identity] = evaluation
        self._queue.put_nowait(identity)
        return evaluation

    def get(self, evaluation_id: str) -> Evaluation:
        """An evaluation of this service, or as another one journals it. Raises EvaluationMissing."""
        if evaluation_id in self._known:
            return self._known[evaluation_id]
        evaluation = self._journal.load(evaluation_id)
        if evaluation.has_ended:
            self._known[evaluation_id] = evaluation  # it does not change any more
        else:
            self._count(evaluation, self._journal.items(evaluation_id))
        return evaluation

    def page(self, *, limit: int, after: str | None) -> EvaluationList:
        """Newest first. Raises EvaluationMissing where `after` is unknown."""
        newest = sorted(map(self.get, self._journal.ids()), key=lambda e: (-e.created_at, e.id))
        page, has_more = _page(newest, [e.id for e in newest], limit, self.get(after).id if after else None)
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        return EvaluationList(data=page, first_id=first, last_id=last, has_more=has_more)

    async def items(self, evaluation_id: str, *, limit: int, after: str | None) -> ItemList:
        """Finished items in the order they finished. Raises EvaluationMissing."""
        self.get(evaluation_id)
        items = await asyncio.to_thread(self._journal.items, evaluation_id)
        page, has_more = _page(items, [item.id for item in items], limit, after)
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        return ItemList(data=page, first_id=first, last_id=last, has_more=has_more)

    async def cancel(self, evaluation_id: str) -> Evaluation:
        """Stop an evaluation, keep its finished items. One that has ended stays as it is.

        Raises:
            EvaluationMissing: no such evaluation.
            PlayedElsewhere: another service plays it.
        """
        evaluation = self.get(evaluation_id)
        if not evaluation.has_ended:
            if not self._journal.claim(evaluation_id):
                raise PlayedElsewhere(f"{evaluation_id} is played by another service on this store; cancel it there")
            self._known[evaluation_id] = evaluation
            self._end(evaluation, "canceled")
            if evaluation.started_at is not None and self._current is not None:
                self._current.cancel()
        return evaluation

    def _same(self, evaluation_id: str, order: EvaluationOrder) -> Evaluation:
        known = self.get(evaluation_id)
        if not asks_for(order, known.order):
            raise IdempotencyConflict(f"this Idempotency-Key already ordered {known.id}, which asks for something else")
        return known

    def _exists(self, evaluation_id: str) -> bool:
        return evaluation_id in self._known or evaluation_id in self._journal.ids()

    def _adopt_orphans(self) -> None:
        orphans = []
        for evaluation_id in self._journal.ids():
            if evaluation_id in self._known:
                continue
            evaluation = self._journal.load(evaluation_id)
            if not evaluation.has_ended and self._journal.claim(evaluation_id):
                orphans.append(self._journal.load(evaluation_id))  # as it stood once nobody else could write
        for evaluation in sorted(orphans, key=lambda e: e.created_at):
            self._known[evaluation.id] = evaluation
            if evaluation.has_ended:
                self._journal.release(evaluation.id)
                continue
            self._count(evaluation, self._journal.repaired(evaluation.id))
            self._queue.put_nowait(evaluation.id)

    async def _keep_adopting(self) -> None:
        """Take over what a dead service left; also what a predecessor in its last second still held at `start`."""
        while True:
            await asyncio.sleep(ADOPT_EVERY_S)
            self._adopt_orphans()

    async def _work(self) -> None:
        """Play queued evaluations one after another, for ever. Woken by `order` through the queue."""
        while True:
            evaluation = self._known[await self._queue.get()]
            if evaluation.has_ended:
                continue
            self._current = asyncio.create_task(self._run(evaluation))
            try:
                await self._current
            except asyncio.CancelledError:
                this = asyncio.current_task()
                if this is not None and this.cancelling():  # `close` stops the worker; `cancel` only what it plays
                    raise
            except Exception as error:  # one evaluation's failure is its result, and the next one's turn
                logger.exception("%s failed", evaluation.id)
                evaluation.error = _told(error)
                self._end(evaluation, "failed")
            finally:
                self._current = None

    async def _run(self, evaluation: Evaluation) -> None:
        evaluation.status, evaluation.started_at = "in_progress", time.time()
        order = evaluation.order
        checkpoint = await self._registry.resolve(evaluation.model)
        if checkpoint.digest != evaluation.digest:
            raise ViterError(
                f"{evaluation.model} holds weights {checkpoint.digest[:12]} now, {evaluation.digest[:12]} were ordered"
            )
        items = {item.id: item for item in self._journal.repaired(evaluation.id)}
        for name in order.suites:
            await self._play_suite(evaluation, checkpoint, name, items)
        parameters = checkpoint.info.compute.get("parameters")
        evaluation.results = [
            suite_result(
                suites.load(name, order.n),
                [item for item in items.values() if item.suite == name],
                viter=order.viter,
                parameters=int(parameters) if parameters else None,
            )
            for name in order.suites
        ]
        evaluation.generalisation_gap = generalisation_gap(evaluation.results)
        self._end(evaluation, "completed")
        await settle_aliases(self._registry, self._journal, evaluation)

    async def _play_suite(
        self, evaluation: Evaluation, checkpoint: Checkpoint, name: str, items: dict[str, Item]
    ) -> None:
        """Play until no item is missing, through dying replicas as long as anything gets finished."""
        tries = 0
        while missing := [i for i in range(evaluation.order.n) if item_id(name, i) not in items]:
            before = len(items)
            shares = [tuple(missing[share :: self._replicas]) for share in range(self._replicas)]
            orders = [
                PlayOrder(checkpoint=checkpoint, suite=name, indices=share, order=evaluation.order)
                for share in shares
                if share
            ]
            results = await asyncio.gather(
                *(self._collect(evaluation, play, items) for play in orders), return_exceptions=True
            )
            failures = [result for result in results if isinstance(result, Exception)]
            if not failures:
                continue
            tries = 0 if len(items) > before else tries + 1
            if tries >= TRIES_WITHOUT_PROGRESS or any(_is_final(failure) for failure in failures):
                raise failures[0]
            logger.warning("%s: %s; playing the rest again", evaluation.id, _told(failures[0]))
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _collect(self, evaluation: Evaluation, order: PlayOrder, items: dict[str, Item]) -> None:
        unwritten: list[Item] = []
        written_at = time.monotonic()
        try:
            async with aclosing(self._play(order)) as batches:
                async for batch in batches:
                    unwritten += [item for item in batch if item.id not in items]
                    if time.monotonic() - written_at > JOURNAL_EVERY_S:
                        self._keep(evaluation, unwritten, items)
                        unwritten, written_at = [], time.monotonic()
        finally:
            self._keep(evaluation, unwritten, items)

    def _keep(self, evaluation: Evaluation, finished: Sequence[Item], items: dict[str, Item]) -> None:
        if finished:
            self._journal.append(evaluation.id, finished)
            items.update({item.id: item for item in finished})
            self._count(evaluation, list(items.values()))

    def _count(self, evaluation: Evaluation, items: Sequence[Item]) -> None:
        evaluation.counts = Counts(
            total=evaluation.counts.total,
            done=len(items),
            succeeded=sum(item.success for item in items),
            failed=sum(item.error is not None for item in items),
        )

    def _end(self, evaluation: Evaluation, status: str) -> None:
        evaluation.status, evaluation.ended_at = status, time.time()  # type: ignore[assignment]
        self._journal.finish(evaluation)


def _page(rows: list, ids: list[str], limit: int, after: str | None) -> tuple[list, bool]:
    start = ids.index(after) + 1 if after in ids else (len(ids) if after else 0)
    return rows[start : start + limit], len(rows) > start + limit


def _is_final(error: BaseException) -> bool:
    """Whether it would only happen again: a user's mistake, as against an engine or a process that died."""
    cause = cause_of(error)
    return isinstance(cause, ViterError) and status_of(cause) < 500


def _told(error: BaseException) -> str:
    cause = cause_of(error)
    words = " ".join(str(cause).split())[:500]
    return words if isinstance(cause, ViterError) else f"{type(cause).__name__}: {json.dumps(words)[1:-1]}"
