"""Whose turn it is at the engines. Plain asyncio.

An evaluation at play has every replica, for a turn of so many items; then the next in line has its turn, and the first
stands behind it again. So one of sixteen items waits for one turn of each of those before it, not for the two thousand
of another's, and nobody waits for ever. Turns, not item by item: each change may mean other weights in the engines.
Alone in the line, an evaluation goes on without a pause. Those that the service ordered by itself stand in a line of
their own, which moves only while nobody else waits.
"""

import asyncio
from collections import deque
from collections.abc import Callable


class Line:
    """Evaluations that wait for their turn, by id."""

    def __init__(self, turn_items: int):
        self.turn_items = turn_items
        self._clients: deque[str] = deque()
        self._automatic: deque[str] = deque()
        self._came = asyncio.Event()  # set while somebody waits; `next` waits for it

    def join(self, evaluation_id: str, *, is_automatic: bool) -> None:
        """Stand at the end."""
        (self._automatic if is_automatic else self._clients).append(evaluation_id)
        self._came.set()

    async def next(self) -> str:
        """Whose turn it is; it has left the line. Waits until there is one."""
        await self._came.wait()
        taken = (self._clients or self._automatic).popleft()
        if not self._clients and not self._automatic:
            self._came.clear()
        return taken

    def turn_of(self, *, is_automatic: bool) -> tuple[int | None, Callable[[int], bool]]:
        """How many items a turn that begins now has, None for all; and whether it is over after so many of them."""

        def is_over(played: int) -> bool:
            if is_automatic and self._clients:
                return True
            return played >= self.turn_items and self._has_others(is_automatic)

        return (self.turn_items if self._has_others(is_automatic) else None), is_over

    def _has_others(self, is_automatic: bool) -> bool:
        return bool(self._clients or (is_automatic and self._automatic))
