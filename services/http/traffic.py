"""What every request leaves behind: counts and seconds by route, and one line in the log. Never a token, never a prompt."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match

from cluster import metrics
from cluster.metrics import DIGEST_CHARACTERS, Meters
from services.http.service import DIGEST_HEADER

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
NO_ROUTE = "none"
PROBES = ("/livez", "/readyz")  # counted, and logged only where they fail
GONE = 499  # the client went away before an answer began
REASONS = {401: "token", 403: "scope", 408: "slow_body", 413: "large_body", 421: "host", 429: "busy", 503: "unavailable",
           504: "deadline", 507: "store_full"}  # fmt: skip
"""Why a request was turned away, by the status it was told."""

logger = logging.getLogger("viter.http")


class Traffic:
    """The requests of one gateway."""

    def __init__(self, meters: Meters):
        self.in_progress = 0
        self._meters = meters
        for reason in REASONS.values():
            meters.add(metrics.HTTP_REJECTED, 0, reason=reason)

    def show(self) -> None:
        """Set the gauge again, before it fades."""
        self._meters.set(metrics.HTTP_IN_PROGRESS, self.in_progress)

    def ended(self, scope: Scope, status: int, headers: Headers, seconds: float) -> None:
        """A request is answered, to its last byte."""
        route, method = template(scope), scope["method"] if scope["method"] in METHODS else "other"
        self._meters.add(metrics.HTTP_REQUESTS, route=route, method=method, code=str(status))
        self._meters.observe(metrics.HTTP_SECONDS, seconds, route=route)
        if status in REASONS:
            self._meters.add(metrics.HTTP_REJECTED, reason=REASONS[status])
        if route in PROBES and status < 500:
            return
        told = {
            "method": method,
            "endpoint": route,
            "status": status,
            "seconds": round(seconds, 4),
            "request_id": scope.get("viter_request_id"),
            "token_name": scope.get("viter_token"),
            "digest": headers.get(DIGEST_HEADER, "")[:DIGEST_CHARACTERS] or None,
            **scope.get("viter_usage", {}),
        }
        logger.info("%s %s %d", method, route, status, extra=told)


class Telemetry:
    """ASGI middleware outside all others: tells `traffic` how each request ended."""

    def __init__(self, app: App, *, traffic: Traffic):
        self.app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = time.perf_counter()
        answer = _Watched(send)
        self._traffic.in_progress += 1
        try:
            await self.app(scope, receive, answer)
        except asyncio.CancelledError:
            answer.status = answer.status or GONE
            raise
        except Exception:
            answer.status = answer.status or 500
            raise
        finally:
            self._traffic.in_progress -= 1
            self._traffic.ended(scope, answer.status or GONE, answer.headers, time.perf_counter() - started)


class _Watched:
    """`send` that remembers how the answer began."""

    def __init__(self, send: Send):
        self._send = send
        self.status = 0
        self.headers = Headers()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], Headers(raw=message["headers"])
        await self._send(message)


def template(scope: Scope) -> str:
    """The route of a request as it was declared, so that there are only as many as routes. Also of a refused request."""
    if route := scope.get("route"):  # the one that FastAPI found
        return str(route.path)
    routes: list[BaseRoute] = scope["app"].routes
    matches = ((route.matches(scope)[0], route) for route in routes)
    found = next((route for match, route in matches if match is not Match.NONE), None)
    return str(getattr(found, "path", "")) or NO_ROUTE


def note_usage(scope: Scope, body: dict[str, Any]) -> None:
    """Put the tokens of an answer into the request's line."""
    if usage := body.get("usage"):
        counts = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
        scope["viter_usage"] = counts
