"""Names to checkpoints: what is in the store, listed for people and resolved once for each request.

Only a checkpoint that `inspection` found intact is listed or served: every file that its manifest names has its size,
and on local stores its model has been read once and has its sha256. On object stores sha256 is compared where the
files are fetched, before an engine sees them.
"""

import asyncio
import difflib
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from envs.base import DataError
from services.http.problems import cause_of
from services.inspection import Inspector, Place, Verdicts
from trainers.aliases import Alias, aliases, own_alias, remove_alias, write_alias
from trainers.checkpoints import Checkpoint, CheckpointDamaged, CheckpointMissing, Checkpoints, resolve
from trainers.manifest import RUN_NAME, checked_name
from trainers.storage import Store, open_store

LISTING_AGE_S = 2.0  # a new checkpoint is listed this soon; in between, a list costs no read of the store
RESOLVED_AGE_S = 0.25  # what a name means is looked up so often: for each request it would cost 0.6 ms
READERS = 8  # runs of a remote store that are listed at once
NEAREST = 3

Answer = TypeVar("Answer")


class ModelMetadata(BaseModel):
    """What a checkpoint says of itself."""

    run: str
    step: int
    digest: str
    aliases: list[str]
    """Of its own run by their names; of another run as `RUN@ALIAS`."""
    metrics: dict[str, float | None]
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
    """The checkpoints of one store. Reads happen on threads; a listing is kept for two seconds, a name for a quarter of one."""

    def __init__(self, store: str, *, memory: Path | None = None, reads: bool = True):
        """See `Verdicts` for the file `memory`, and `Inspector` for `reads`."""
        self.store = store
        self._memory = memory
        self._reads = reads
        self._listing: _Listing | None = None
        self._resolved: dict[str, tuple[Checkpoint, float]] = {}  # by name, and when; of the last moment alone
        self._reading = asyncio.Lock()  # whoever lists first reads; those who come meanwhile wait for its answer

    async def resolve(self, name: str) -> Checkpoint:
        """The checkpoint that `name` means now, intact. An alias is followed here and nowhere later.

        Raises:
            CheckpointMissing: with the three nearest names.
            CheckpointDamaged: it is, or what the alias names is.
            DataError: a name of another form.
        """
        now = time.monotonic()
        known, at = self._resolved.get(name, (None, now))
        if known is not None and now - at <= RESOLVED_AGE_S:
            return known
        try:
            checkpoint = await asyncio.to_thread(self._resolve, name)
        except CheckpointMissing:
            raise await self._missing(name) from None
        self._resolved = {n: entry for n, entry in self._resolved.items() if now - entry[1] <= RESOLVED_AGE_S}
        self._resolved[name] = checkpoint, now
        return checkpoint

    async def cards(self) -> tuple[ModelCard, ...]:
        """Every intact checkpoint, newest first within its run."""
        async with self._reading:
            if self._listing is None or time.monotonic() - self._listing.read_at > LISTING_AGE_S:
                cards = await asyncio.to_thread(self._read_cards)
                self._listing = _Listing(cards, time.monotonic())
            return self._listing.cards

    async def card(self, name: str) -> ModelCard:
        """The card of one checkpoint. Raises as `resolve`."""
        checkpoint = await self.resolve(name)
        card = _card(checkpoint, [])
        same = (c for c in await self.cards() if (c.id, c.metadata.digest) == (card.id, card.metadata.digest))
        return next(same, card)

    async def cards_of(self, run: str) -> list[ModelCard]:
        """The cards of one run, newest first. Raises CheckpointMissing where it has none."""
        checked_name(run, RUN_NAME, "run")
        cards = await self.cards()
        if found := [card for card in cards if card.metadata.run == run]:
            return found
        raise self._no_run(run, cards)

    async def newest(self) -> Checkpoint | None:
        """The checkpoint committed last, over all runs; None in an empty store."""
        cards = await self.cards()
        return await self.resolve(max(cards, key=lambda card: card.created).id) if cards else None

    async def set_alias(self, run: str, alias: str, name: str) -> Checkpoint:
        """Let `run@alias` stand for what `name` means now.

        Raises:
            AliasReserved: the system keeps this alias.
            CheckpointMissing, CheckpointDamaged, DataError: as `resolve`; no such run.
        """
        own_alias(alias)
        await self.cards_of(run)
        checkpoint = await self.resolve(name)
        await asyncio.to_thread(write_alias, checkpoint, alias, run=run)
        self._forget()
        return checkpoint

    async def delete_alias(self, run: str, alias: str) -> None:
        """Let `run@alias` stand for nothing.

        Raises:
            AliasReserved: the system keeps this alias.
            CheckpointMissing: no such alias.
        """
        own_alias(alias)
        await asyncio.to_thread(remove_alias, self._inspector.store, run, alias)
        self._forget()

    async def watched(
        self, checkpoint: Checkpoint, answers: AsyncGenerator[Answer, None]
    ) -> AsyncGenerator[Answer, None]:
        """The `answers` of whoever loads a checkpoint. Where they find it damaged, it is listed and served no more."""
        try:
            async with aclosing(answers) as stream:
                async for answer in stream:
                    yield answer
        except Exception as error:
            cause = cause_of(error)
            if isinstance(cause, CheckpointDamaged):
                await asyncio.to_thread(self._inspector.distrust, checkpoint, str(cause))
                self._forget()
            raise

    def _forget(self) -> None:
        self._listing, self._resolved = None, {}

    @cached_property
    def _inspector(self) -> Inspector:
        return Inspector(open_store(self.store), Verdicts(self._memory), reads=self._reads)

    def _resolve(self, name: str) -> Checkpoint:
        return resolve(self._inspector.store, name, shelf=lambda _, run: _Shelf(self._inspector, run))

    async def _missing(self, name: str) -> CheckpointMissing:
        near = nearest(name, [known for card in await self.cards() for known in names_of(card)])
        hint = f"the nearest names are {', '.join(near)}" if near else "this store holds no checkpoint yet"
        return CheckpointMissing(f"no checkpoint {name[:80]!r}; {hint}")

    def _no_run(self, run: str, cards: Sequence[ModelCard]) -> CheckpointMissing:
        near = nearest(run, list(dict.fromkeys(card.metadata.run for card in cards)))
        hint = f"the nearest runs are {', '.join(near)}" if near else "this store holds no checkpoint yet"
        return CheckpointMissing(f"no checkpoint of a run {run!r}; {hint}")

    def _read_cards(self) -> tuple[ModelCard, ...]:
        store = self._inspector.store
        runs = [run for run in store.folders("") if RUN_NAME.fullmatch(run)]
        with ThreadPoolExecutor(READERS) as pool:
            listed = dict(zip(runs, pool.map(lambda run: _listed(store, run), runs), strict=True))
        intact = self._inspector.intact([place for places, _ in listed.values() for place in places])
        names = _names({run: named for run, (_, named) in listed.items()}, intact)
        newest_first = sorted(intact, key=lambda checkpoint: (checkpoint.run, -checkpoint.step))
        return tuple(_card(checkpoint, names.get(checkpoint.name, [])) for checkpoint in newest_first)


@dataclass(frozen=True, slots=True)
class _Shelf:
    """The intact checkpoints of one run, as `resolve` asks for them."""

    inspector: Inspector
    run: str

    def get(self, step: int) -> Checkpoint:
        return self.inspector.get(self.run, step)

    def newest(self, verify: bool = True) -> Checkpoint | None:  # noqa: ARG002  (nothing else is ever given)
        return self.inspector.newest(self.run)


def names_of(card: ModelCard) -> list[str]:
    """Every name a checkpoint answers to."""
    run = card.metadata.run
    return [card.id, *(alias if "@" in alias else f"{run}@{alias}" for alias in card.metadata.aliases)]


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """The known names most like `name`, best first."""
    return difflib.get_close_matches(name[:200], known, n=NEAREST, cutoff=0.0)


def _listed(store: Store, run: str) -> tuple[list[Place], dict[str, Alias]]:
    """What the folder of a run holds. One that cannot be read, or leads out of the store, holds nothing."""
    try:
        return [(run, step) for step in Checkpoints(store, run).candidates()], aliases(store, run)
    except (DataError, OSError):
        return [], {}


def _names(named: dict[str, dict[str, Alias]], checkpoints: Sequence[Checkpoint]) -> dict[str, list[str]]:
    """The aliases of each checkpoint by its name: `best` in its own run, `RUN@init` where another run gave it."""
    found: dict[str, list[str]] = {}
    weights = {checkpoint.name: checkpoint.digest for checkpoint in checkpoints}
    for run, those in named.items():
        for alias, meant in those.items():
            if weights.get(meant.checkpoint) == meant.digest:
                shown = alias if meant.run == run else f"{run}@{alias}"
                found.setdefault(meant.checkpoint, []).append(shown)
    newest = {checkpoint.run: checkpoint for checkpoint in sorted(checkpoints, key=lambda c: c.step)}
    for checkpoint in newest.values():
        found.setdefault(checkpoint.name, []).append("latest")
    return found


def _card(checkpoint: Checkpoint, names: list[str]) -> ModelCard:
    return ModelCard(
        id=checkpoint.name,
        created=int(checkpoint.created),
        metadata=ModelMetadata(
            run=checkpoint.run,
            step=checkpoint.step,
            digest=checkpoint.digest,
            aliases=names,
            metrics={name: None if value != value else value for name, value in checkpoint.info.metrics.items()},
            compute=checkpoint.info.compute,
            parents=list(checkpoint.info.parents),
        ),
    )
