"""Which episodes are overdue: out for twice as long as any other worker lately took. Pure bookkeeping, no clock.

An episode is a function of its seed, so a second worker may play it too, and whichever comes home first counts
(MapReduce's backup tasks: Dean and Ghemawat, OSDI 2004, section 3.6). A slow worker then costs its own speed alone.
"""

from collections import deque

REMEMBERED = 64  # durations of each worker
ENOUGH = 16  # durations of other workers, before anything is called overdue
PATIENCE = 2.0  # times the longest of them
LEAST_S = 0.5  # nothing is overdue sooner: a pause for new weights is no sign of a slow worker


class Stragglers:
    """Times of orders, by ticket. Times are seconds on any one clock."""

    def __init__(self) -> None:
        self._given: dict[int, tuple[str, float]] = {}  # worker and time, by ticket, oldest first
        self._took: dict[str, deque[float]] = {}

    def given(self, ticket: int, worker: str, now: float) -> None:
        self._given[ticket] = worker, now

    def home(self, ticket: int, now: float) -> None:
        """A receipt came; one whose ticket is not known counts for nothing."""
        if (given := self._given.pop(ticket, None)) is not None:
            self._took.setdefault(given[0], deque(maxlen=REMEMBERED)).append(now - given[1])

    def gone(self, worker: str) -> None:
        """A worker died: what it held is somebody else's now."""
        self._took.pop(worker, None)
        self._given = {ticket: given for ticket, given in self._given.items() if given[0] != worker}

    def forget(self) -> None:
        """Every order was dropped."""
        self._given.clear()

    def overdue(self, now: float) -> list[int]:
        """Tickets, longest out first."""
        limits: dict[str, float | None] = {}
        found = []
        for ticket, (worker, since) in self._given.items():
            if worker not in limits:
                limits[worker] = self._limit(worker)
            limit = limits[worker]
            if limit is not None and now - since > limit:
                found.append(ticket)
        return found

    def _limit(self, worker: str) -> float | None:
        others = [took for name, took in self._took.items() if name != worker]
        if sum(map(len, others)) < ENOUGH:
            return None
        return max(LEAST_S, PATIENCE * max(max(took) for took in others if took))
