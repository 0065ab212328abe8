"""Reading a body no further than a size and no longer than a while: whole for the routes, in passing for the proxy."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers

from services.http.admission import crowded, kind_of
from services.http.problems import problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SERVES_OWN_HEADERS = (b"x-request-timeout-seconds", b"x-request-disconnect-disabled")
"""With these a client would lift the proxy's deadline, or keep the engine working for nobody."""


class BodyTooLarge(Exception):
    """More bytes came, or were announced, than the limit allows."""

    def __init__(self, most_bytes: int):
        super().__init__(f"the body is larger than {most_bytes} bytes, the most this service takes")


class BodyTooSlow(Exception):
    """The body was not there in time."""

    def __init__(self, deadline_s: float):
        super().__init__(f"the body did not arrive within {deadline_s:g} seconds")


class ClientGone(Exception):
    """The client went away before its body was there: there is nobody to answer."""


async def read_body(receive: Receive, *, most_bytes: int, deadline_s: float) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge, BodyTooSlow, ClientGone
    """
    parts: list[bytes] = []
    size, has_more = 0, True
    try:
        async with asyncio.timeout(deadline_s):
            while has_more:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientGone
                parts.append(message.get("body", b""))
                size, has_more = size + len(parts[-1]), message.get("more_body", False)
                if size > most_bytes:
                    raise BodyTooLarge(most_bytes)
    except TimeoutError:
        raise BodyTooSlow(deadline_s) from None
    return b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the whole body once, then what really comes: the client going away."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


class ProxyGuard:
    """ASGI middleware for the HTTP proxy in front of the routes, which would otherwise hold any body for any time.

    It keeps nothing back: the routes refuse a request without waiting for its body. To what lies behind it, a client
    whose body is too large or too slow has gone away; the client itself hears 413 or 408. One sampling request more than
    `most_requests` hears 429 here, so that a crowd costs the routes no time; which token takes how many is theirs to say.
    """

    def __init__(self, app: App, *, most_bytes: int, deadline_s: float, most_requests: int):
        self.app = app
        self.most_bytes = most_bytes
        self.deadline_s = deadline_s
        self.most_requests = most_requests
        self.sampling = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0].lower() not in SERVES_OWN_HEADERS]}
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and (len(announced) > 18 or int(announced) > self.most_bytes):
            return await _refuse(scope, receive, send, 413, str(BodyTooLarge(self.most_bytes)))
        samples = kind_of(scope["method"], scope["path"]) == "sampling"
        if samples and self.sampling >= self.most_requests:
            return await _refuse(scope, receive, send, 429, crowded("sampling", self.most_requests))
        give_back = self._take(int(samples))
        passing = _Passing(receive, send, self.most_bytes, self.deadline_s, at_end=give_back)
        try:
            await self.app(scope, passing.receive, passing.send)
        finally:
            give_back()
        if passing.refusal and not passing.has_started:
            status = 413 if isinstance(passing.refusal, BodyTooLarge) else 408
            await _refuse(scope, receive, send, status, str(passing.refusal))
        return None

    def _take(self, places: int) -> Callable[[], None]:
        """Take places. What comes back gives them back, once."""
        self.sampling += places

        def give_back() -> None:
            nonlocal places
            self.sampling -= places
            places = 0

        return give_back


class _Passing:
    """One request on its way through: counts its body, and drops the app's answer to a client it calls gone.

    `at_end` is called before the answer's last part is sent: a client that then asks again finds its place free.
    """

    def __init__(self, receive: Receive, send: Send, most_bytes: int, deadline_s: float, *, at_end: Callable[[], None]):
        self._receive, self._send = receive, send
        self._most_bytes, self._deadline_s = most_bytes, deadline_s
        self._ends = asyncio.get_running_loop().time() + deadline_s
        self._at_end = at_end
        self._size, self._has_more = 0, True
        self.has_started = False
        self.refusal: BodyTooLarge | BodyTooSlow | None = None

    async def receive(self) -> Message:
        if not self._has_more:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._ends):
                message = await self._receive()
        except TimeoutError:
            return self._refuse(BodyTooSlow(self._deadline_s))
        self._has_more = message["type"] == "http.request" and message.get("more_body", False)
        self._size += len(message.get("body", b""))
        return message if self._size <= self._most_bytes else self._refuse(BodyTooLarge(self._most_bytes))

    async def send(self, message: Message) -> None:
        if self.refusal is None or self.has_started:
            self.has_started = True
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._at_end()
            await self._send(message)

    def _refuse(self, refusal: BodyTooLarge | BodyTooSlow) -> Message:
        self.refusal, self._has_more = refusal, False
        return {"type": "http.disconnect"}


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, why: str) -> None:
    headers = {} if status == 429 else {"Connection": "close"}  # nobody will read what else comes of the body
    answer = problem(scope["path"], status, why, request_id=uuid.uuid4().hex, headers=headers)
    await answer(scope, receive, send)
