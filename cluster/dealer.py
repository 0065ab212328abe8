"""Which orders a worker gets: its part of what is queued, and then what is overdue at another one. No tasks, no clock."""

from cluster.ledger import Ledger, Order
from cluster.stragglers import Stragglers
from cluster.tally import Tally

RESERVE = 0.25  # orders a worker holds beyond its places, as a share of them: a free place is refilled without asking


class Dealer:
    """Deals the ledger's orders to workers. Times are seconds on any one clock."""

    def __init__(self, ledger: Ledger, tally: Tally, *, episodes_in_flight: int) -> None:
        self._ledger, self._tally = ledger, tally
        self._most = episodes_in_flight + max(1, int(RESERVE * episodes_in_flight))
        self._stragglers = Stragglers()
        self._overdue: list[int] = []  # tickets, as of the last look

    def orders(self, worker: str, *, workers: int, now: float) -> list[Order]:
        """New orders for `worker`, one of `workers`; none where it holds enough."""
        room = self._room(worker, workers)
        orders = self._ledger.hand_out(worker, room, places=self._most)
        if not orders and self._overdue and not self._ledger.queued:
            orders = self._ledger.hand_out_again(worker, room, self._overdue)
            self._tally.count(episodes_played_twice=len(orders))
        for order in orders:
            self._stragglers.given(order.ticket, worker, now)
        return orders

    def look(self, now: float) -> bool:
        """Whether anything is overdue while nothing is queued: an idle worker may then have orders again."""
        is_tail = self._ledger.out and not self._ledger.queued
        self._overdue = self._stragglers.overdue(now) if is_tail else []
        return bool(self._overdue)

    def home(self, ticket: int, now: float) -> None:
        """A receipt came for an order."""
        self._stragglers.home(ticket, now)

    def gone(self, worker: str) -> None:
        """A worker died."""
        self._stragglers.gone(worker)

    def forget(self) -> None:
        """Every order was dropped."""
        self._stragglers.forget()

    def _room(self, worker: str, workers: int) -> int:
        """What it has places for, and no more than its part of all there is to play."""
        part = -(-(self._ledger.queued + self._ledger.out) // max(1, workers))
        return max(0, min(self._most, part) - self._ledger.out_at(worker))
