"""Which replica answers: one that holds the checkpoint, then an idle one, then the least loaded. Pure; knows no Ray.

One whose engine is still starting answers only where none is up, however busy those are: a swap takes moments, a start minutes.

Replicas tell what they hold about once a second. What a router has sent itself it knows at once, and trusts more until
the replicas have had time to tell: a checkpoint that was just sent somewhere is held there soon.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

LOST_S = 3600.0  # a request that was not heard of for so long has ended, and Serve has told nobody
SETTLED_S = 3.0  # after this long without a request, what a replica tells of itself is news, and its checkpoint may go


@dataclass(frozen=True, slots=True)
class Told:
    """What a replica says of itself."""

    digest: str | None
    users: int
    is_up: bool = True  # its engine has started


@dataclass(frozen=True, slots=True)
class _Sent:
    replica: Hashable
    digest: str
    weight: int
    at: float


class Traffic:
    """What one router knows of the replicas.

    A request weighs 1; an evaluation's share as much as the episodes it plays at once. A replica with a load of `full`
    gains nothing from more, so that requests then go to another one, if that is idle and has been for a while.
    """

    def __init__(self, *, full: int, now: Callable[[], float] = time.monotonic):
        self._full = full
        self._now = now
        self._told: Mapping[Hashable, Told] = {}
        self._sent: dict[str, _Sent] = {}  # by request, from the choice of its replica to its end
        self._last: dict[Hashable, tuple[str, float]] = {}  # what each replica was asked for last, and when

    def tell(self, told: Mapping[Hashable, Told]) -> None:
        """What the replicas that there are say of themselves."""
        self._told = told
        for request in [request for request, sent in list(self._sent.items()) if self._now() - sent.at > LOST_S]:
            self._sent.pop(request, None)
        self._last = {replica: last for replica, last in self._last.items() if replica in told}

    def send(self, request: str, replica: Hashable, digest: str, weight: int = 1) -> None:
        """A request goes to a replica; said again of the same request, it goes there instead."""
        before = self._sent.get(request)
        if before is not None and before.replica != replica:
            self._last.pop(before.replica, None)
        self._sent[request] = _Sent(replica, digest, weight, self._now())
        self._last[replica] = (digest, self._now())

    def done(self, request: str) -> None:
        """A request has ended, in whatever way. May be called from another thread."""
        sent = self._sent.pop(request, None)
        if sent is not None:
            self._last[sent.replica] = (sent.digest, self._now())

    def ranked(self, digest: str, weight: int = 1) -> list[Hashable]:
        """The replicas that may answer, the one that should do so first. Without a digest any will do."""
        may_answer = [replica for replica, told in self._told.items() if told.is_up] or list(self._told)
        if not digest:
            return sorted(may_answer, key=self._load)
        is_held = any(self._holds(replica, digest) for replica in may_answer)
        return sorted(may_answer, key=lambda replica: self._rank(replica, digest, weight, is_held=is_held))

    def _rank(self, replica: Hashable, digest: str, weight: int, *, is_held: bool) -> tuple[float, ...]:
        load = self._load(replica)
        used_at = self._last[replica][1] if replica in self._last else 0.0
        if self._holds(replica, digest):
            others = len(self._in_flight(replica) - {digest})
            has_room = load == 0 or load + weight <= self._full
            return (0, others, load) if has_room else (2, others, load)
        if load == 0 and (not is_held or self._is_settled(replica)):
            return (1, used_at)
        return (3, load, used_at)

    def _holds(self, replica: Hashable, digest: str) -> bool:
        if digest in self._in_flight(replica):
            return True
        last = None if self._is_settled(replica) else self._last[replica][0]
        return digest == (last or self._told[replica].digest)

    def _is_settled(self, replica: Hashable) -> bool:
        return replica not in self._last or self._now() - self._last[replica][1] > SETTLED_S

    def _load(self, replica: Hashable) -> int:
        return max(self._told[replica].users, sum(sent.weight for sent in self._of(replica)))

    def _in_flight(self, replica: Hashable) -> set[str]:
        return {sent.digest for sent in self._of(replica)}

    def _of(self, replica: Hashable) -> Sequence[_Sent]:
        return [sent for sent in list(self._sent.values()) if sent.replica == replica]
