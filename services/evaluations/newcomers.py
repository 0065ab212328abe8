"""Checkpoints that the service measures by itself, as they come: live ID and OOD curves of a running training.

Those committed since the service started, and of every run that grew since then the one that was its newest before: so
a curve has a beginning, and an old store is not measured in bulk. Each is ordered under a key made of its name, digest
and settings, so once, whatever restarts. Times are compared to the second, by the clocks of whoever commits.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from itertools import groupby

from envs.base import ViterError
from services.config import EvaluateNew
from services.evaluations.orders import EvaluationOrder
from services.http.problems import Busy
from services.registry import ModelCard, Registry

LOOK_EVERY_S = 2.0

logger = logging.getLogger("viter.evaluations")


def due(cards: Iterable[ModelCard], since: float) -> list[ModelCard]:
    """Those to be measured, in the order they were committed."""
    found: list[ModelCard] = []
    by_run = sorted(cards, key=lambda card: (card.metadata.run, card.created, card.metadata.step))
    for _, group in groupby(by_run, key=lambda card: card.metadata.run):
        run = list(group)
        fresh = [card for card in run if card.created >= int(since)]
        before = run[: len(run) - len(fresh)]
        found += [*before[-1:], *fresh] if fresh else []
    return sorted(found, key=lambda card: (card.created, card.metadata.step))


def key_of(card: ModelCard, settings: EvaluateNew) -> str:
    """Names the evaluation of a checkpoint under these settings."""
    named = json.dumps([card.id, card.metadata.digest, settings.model_dump(mode="json")], sort_keys=True)
    return f"evaluate-new-{hashlib.sha256(named.encode()).hexdigest()}"


def order_of(card: ModelCard, settings: EvaluateNew) -> EvaluationOrder:
    """The order of that evaluation."""
    return EvaluationOrder(
        checkpoint=card.id,
        suites=settings.suites,
        n=settings.n,
        viter=settings.viter,
        idempotency=key_of(card, settings),
    )


class Newcomers:
    """Looks for checkpoints and orders their evaluations, for as long as `watch` runs."""

    def __init__(self, registry: Registry, settings: EvaluateNew, *, since: float):
        self._registry = registry
        self._settings = settings
        self._since = since
        self._dealt_with: set[str] = set()  # keys that were ordered, or refused and told

    async def watch(self, order: Callable[[EvaluationOrder], Awaitable[object]]) -> None:
        """Look every two seconds, for ever. A store that is away is asked again."""
        while True:
            try:
                await self.look(order)
            except (ViterError, OSError) as error:
                logger.warning("no checkpoint is looked for: %s", error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, order: Callable[[EvaluationOrder], Awaitable[object]]) -> None:
        """Order what is due and was not ordered yet, as far as there is room; the rest waits for the next look."""
        for card in due(await self._registry.cards(), self._since):
            key = key_of(card, self._settings)
            if key in self._dealt_with:
                continue
            try:
                await order(order_of(card, self._settings))
            except Busy:
                return
            except ViterError as error:  # e.g. deleted meanwhile, or trained on something without suites
                logger.warning("%s is not measured: %s", card.id, error)
            self._dealt_with.add(key)
