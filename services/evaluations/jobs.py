"""Evaluation jobs: ordered, played item by item, journaled, scored.

    order ─► journal, line ─► turns: play what the journal lacks ─► score ─► result

Plain asyncio over a `Play` callable and a journal. One evaluation plays at a time, with every replica at work on it; see
`line` for whose turn it is. A manager that starts anew queues what has not ended, and plays only what its journal lacks.
"""

import asyncio
import hashlib
import json
import logging
import time
import uuid
from contextlib import suppress

from cluster.metrics import UNMEASURED, Meters
from envs.base import ViterError
from services.evaluations.account import EvaluationAccount
from services.evaluations.best import settle_aliases
from services.evaluations.journal import EvaluationMissing, EvaluationUnreadable, Journal
from services.evaluations.line import Line
from services.evaluations.newcomers import Newcomers
from services.evaluations.orders import (
    Counts,
    Evaluation,
    EvaluationOrder,
    Item,
    Play,
    Source,
)
from services.evaluations.playing import Playing
from services.evaluations.reading import EvaluationReader
from services.evaluations.results import generalisation_gap, results_of
from services.evaluations.settled import asks_for, settled
from services.http.problems import Busy, IdempotencyConflict, PlayedElsewhere, cause_of
from services.registry import Registry
from trainers.checkpoints import Checkpoint
from trainers.lease import LeaseLost

ADOPT_EVERY_S = 2.0
TURN_ITEMS = 256  # of each replica: two rounds of its places

logger = logging.getLogger("viter.evaluations")


class Evaluations(EvaluationReader):
    """The jobs of one service. `start` before use, `close` after."""

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        play: Play,
        *,
        replicas: int = 1,
        most_open: int = 64,
        newcomers: Newcomers | None = None,
        meters: Meters = UNMEASURED,
    ):
        super().__init__(journal)
        self._account = EvaluationAccount(meters)
        self._registry = registry
        self._play = play
        self._replicas = replicas
        self._most_open = most_open
        self._newcomers = newcomers
        self._line = Line(TURN_ITEMS * replicas)
        self._taking = asyncio.Lock()  # of many orders with one key, the first creates the evaluation
        self._current: tuple[str, asyncio.Task[None]] | None = None  # whose turn it is; `cancel` cancels it
        self._tasks: list[asyncio.Task[None]] = []  # live from `start` to `close`; `check` raises their errors

    async def start(self) -> None:
        """Take over what the journal holds, and go on with what nobody plays and has not ended."""
        await asyncio.to_thread(self._journal.start)
        await self._adopt_orphans()
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._keep_adopting())]
        if self._newcomers is not None:
            self._tasks.append(asyncio.create_task(self._newcomers.watch(lambda order: self.order(order, "service"))))

    async def close(self) -> None:
        """Stop playing; what has not ended goes on at the next start."""
        tasks = [*self._tasks, *([self._current[1]] if self._current else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._journal.close)

    def check(self) -> None:
        """Show how many are open. Raises what ended a background task, if anything did."""
        self._account.show(self._known.values())
        for task in self._tasks:
            if task.done():
                task.result()

    async def order(self, order: EvaluationOrder, by: Source = "client") -> Evaluation:
        """Queue an evaluation. The same `idempotency` gives the same one again.

        Raises:
            CheckpointMissing, DataError, ConfigError: the checkpoint is unknown, or what it shall play (`settled`).
            IdempotencyConflict: its key was used for another order.
            Busy: too many are open.
        """
        key = order.idempotency
        identity = f"eval-{hashlib.sha256(key.encode()).hexdigest()[:24] if key else uuid.uuid4().hex[:24]}"
        if known := await self._existing(identity, order):
            return known
        self._check_room(by)
        checkpoint = await self._registry.resolve(order.checkpoint)
        order = await asyncio.to_thread(settled, order, checkpoint)
        async with self._taking:
            if known := await self._existing(identity, order):
                return known
            self._check_room(by)
            evaluation = Evaluation(
                id=identity,
                created_at=time.time(),
                model=checkpoint.name,
                digest=checkpoint.digest,
                order=order,
                ordered_by=by,
                counts=Counts(total=len(order.suites) * order.n),
            )
            await asyncio.to_thread(self._journal.create, evaluation)
            self._known[identity] = evaluation
            self._line.join(identity, is_automatic=by == "service")
            self._account.queued(evaluation)
            self._ring()
        return evaluation

    async def cancel(self, evaluation_id: str) -> Evaluation:
        """Stop an evaluation, keep its finished items. One that has ended stays as it is.

        Raises:
            EvaluationMissing: no such evaluation.
            PlayedElsewhere: another service plays it, or has it in its line.
        """
        evaluation = await self.get(evaluation_id)
        if evaluation.has_ended:
            return evaluation
        is_own = evaluation_id in self._known
        is_free = is_own or await asyncio.to_thread(self._journal.is_orphan, evaluation)
        if not is_free or not await asyncio.to_thread(self._journal.claim, evaluation_id):
            raise PlayedElsewhere(f"{evaluation_id} is played by another service on this store; cancel it there")
        if not is_own:
            evaluation = await asyncio.to_thread(self._journal.load, evaluation_id)  # as it stood once it was claimed
        if evaluation.has_ended:
            return evaluation
        self._known[evaluation_id] = evaluation
        evaluation.status = "canceled"  # at once, so that it is not played on
        if self._current and self._current[0] == evaluation_id:
            self._current[1].cancel()
            await asyncio.wait({self._current[1]})
        await self._end(evaluation, "canceled")
        return evaluation

    async def _existing(self, evaluation_id: str, order: EvaluationOrder) -> Evaluation | None:
        if order.idempotency is None:
            return None
        try:
            known = await self.get(evaluation_id)
        except EvaluationUnreadable as error:
            raise IdempotencyConflict(f"this idempotency key names an evaluation of before: {error}") from None
        except EvaluationMissing:
            return None
        if not asks_for(order, known.order):
            raise IdempotencyConflict(
                f"this idempotency key already ordered {known.id}, which asks for something else; use another key"
            )
        return known

    def _check_room(self, by: Source) -> None:
        open_ones = sum(e.ordered_by == by and not e.has_ended for e in self._known.values())
        if open_ones >= self._most_open:
            raise Busy(f"{open_ones} evaluations are queued or running, which is the limit; wait for one to end")

    async def _adopt_orphans(self) -> None:
        orphans = []
        for evaluation_id in await asyncio.to_thread(self._journal.ids):
            if evaluation_id in self._known:
                continue
            evaluation = await self._readable(evaluation_id)
            if evaluation and not evaluation.has_ended and await asyncio.to_thread(self._journal.is_orphan, evaluation):
                orphans.append(evaluation)
        for evaluation in sorted(orphans, key=lambda e: e.created_at):
            if self._known.setdefault(evaluation.id, evaluation) is evaluation:  # it was not ordered anew meanwhile
                self._line.join(evaluation.id, is_automatic=evaluation.ordered_by == "service")

    async def _keep_adopting(self) -> None:
        """Take over what a dead service left; also what a predecessor in its last second still held at `start`."""
        while True:
            await asyncio.sleep(ADOPT_EVERY_S)
            await self._adopt_orphans()

    async def _work(self) -> None:
        """Give one turn after another, for ever. Woken by the line."""
        while True:
            evaluation = self._known[await self._line.next()]
            if evaluation.has_ended:
                continue
            self._current = evaluation.id, asyncio.create_task(self._turn(evaluation))
            try:
                await self._current[1]
            except asyncio.CancelledError:
                this = asyncio.current_task()
                if this is not None and this.cancelling():  # `close` stops the worker; `cancel` only what it plays
                    raise
            except LeaseLost as error:
                logger.warning("%s: %s", evaluation.id, error)
                self._forget(evaluation.id)
            except Exception as error:  # one evaluation's failure is its result, and the next one's turn
                logger.exception("%s failed", evaluation.id)
                evaluation.error = _told(error)
                with suppress(LeaseLost):
                    await self._end(evaluation, "failed")
            finally:
                self._current = None

    async def _turn(self, evaluation: Evaluation) -> None:
        if not await asyncio.to_thread(self._journal.claim, evaluation.id):
            return self._forget(evaluation.id)  # another manager was first
        playing = self._playing.get(evaluation.id) or await self._begin(evaluation)
        if playing is None:
            return None
        checkpoint = await self._registry.resolve(evaluation.model)
        if checkpoint.digest != evaluation.digest:
            raise ViterError(
                f"{evaluation.model} holds weights {checkpoint.digest[:12]} now, {evaluation.digest[:12]} were ordered"
            )
        is_automatic = evaluation.ordered_by == "service"
        await playing.turn(checkpoint, *self._line.turn_of(is_automatic=is_automatic))
        if not playing.is_done:
            return self._line.join(evaluation.id, is_automatic=is_automatic)
        await self._score(evaluation, checkpoint, list(playing.items.values()))
        await self._end(evaluation, "completed")
        await settle_aliases(self._registry, self._journal, evaluation)
        return None

    async def _begin(self, evaluation: Evaluation) -> Playing | None:
        """What is there to play; None where another manager ended it just before it was claimed."""
        stored = await asyncio.to_thread(self._journal.load, evaluation.id)
        if stored.has_ended:
            self._known[evaluation.id] = stored
            self._journal.release(evaluation.id)
            return None
        items = await asyncio.to_thread(self._journal.repaired, evaluation.id)
        playing = Playing(
            evaluation, items, self._journal, self._play, replicas=self._replicas, on_news=self._ring,
            on_items=self._account.items,
        )  # fmt: skip
        self._playing[evaluation.id] = playing
        evaluation.status, evaluation.started_at = "in_progress", time.time()
        self._ring()
        return playing

    async def _score(self, evaluation: Evaluation, checkpoint: Checkpoint, items: list[Item]) -> None:
        parameters = checkpoint.info.compute.get("parameters")
        evaluation.results = await asyncio.to_thread(
            results_of, evaluation.order, items, int(parameters) if parameters else None
        )
        evaluation.generalisation_gap = generalisation_gap(evaluation.results)

    async def _end(self, evaluation: Evaluation, status: str) -> None:
        evaluation.status, evaluation.ended_at = status, time.time()  # type: ignore[assignment]
        await asyncio.to_thread(self._journal.finish, evaluation)
        self._account.ended(evaluation)
        self._playing.pop(evaluation.id, None)
        self._ring()

    def _forget(self, evaluation_id: str) -> None:
        self._playing.pop(evaluation_id, None)
        self._known.pop(evaluation_id, None)
        self._journal.release(evaluation_id)
        self._ring()


def _told(error: BaseException) -> str:
    cause = cause_of(error)
    words = " ".join(str(cause).split())[:500]
    return words if isinstance(cause, ViterError) else f"{type(cause).__name__}: {json.dumps(words)[1:-1]}"
