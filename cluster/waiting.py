"""How tasks of one loop wait for each other: until something is so, or something has failed for good."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Signal:
    """Wakes whoever waits, whenever something changed."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        """What has ended everything; the first that was told."""
        self._changed = asyncio.Condition()

    async def notify(self) -> None:
        """Something changed."""
        async with self._changed:
            self._changed.notify_all()

    async def fail(self, error: Exception) -> None:
        """End every wait, those to come too."""
        self.failure = self.failure or error
        await self.notify()

    async def wait_for(self, is_so: Callable[[], bool]) -> None:
        """Until `is_so`. Raises what has ended everything."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.failure is not None or is_so())
        if self.failure is not None:
            raise self.failure


async def until_one_ends(*endless: Coroutine[Any, Any, None]) -> None:
    """Run them together; the first that raises ends the others, and its error is raised."""
    tasks = [asyncio.create_task(one) for one in endless]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
