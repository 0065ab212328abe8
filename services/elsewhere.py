"""The methods of an object in another process, called as if it were here."""

from collections.abc import Awaitable, Callable
from typing import Any


class Elsewhere:
    """What a Serve handle leads to: `await Elsewhere(handle).method(arguments)`."""

    def __init__(self, handle: Any):
        self._handle = handle

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any) -> Any:
            return await getattr(self._handle, name).remote(*args)

        return call
