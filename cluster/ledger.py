"""Which episode is out, back, delivered or quarantined; exactly once, and never too stale. Pure bookkeeping, no clock.

    queued ──hand_out──► out ──receive──► kept ──deliver──► gone
       ▲                  │ │
       └── lose, stale ───┘ └─ no verdict ─► quarantined

Every handing out has a ticket of its own. A receipt counts only while its ticket is out, which refuses at once what comes
twice, what comes late from a worker that was replaced, and what was asked for before the learner went back. An episode may
have two tickets out, where one worker is slow; the first receipt counts, and the other ticket is spent.

An episode whose worker dies is played again, in smaller and smaller company, so that one which kills its workers is told
from those that were beside it; at `MOST_LOSSES` it is quarantined.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cluster.rollout import Quarantined
from cluster.shares import Entry, balanced
from envs.base import ViterError

MOST_LOSSES = 5
"""Workers that may die while they hold an episode before it counts as the cause."""


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
    outcome: Quarantined | None = None  # with it: how far the episode came


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What a dead worker held."""

    requeued: int
    quarantined: tuple[tuple[int, int], ...]
    """(step, index) of episodes that had `MOST_LOSSES` workers die."""


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
        self._held: dict[str, set[int]] = {}  # tickets by worker, spent ones too: it still plays them
        self._tickets: dict[tuple[int, int], set[int]] = {}  # out, by episode
        self._spent: dict[int, str] = {}  # worker by ticket whose episode came home on another
        self._losses: dict[tuple[int, int], list[Any]] = {}  # deaths of workers, by the episode they held
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
        self._tickets.clear()
        self._spent.clear()
        self._losses.clear()
        self._open.clear()

    def hand_out(self, worker: str, limit: int, *, places: int = 0) -> list[Order]:
        """At most `limit` orders for `worker`, oldest step first.

        Args:
            places: orders that it holds at most. An episode that lost its worker n times is one of at most
                `places` / 4ⁿ such at a worker.
        """
        orders: list[Order] = []
        passed: list[tuple[int, int]] = []
        suspects = self._suspects_at(worker)
        while self._queue and len(orders) < limit:
            episode = heapq.heappop(self._queue)
            if losses := self._losses.get(episode):
                if suspects >= max(1, places >> 2 * len(losses)):
                    passed.append(episode)
                    continue
                suspects += 1
            orders.append(self._ticket(episode, worker))
        for episode in passed:
            heapq.heappush(self._queue, episode)
        return orders

    def hand_out_again(self, worker: str, limit: int, tickets: Iterable[int]) -> list[Order]:
        """Second tickets, at most `limit`, for episodes that are out on one of `tickets` alone and at other workers."""
        orders: list[Order] = []
        for ticket in tickets:
            if len(orders) == limit:
                break
            if (out := self._out.get(ticket)) is None or out[2] == worker or len(self._tickets[out[:2]]) > 1:
                continue
            orders.append(self._ticket(out[:2], worker))
        return orders

    def _ticket(self, episode: tuple[int, int], worker: str) -> Order:
        order = Order(step=episode[0], index=episode[1], ticket=self._next_ticket)
        self._next_ticket += 1
        self._out[order.ticket] = (*episode, worker)
        self._held.setdefault(worker, set()).add(order.ticket)
        self._tickets.setdefault(episode, set()).add(order.ticket)
        return order

    def _suspects_at(self, worker: str) -> int:
        held = (self._out.get(ticket) for ticket in self._held.get(worker, ())) if self._losses else ()
        return sum(out is not None and out[:2] in self._losses for out in held)

    def order(self, ticket: int) -> Order | None:
        """The order of a ticket that is out."""
        if ticket not in self._out:
            return None
        step, index, _ = self._out[ticket]
        return Order(step=step, index=index, ticket=ticket)

    def receive(self, receipt: Receipt, place: Any = None) -> Fate:
        """Enter what a worker sent home."""
        if (late := self._spent.pop(receipt.ticket, None)) is not None:
            self._held[late].discard(receipt.ticket)
        if receipt.ticket not in self._out:
            return Fate.REFUSED
        step, index, others = self._end(receipt.ticket)
        is_stale = step - receipt.oldest_version > self.max_staleness
        if others and (receipt.quarantined or is_stale):
            return Fate.REFUSED  # the second ticket decides
        if receipt.quarantined:
            self._open[step].quarantined += 1
            return Fate.QUARANTINED
        if is_stale:
            heapq.heappush(self._queue, (step, index))
            return Fate.STALE
        for other in list(others):
            worker = self._out[other][2]
            self._end(other)
            self._held[worker].add(other)
            self._spent[other] = worker
        self._losses.pop((step, index), None)
        self._open[step].kept[index] = Entry(index=index, tokens=receipt.tokens, place=place)
        return Fate.KEPT

    def _end(self, ticket: int) -> tuple[int, int, set[int]]:
        """A ticket is out no longer. Returns its episode, and the tickets of it that are."""
        step, index, worker = self._out.pop(ticket)
        self._held[worker].discard(ticket)
        others = self._tickets[step, index]
        others.discard(ticket)
        if not others:
            del self._tickets[step, index]
        return step, index, others

    def is_settled(self, step: int) -> bool:
        """Waiting for `step` is over: it is complete, was delivered, or is past the end of the run."""
        delivered = self._next_step is not None and step < self._next_step and step not in self._open
        return self.is_complete(step) or delivered or step >= self.steps

    def lose(self, worker: str, death: Any = None) -> Lost:
        """`worker` is gone: what it alone held is queued again. `death` is noted of each episode that it held."""
        requeued, quarantined = 0, []
        for ticket in list(self._held.get(worker, ())):
            if self._spent.pop(ticket, None) is not None:
                continue
            step, index, others = self._end(ticket)
            self._losses.setdefault((step, index), []).append(death)
            if others:
                continue
            if len(self._losses[step, index]) >= MOST_LOSSES:
                self._open[step].quarantined += 1
                quarantined.append((step, index))
            else:
                heapq.heappush(self._queue, (step, index))
                requeued += 1
        self._held.pop(worker, None)
        return Lost(requeued=requeued, quarantined=tuple(sorted(quarantined)))

    def deaths(self, step: int, index: int) -> tuple[Any, ...]:
        """What `lose` was told of each worker that died while it held this episode."""
        return tuple(self._losses.get((step, index), ()))

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
