"""Which episodes are overdue: out for twice as long as any other worker lately took. Pure bookkeeping, no clock.

An episode is a function of its seed, so a second worker may play it too, and whichever comes home first counts
(MapReduce's backup tasks: Dean and Ghemawat, OSDI 2004, section 3.6). A slow worker then costs its own speed alone.
"""

import math
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
        """Tickets, longest out first. Time: what is out, and `REMEMBERED` for each worker."""
        longest = sorted(((max(took), len(took), worker) for worker, took in self._took.items()), reverse=True)
        known = sum(count for _, count, _ in longest)
        return [
            ticket for ticket, (worker, since) in self._given.items() if now - since > _limit(worker, longest, known)
        ]


def _limit(worker: str, longest: list[tuple[float, int, str]], known: int) -> float:
    """Seconds after which an order of `worker` is overdue. `longest`: (longest duration, how many, worker), descending."""
    others = [each for each in longest[:2] if each[2] != worker]
    own = next((count for _, count, name in longest[:2] if name == worker), 0)
    if not others or known - own < ENOUGH:
        return math.inf
    return max(LEAST_S, PATIENCE * others[0][0])
