"""Which episode is out, back, delivered or quarantined; exactly once, and never too stale. Pure bookkeeping, no clock.

    queued ──hand_out──► out ──receive──► kept ──deliver──► gone
       ▲                  │ │
       └── lose, stale ───┘ └─ no verdict ─► quarantined

Every handing out has a ticket of its own. A receipt counts only while its ticket is out, which refuses at once what comes
twice, what comes late from a worker that was replaced, and what was asked for before the learner went back.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from envs.base import ViterError


class TakenTwice(ViterError):
    """A rank asked again for a share it was given, or ranks disagree on how many they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Play episode `index` of `step`."""

    step: int
    index: int
    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a worker says of one order: an episode's numbers and its row in the batch beside it, or why it has no verdict."""

    ticket: int
    row: int = -1
    tokens: int = 0  # of all segments: what the learner will process
    oldest_version: int = 0  # of its sampled tokens
    turns: int = 0
    overflowed: bool = False
    prefill_tokens: int = 0
    cached_tokens: int = 0
    sampled_tokens: int = 0
    generate_s: float = 0.0
    verify_s: float = 0.0
    quarantined: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An episode that is back: where it lies, and how long it is."""

    index: int
    tokens: int
    place: Any  # opaque to the ledger: where the episode can be read


class Fate(StrEnum):
    """What became of a receipt."""

    KEPT = "kept"
    REFUSED = "refused"  # its ticket is not out: late, or twice
    STALE = "stale"  # sampled by too old weights; queued again
    QUARANTINED = "quarantined"


@dataclass(slots=True)
class _Step:
    """One step's episodes from its opening until every rank has its share."""

    kept: dict[int, Entry] = field(default_factory=dict)
    quarantined: int = 0
    shares: list[list[Entry] | None] | None = None


class Ledger:
    """Names episodes by (step, index), steps by the learner version that will learn from them.

    Step s is learnt by version s, so a token of version v has staleness s − v there. Orders of step s go out once
    version s − `max_staleness` is published: with 0 that is strictly after the weights of step s.
    """

    def __init__(self, *, episodes: int, steps: int, max_staleness: int) -> None:
        self.episodes, self.steps, self.max_staleness = episodes, steps, max_staleness
        self.version: int | None = None
        """Newest published version; None until the first, and after `rewind` until the next."""
        self.life = 0
        """Counts rewinds: who waits across one waits in vain."""
        self._next_step: int | None = None
        self._next_ticket = 0
        self._queue: list[tuple[int, int]] = []
        self._out: dict[int, tuple[int, int, str]] = {}
        self._held: dict[str, set[int]] = {}  # tickets by worker
        self._open: dict[int, _Step] = {}

    @property
    def most_open(self) -> int:
        """Episodes that may be played at the same time: those of every step that may be open."""
        return self.episodes * (self.max_staleness + 1)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def out(self) -> int:
        return len(self._out)

    def out_at(self, worker: str) -> int:
        return len(self._held.get(worker, ()))

    def publish(self, version: int) -> None:
        """Every engine holds `version` now. Opens the steps that may be played with it."""
        if self.version is not None and version <= self.version:
            self.rewind(version)
        self.version = version
        if self._next_step is None:
            self._next_step = version
        while self._next_step <= version + self.max_staleness and self._next_step < self.steps:
            self._open[self._next_step] = _Step()
            for index in range(self.episodes):
                heapq.heappush(self._queue, (self._next_step, index))
            self._next_step += 1

    def rewind(self, step: int) -> None:
        """The learner starts again at `step`: what was made for it or later is forgotten and will be made again."""
        self.life += 1
        self.version, self._next_step = None, step
        self._queue.clear()
        self._out.clear()
        self._held.clear()
        self._open.clear()

    def hand_out(self, worker: str, limit: int) -> list[Order]:
        """At most `limit` orders for `worker`, oldest step first."""
        orders: list[Order] = []
        while self._queue and len(orders) < limit:
            step, index = heapq.heappop(self._queue)
            orders.append(Order(step=step, index=index, ticket=self._next_ticket))
            self._out[self._next_ticket] = (step, index, worker)
            self._held.setdefault(worker, set()).add(self._next_ticket)
            self._next_ticket += 1
        return orders

    def order(self, ticket: int) -> Order | None:
        """The order of a ticket that is out."""
        if ticket not in self._out:
            return None
        step, index, _ = self._out[ticket]
        return Order(step=step, index=index, ticket=ticket)

    def receive(self, receipt: Receipt, place: Any = None) -> Fate:
        """Enter what a worker sent home."""
        if receipt.ticket not in self._out:
            return Fate.REFUSED
        step, index, worker = self._out.pop(receipt.ticket)
        self._held[worker].discard(receipt.ticket)
        if receipt.quarantined:
            self._open[step].quarantined += 1
            return Fate.QUARANTINED
        if step - receipt.oldest_version > self.max_staleness:
            heapq.heappush(self._queue, (step, index))
            return Fate.STALE
        self._open[step].kept[index] = Entry(index=index, tokens=receipt.tokens, place=place)
        return Fate.KEPT

    def is_settled(self, step: int) -> bool:
        """Waiting for `step` is over: it is complete, was delivered, or is past the end of the run."""
        delivered = self._next_step is not None and step < self._next_step and step not in self._open
        return self.is_complete(step) or delivered or step >= self.steps

    def lose(self, worker: str) -> int:
        """`worker` is gone: what it held is queued again. Returns how many episodes that is."""
        lost = self._held.pop(worker, set())
        for ticket in lost:
            step, index, _ = self._out.pop(ticket)
            heapq.heappush(self._queue, (step, index))
        return len(lost)

    def is_complete(self, step: int) -> bool:
        """Every episode of `step` is kept or quarantined."""
        opened = self._open.get(step)
        return opened is not None and (
            opened.shares is not None or len(opened.kept) + opened.quarantined == self.episodes
        )

    def deliver(self, step: int, *, rank: int, world_size: int) -> list[Entry]:
        """This rank's share of a complete step, once. Shares differ by at most one episode and are balanced by tokens.

        Raises:
            TakenTwice: the share is gone, or the ranks disagree on their number.
        """
        opened = self._open.get(step)
        if opened is None:
            raise TakenTwice(
                f"step {step}: it is not open (delivered already, or never asked for); publish weights or rewind first"
            )
        assert self.is_complete(step)
        if opened.shares is None:
            opened.shares = list(balanced(list(opened.kept.values()), world_size))
            opened.kept = {}
        if len(opened.shares) != world_size:
            raise TakenTwice(
                f"step {step}: rank {rank} takes a share of {world_size}, another rank took one of {len(opened.shares)}"
            )
        share = opened.shares[rank]
        if share is None:
            raise TakenTwice(f"step {step}: rank {rank} has taken its share already; rewind to take it again")
        opened.shares[rank] = None
        if all(other is None for other in opened.shares):
            del self._open[step]
        return share


def balanced(entries: Sequence[Entry], parts: int) -> list[list[Entry]]:
    """`entries` in `parts` shares of nearly equal tokens and of sizes that differ by at most one, each in order of index.

    Longest first, each to the share with the fewest tokens that still has a place. Depends on lengths and indices alone.
    """
    shares: list[list[Entry]] = [[] for _ in range(parts)]
    tokens = [0] * parts
    small, larger = divmod(len(entries), parts)
    places = [small + (part < larger) for part in range(parts)]
    for entry in sorted(entries, key=lambda e: (-e.tokens, e.index)):
        part = min((p for p in range(parts) if len(shares[p]) < places[p]), key=lambda p: (tokens[p], p))
        shares[part].append(entry)
        tokens[part] += entry.tokens
    return [sorted(share, key=lambda e: e.index) for share in shares]
