"""Calls that nobody else would end: those by gRPC to a replica whose machine is gone. Ray hears of it, gRPC does not.

Who asks holds the call here. The router, which Serve makes and which alone knows the replica, says where it went; that replica is
then looked after through Ray until no call is there.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from ray.exceptions import ActorDiedError, RayError

LOOK_EVERY_S = 1.0


class Call(Protocol):
    """What is asked of a Serve response. Of two calls with one id, a client's own, both go where the later went."""

    @property
    def request_id(self) -> str: ...

    def cancel(self) -> object: ...


class Replica(Protocol):
    """What is asked of one of a router's replicas."""

    @property
    def replica_id(self) -> Hashable: ...

    async def get_queue_len(self, *, deadline_s: float) -> int: ...


@dataclass(eq=False, slots=True)
class Line:
    """What a call hangs on."""

    call: Call
    is_cut: bool = False  # its replica is gone, and the call was cancelled


class Lifelines:
    """The calls of a process that wait for an answer, and the replicas that owe it. Calls and router share an event loop."""

    def __init__(self, *, look_every_s: float = LOOK_EVERY_S):
        self._look_every_s = look_every_s
        self._waiting: dict[str, list[Line]] = {}
        self._at: dict[str, Hashable] = {}  # request to replica
        self._watches: dict[Hashable, asyncio.Task[None]] = {}

    @contextmanager
    def held(self, call: Call) -> Iterator[Line]:
        """While it waits: it is cancelled where its replica is gone."""
        line = Line(call)
        lines = self._waiting.setdefault(call.request_id, [])
        lines.append(line)
        try:
            yield line
        finally:
            lines.remove(line)
            if not lines:
                del self._waiting[call.request_id]
                self._at.pop(call.request_id, None)

    def sent(self, request: str, replica: Replica, *, on_gone: Callable[[Hashable], object]) -> None:
        """A request went to a replica; said again, it went to another. What is not held here is left alone."""
        if request not in self._waiting:
            return
        key = replica.replica_id
        self._at[request] = key
        if key not in self._watches:
            self._watches[key] = asyncio.create_task(self._watch(replica, on_gone))

    async def _watch(self, replica: Replica, on_gone: Callable[[Hashable], object]) -> None:
        key = replica.replica_id
        try:
            while key in self._at.values():
                await asyncio.sleep(self._look_every_s)
                try:
                    await replica.get_queue_len(deadline_s=self._look_every_s)
                except ActorDiedError:
                    on_gone(key)
                    self._cut(key)
                except RayError:
                    continue  # it may come back
        finally:
            del self._watches[key]

    def _cut(self, key: Hashable) -> None:
        for request in [request for request, at in self._at.items() if at == key]:
            del self._at[request]
            for line in self._waiting[request]:
                line.is_cut = True
                line.call.cancel()


HERE = Lifelines()
"""Those of this process: Serve gives a router nothing of the handle that uses it."""
