"""Who may use the engine now. Plain asyncio: the engine itself is one callable away.

One engine holds one checkpoint's weights at a time. Whoever wants to use it takes a lease on a checkpoint:

    held is wanted        goes in at once, beside the others, while nobody has waited longer than `patience_s`
    held is another       waits; once nobody is inside, the first in line has its checkpoint loaded
                          and goes in with all who wait for the same one

So weights never change under a request, requests for one checkpoint share the engine, and everybody's turn comes: after
`patience_s` the door closes to overtakers, those inside end, and the line moves.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class _Waiting:
    key: str
    since: float = field(default_factory=time.monotonic)
    may_enter: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Leases:
    """Leases on what one engine holds.

    `load(key)` makes the engine hold `key`; it runs alone, never while a lease is out. If it fails, those who waited
    for this key get its error, nothing counts as held, and the line moves on.
    """

    def __init__(self, load: Callable[[str], Awaitable[None]], *, patience_s: float):
        self.held: str | None = None
        self.users = 0
        self._load = load
        self._patience_s = patience_s
        self._line: deque[_Waiting] = deque()  # those who wait, first come first; woken by `_move`
        self._loading: asyncio.Task[None] | None = None  # moves the line; its errors belong to those who wait

    @asynccontextmanager
    async def lease(self, key: str) -> AsyncIterator[None]:
        """Hold the engine on `key` within the context. Waits in line; giving up while waiting is safe."""
        if not self._may_enter_at_once(key):
            await self._stand_in_line(key)
        else:
            self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            self._move()

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def forget(self) -> None:
        """Nothing is held any more, e.g. since the engine died: the next lease loads again."""
        self.held = None

    def _may_enter_at_once(self, key: str) -> bool:
        if key != self.held or self._loading is not None:
            return False
        return not self._line or time.monotonic() - self._line[0].since < self._patience_s

    async def _stand_in_line(self, key: str) -> None:
        waiting = _Waiting(key)
        self._line.append(waiting)
        self._move()
        try:
            await waiting.may_enter
        except asyncio.CancelledError:
            if waiting.may_enter.done() and not waiting.may_enter.cancelled() and waiting.may_enter.exception() is None:
                self.users -= 1  # let in and cancelled in the same moment
            if waiting in self._line:
                self._line.remove(waiting)
            self._move()
            raise

    def _move(self) -> None:
        if self._line and self.users == 0 and self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._serve_first_in_line())

    async def _serve_first_in_line(self) -> None:
        key = self._line[0].key
        error: Exception | None = None
        if key != self.held:
            self.held = None
            try:
                await self._load(key)
                self.held = key
            except Exception as failure:  # handed to those who wait for it, below
                error = failure
        self._loading = None
        self._admit(key, error)
        self._move()

    def _admit(self, key: str, error: Exception | None) -> None:
        for waiting in [w for w in self._line if w.key == key]:
            self._line.remove(waiting)
            if waiting.may_enter.done():
                continue
            if error is None:
                self.users += 1
                waiting.may_enter.set_result(None)
            else:
                waiting.may_enter.set_exception(error)
