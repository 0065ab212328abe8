"""What every request passes before a route sees it: an id, a token, a place among those in progress, a body that fits.

Where no token is asked for, it must name this machine as its host: a page from elsewhere, whose name was made to lead to
loopback, has a browser ask under that name.

Plain ASGI, so that it holds for every route, known or not. A request is refused as early as it can be: by its headers
before anything is read, by its body before anything is parsed that is larger than allowed.
"""

import os
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import Response

from services.config import LOOPBACK, LimitsConfig
from services.http import json_body
from services.http.admission import Places, kind_of
from services.http.problems import of_error, problem
from services.http.request_body import BodyTooLarge, BodyTooSlow, ClientGone, ProxyGuard, read_body, replayed
from services.http.tokens import TokenRecord, Tokens, needed_scope

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
OPEN = ("/", "/livez", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc")
OPEN_BELOW = "/static/"
"""What answers without a token: health, the page and its files, the documents. Everything else asks for one."""
BODILESS = ("GET", "HEAD", "OPTIONS")
HOST = re.compile(r"(\[(?P<v6>[0-9a-f:]+)\]|(?P<name>[a-z0-9.-]+))(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
JSON_TYPE = re.compile(r"application/(json|[a-z0-9.+-]+\+json)\s*(;.*)?", re.ASCII | re.IGNORECASE)
BODY_LIMIT_VARIABLE, BODY_SECONDS_VARIABLE = "VITER_BODY_BYTES", "VITER_BODY_SECONDS"
REQUESTS_VARIABLE = "VITER_REQUESTS"


class Guard:
    """ASGI middleware around the service's routes. `tokens` None lets everybody in who reaches loopback by its own name."""

    def __init__(self, app: App, *, tokens: Tokens | None, limits: LimitsConfig):
        self.app = app
        self.tokens = tokens
        self.limits = limits
        self.places = Places(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there are none, and a token is not asked for on this way
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        scope["viter_request_id"] = asked if REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        answer = _Answer(send, scope["viter_request_id"])
        if self.tokens is None and not is_loopback(headers.get("host", "")):
            names = f"without tokens this service answers by the names {', '.join(LOOPBACK)} alone"
            return await self._problem(scope, 421, names)(scope, receive, answer)
        if is_open(scope["path"]):
            return await self._pass_on(scope, replayed(b"", receive), answer)
        record = self._record(headers)
        if self.tokens is not None and (refusal := self._unauthorised(scope, headers, record)):
            return await refusal(scope, receive, answer)
        scope["viter_token"] = record.name if record else None
        kind, holder = kind_of(scope["method"], scope["path"]), record.name if record else None
        if why := self.places.refusal(kind, holder):
            return await self._problem(scope, 429, why)(scope, receive, answer)
        if refusal := self._bad_announcement(scope, headers):
            return await refusal(scope, receive, answer)
        with self.places.place(kind, holder):
            return await self._read_and_pass_on(scope, receive, answer)

    async def _read_and_pass_on(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if scope["method"] in BODILESS:
            return await self._pass_on(scope, replayed(b"", receive), answer)
        try:
            body = await read_body(receive, most_bytes=self.limits.body_bytes, deadline_s=self.limits.body_s)
            if body:
                json_body.check(body)
        except ClientGone:
            return None
        except (BodyTooLarge, BodyTooSlow, json_body.NotJson) as error:
            status = {BodyTooLarge: 413, BodyTooSlow: 408}.get(type(error), 400)
            return await self._problem(scope, status, str(error), closes=status != 400)(scope, receive, answer)
        return await self._pass_on(scope, replayed(body, receive), answer)

    async def _pass_on(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            await self.app(scope, receive, answer)
        except Exception as error:  # the top of this process: nothing above tells a client what happened
            if answer.has_started:
                raise
            response = of_error(scope["path"], error, request_id=scope["viter_request_id"])
            await response(scope, receive, answer)

    def _record(self, headers: Headers) -> TokenRecord | None:
        kind, _, token = headers.get("authorization", "").partition(" ")
        return self.tokens.find(token.strip()) if self.tokens is not None and kind.lower() == "bearer" else None

    def _unauthorised(self, scope: Scope, headers: Headers, record: TokenRecord | None) -> Response | None:
        if record is None:
            if "authorization" not in headers:
                return self._refuse(scope, 401, "send a token: `Authorization: Bearer TOKEN`", 'Bearer realm="viter"')
            detail = "this is no token of the service: unknown, expired, revoked, or not sent as `Bearer TOKEN`"
            return self._refuse(scope, 401, detail, 'Bearer realm="viter", error="invalid_token"')
        needed = needed_scope(scope["method"], scope["path"])
        if not record.allows(needed):
            challenge = f'Bearer realm="viter", error="insufficient_scope", scope="{needed}"'
            return self._refuse(
                scope, 403, f"this needs the scope {needed!r}; the token has {record.scope!r}", challenge
            )
        return None

    def _bad_announcement(self, scope: Scope, headers: Headers) -> Response | None:
        """What the headers already say of the body."""
        announced = headers.get("content-length", "0")
        if not (announced.isascii() and announced.isdigit()):
            return self._problem(scope, 400, "Content-Length is not a number", closes=True)
        if len(announced) > 18 or int(announced) > self.limits.body_bytes:
            return self._problem(scope, 413, str(BodyTooLarge(self.limits.body_bytes)), closes=True)
        has_body = int(announced) > 0 or "transfer-encoding" in headers
        if has_body and scope["method"] not in BODILESS and not JSON_TYPE.fullmatch(headers.get("content-type", "")):
            return self._problem(scope, 415, "send JSON: `Content-Type: application/json`", closes=True)
        return None

    def _problem(self, scope: Scope, status: int, detail: str, *, closes: bool = False) -> Response:
        """`closes` ends the connection: nobody will read what else comes on it."""
        headers = {"Connection": "close"} if closes else {}
        return problem(scope["path"], status, detail, request_id=scope["viter_request_id"], headers=headers)

    def _refuse(self, scope: Scope, status: int, detail: str, challenge: str) -> Response:
        headers = {"WWW-Authenticate": challenge}
        return problem(scope["path"], status, detail, request_id=scope["viter_request_id"], headers=headers)


def is_open(path: str) -> bool:
    """Whether a path answers without a token."""
    return path in OPEN or path.startswith(OPEN_BELOW)


def is_loopback(host: str) -> bool:
    """Whether a Host header names this machine alone, at any port."""
    named = HOST.fullmatch(host)
    return named is not None and (named["v6"] or named["name"]).lower() in LOOPBACK


class _Answer:
    """`send` that adds the headers every answer carries, and remembers whether an answer has begun."""

    def __init__(self, send: Send, request_id: str):
        self._send = send
        self._extra = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
        self.has_started = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.has_started = True
            message = {**message, "headers": [*message.get("headers", []), *self._extra]}
        await self._send(message)


def proxy_middlewares() -> list[Middleware]:
    """What Serve's HTTP proxy puts before itself: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names this function."""
    defaults = LimitsConfig()
    most_bytes = int(os.environ.get(BODY_LIMIT_VARIABLE, defaults.body_bytes))
    deadline_s = float(os.environ.get(BODY_SECONDS_VARIABLE, defaults.body_s))
    most_requests = int(os.environ.get(REQUESTS_VARIABLE, defaults.requests))
    return [Middleware(ProxyGuard, most_bytes=most_bytes, deadline_s=deadline_s, most_requests=most_requests)]
