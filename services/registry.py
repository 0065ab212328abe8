"""Names to checkpoints: what is in the store, listed for people and resolved once for each request."""

import asyncio
import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from trainers.checkpoints import Checkpoint, CheckpointMissing, Checkpoints, aliases, list_runs, resolve

LISTING_AGE_S = 2.0  # a new checkpoint is listed this soon; in between, a list costs no read of the store
NEAREST = 3


class ModelMetadata(BaseModel):
    """What a checkpoint says of itself."""

    run: str
    step: int
    digest: str
    aliases: list[str]
    metrics: dict[str, float]
    compute: dict[str, int | float]
    parents: list[str]


class ModelCard(BaseModel):
    """A checkpoint in OpenAI's shape."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "viter"
    metadata: ModelMetadata


class ModelList(BaseModel):
    """Every checkpoint, newest first within its run."""

    object: str = "list"
    data: list[ModelCard]


@dataclass(frozen=True, slots=True)
class _Listing:
    cards: tuple[ModelCard, ...]
    read_at: float


class Registry:
    """The checkpoints of one store. Reads happen on threads; the listing is kept for two seconds."""

    def __init__(self, store: str):
        self.store = store
        self._listing: _Listing | None = None
        self._reading = asyncio.Lock()  # whoever lists first reads; those who come meanwhile wait for its answer

    async def resolve(self, name: str) -> Checkpoint:
        """The checkpoint that `name` means now. An alias is followed here and nowhere later.

        Raises:
            CheckpointMissing: with the three nearest names.
            CheckpointDamaged: its manifest is unreadable.
            DataError: a name of another form.
        """
        try:
            return await asyncio.to_thread(resolve, self.store, name)
        except CheckpointMissing:
            near = nearest(name, [known for card in await self.cards() for known in names_of(card)])
            hint = f"the nearest names are {', '.join(near)}" if near else "this store holds no checkpoint yet"
            raise CheckpointMissing(f"no checkpoint {name[:80]!r}; {hint}") from None

    async def cards(self) -> tuple[ModelCard, ...]:
        """Every checkpoint with a valid manifest, newest first within its run."""
        async with self._reading:
            if self._listing is None or time.monotonic() - self._listing.read_at > LISTING_AGE_S:
                cards = await asyncio.to_thread(_read_cards, self.store)
                self._listing = _Listing(cards, time.monotonic())
            return self._listing.cards

    async def card(self, name: str) -> ModelCard:
        """The card of one checkpoint. Raises as `resolve`."""
        checkpoint = await self.resolve(name)
        names = await asyncio.to_thread(aliases, self.store, checkpoint.run)
        return _card(checkpoint, [alias for alias, step in names.items() if step == checkpoint.step])

    async def newest(self) -> Checkpoint | None:
        """The checkpoint committed last, over all runs; None in an empty store."""
        cards = await self.cards()
        return await self.resolve(max(cards, key=lambda card: card.created).id) if cards else None


def names_of(card: ModelCard) -> list[str]:
    """Every name a checkpoint answers to."""
    return [card.id, *(f"{card.metadata.run}@{alias}" for alias in card.metadata.aliases)]


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """The known names most like `name`, best first."""
    return difflib.get_close_matches(name[:200], known, n=NEAREST, cutoff=0.0)


def _read_cards(store: str) -> tuple[ModelCard, ...]:
    cards = []
    for run in list_runs(store):
        by_step: dict[int, list[str]] = {}
        for alias, step in aliases(store, run).items():
            by_step.setdefault(step, []).append(alias)
        checkpoints = list(Checkpoints(store, run))
        if checkpoints:
            by_step.setdefault(checkpoints[-1].step, []).append("latest")
        cards += [_card(checkpoint, by_step.get(checkpoint.step, [])) for checkpoint in reversed(checkpoints)]
    return tuple(cards)


def _card(checkpoint: Checkpoint, names: list[str]) -> ModelCard:
    return ModelCard(
        id=checkpoint.name,
        created=int(checkpoint.created),
        metadata=ModelMetadata(
            run=checkpoint.run,
            step=checkpoint.step,
            digest=checkpoint.digest,
            aliases=names,
            metrics=checkpoint.info.metrics,
            compute=checkpoint.info.compute,
            parents=list(checkpoint.info.parents),
        ),
    )
