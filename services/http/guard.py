"""What every request passes before a route sees it: an id, a token, a body that fits, a place among those in progress.

Plain ASGI, so that it holds for every route, known or not, and never sees more of a body than it allows.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import Response

from envs.base import ConfigError, DataError
from services.config import LimitsConfig
from services.http.problems import of_error, problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
SCOPES = ("read", "evaluate")
"""`read` lists and samples; `evaluate` also starts and cancels evaluations."""
BODY_LIMIT_VARIABLE = "VITER_BODY_BYTES"
TOKENS_FILE, TOKEN_FILE = "tokens.json", "token"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token as it is kept: its hash. A token is 256 random bits, so one round of sha256 cannot be searched."""

    name: str
    sha256: str
    scopes: tuple[str, ...]
    created: float


class Tokens:
    """The tokens that open the service."""

    def __init__(self, records: tuple[TokenRecord, ...]):
        self.records = records

    @classmethod
    def load(cls, directory: Path) -> "Tokens":
        """The tokens of `directory`.

        Raises:
            DataError: the file is missing or damaged.
        """
        path = directory / TOKENS_FILE
        try:
            entries = json.loads(path.read_text())
            return cls(tuple(TokenRecord(**{**entry, "scopes": tuple(entry["scopes"])}) for entry in entries))
        except FileNotFoundError:
            raise DataError(f"{path}: no tokens; `viter serve` makes the first one") from None
        except (ValueError, TypeError, KeyError):
            raise DataError(f"{path}: damaged; remove it, and `viter serve` makes a new token") from None

    def find(self, token: str) -> TokenRecord | None:
        """The record of `token`. Compares with every record in constant time."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        matches = [record for record in self.records if hmac.compare_digest(record.sha256, digest)]
        return matches[0] if matches else None


def ensure_token(directory: Path) -> str | None:
    """Make the first token of a service, unless it has one. Returns it then, and only then.

    `tokens.json` keeps its hash for the service; `token` beside it, readable by its owner alone, is for the operator,
    who may move or delete it.

    Raises:
        ConfigError: the directory cannot be written.
    """
    if (directory / TOKENS_FILE).exists():
        return None
    token = f"viter-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(token.encode()).hexdigest()
    record = TokenRecord(name="operator", sha256=digest, scopes=SCOPES, created=time.time())
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_private(directory / TOKEN_FILE, token + "\n")
        _write_private(directory / TOKENS_FILE, json.dumps([asdict(record)], indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"{directory}: cannot keep the service's tokens here: {error.strerror}") from None
    return token


def _write_private(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(handle)
    os.replace(partial, path)


class BodyTooLarge(Exception):
    """More bytes came than the limit allows."""


class Guard:
    """ASGI middleware around the service's routes. `tokens` None lets everybody in."""

    def __init__(self, app: App, *, tokens: Tokens | None, limits: LimitsConfig):
        self.app = app
        self.tokens = tokens
        self.limits = limits
        self.in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        scope["viter_request_id"] = request_id
        answer = _Answer(send, request_id)
        is_api = scope["path"].startswith("/v1")
        refusal = (is_api and (self._unauthorised(scope, headers) or self._crowded(scope))) or self._oversized(
            scope, headers
        )
        if refusal:
            return await refusal(scope, receive, answer)
        self.in_progress += is_api
        try:
            await self._pass_on(scope, receive, answer)
        finally:
            self.in_progress -= is_api
        return None

    async def _pass_on(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            body = await self._body(receive)
        except BodyTooLarge:
            return await self._too_large(scope)(scope, receive, answer)
        try:
            await self.app(scope, _replayed(body, receive), answer)
        except Exception as error:  # the top of this process: nothing above tells a client what happened
            if answer.has_started:
                raise
            response = of_error(scope["path"], error, request_id=scope["viter_request_id"])
            await response(scope, receive, answer)

    def _unauthorised(self, scope: Scope, headers: Headers) -> Response | None:
        if self.tokens is None:
            return None
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            return self._refuse(scope, 401, "send a token: `Authorization: Bearer TOKEN`", 'Bearer realm="viter"')
        record = self.tokens.find(token.strip())
        if record is None:
            challenge = 'Bearer realm="viter", error="invalid_token"'
            return self._refuse(scope, 401, "this token is not known to the service", challenge)
        needed = needed_scope(scope["method"], scope["path"])
        if needed not in record.scopes:
            challenge = f'Bearer realm="viter", error="insufficient_scope", scope="{needed}"'
            return self._refuse(scope, 403, f"this token does not hold the scope {needed!r}", challenge)
        return None

    def _crowded(self, scope: Scope) -> Response | None:
        if self.in_progress < self.limits.requests:
            return None
        detail = f"{self.in_progress} requests are being answered, which is the limit; come back in a second"
        return problem(scope["path"], 429, detail, request_id=scope["viter_request_id"])

    def _oversized(self, scope: Scope, headers: Headers) -> Response | None:
        announced = headers.get("content-length")
        if announced is None:
            return None
        if not (announced.isascii() and announced.isdigit()):
            return problem(scope["path"], 400, "Content-Length is not a number", request_id=scope["viter_request_id"])
        return self._too_large(scope) if int(announced) > self.limits.body_bytes else None

    def _too_large(self, scope: Scope) -> Response:
        detail = f"the body is larger than {self.limits.body_bytes} bytes, the most this service takes"
        return problem(
            scope["path"], 413, detail, request_id=scope["viter_request_id"], headers={"Connection": "close"}
        )

    def _refuse(self, scope: Scope, status: int, detail: str, challenge: str) -> Response:
        headers = {"WWW-Authenticate": challenge}
        return problem(scope["path"], status, detail, request_id=scope["viter_request_id"], headers=headers)

    async def _body(self, receive: Receive) -> bytes:
        """The body, read as it comes and no further than the limit."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return b"".join(parts)
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.limits.body_bytes:
                raise BodyTooLarge
            if not message.get("more_body"):
                return b"".join(parts)


def needed_scope(method: str, path: str) -> str:
    """The scope that a request needs."""
    return "evaluate" if method not in ("GET", "HEAD") and path.startswith("/v1/evaluations") else "read"


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


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the whole body once, then what really comes: the client going away."""
    is_given = False

    async def replay() -> MutableMapping[str, Any]:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def proxy_middlewares() -> list[Middleware]:
    """The body limit for Serve's HTTP proxy: what RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names."""
    return [Middleware(BodyLimit, body_bytes=int(os.environ.get(BODY_LIMIT_VARIABLE, LimitsConfig().body_bytes)))]


class BodyLimit(Guard):
    """The body limit alone, for the HTTP proxy in front of the routes, which would otherwise hold any body."""

    def __init__(self, app: App, body_bytes: int):
        super().__init__(app, tokens=None, limits=LimitsConfig(body_bytes=body_bytes, requests=1 << 30))
