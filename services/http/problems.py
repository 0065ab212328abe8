"""How an error is told over HTTP: RFC 9457 problem+json, with OpenAI's error object inside it on OpenAI's routes.

`STATUS` is the one table from error classes to status codes.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from envs.base import ViterError

STATUS = {
    "CheckpointMissing": 404,
    "AliasReserved": 409,
    "EvaluationMissing": 404,
    "PictureMissing": 404,
    "OutOfStore": 404,
    "IdempotencyConflict": 422,
    "PlayedElsewhere": 409,
    "RunMissing": 404,
    "RunGoesOn": 409,
    "NoJob": 409,
    "TrainingOff": 409,
    "LeaseHeld": 409,
    "LineError": 422,
    "TooMuch": 422,
    "Busy": 429,
    "VerifierFailed": 502,
    "EngineDown": 503,
    "EngineDead": 503,
    "WeightsRefused": 503,
    "StoreFull": 507,
    "CheckpointDamaged": 500,
    "DataError": 422,
    "ConfigError": 422,
    "RetryableError": 503,
}
"""By class name, nearest class first: naming the classes would import what defines them."""
UNAVAILABLE = ("ActorDiedError", "ActorUnavailableError", "RayActorError", "EngineDeadError", "BackPressureError")
"""Ray's and vLLM's words for an engine that is gone; "unavailable" is how gRPC tells of it."""
PROBLEM_JSON = "application/problem+json"
MOST_TOLD = 10  # mistakes of one request
RETRY_AFTER_S = {429: 1, 503: 5}
OPENAI_ROUTES = ("/v1/models", "/v1/chat/", "/v1/completions")
OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}

logger = logging.getLogger("viter.http")


class Fault(BaseModel):
    """One field that is wrong."""

    pointer: str
    """Where: a JSON pointer into the body, or the name of a parameter."""
    detail: str


class Problem(BaseModel):
    """What went wrong, as RFC 9457 tells it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[Fault] | None = None
    error: dict[str, Any] | None = None
    """The same as OpenAI's clients read it, on OpenAI's routes."""


class TooMuch(ViterError):
    """A request over the service's limits. Its sentence begins with the field, e.g. `messages.0.content: …`."""


class VerifierFailed(ViterError):
    """The verifier crashed, or was silent for too long: there is no verdict."""


class Busy(ViterError):
    """More is asked at once than the service takes on."""


class IdempotencyConflict(ViterError):
    """The same Idempotency-Key with another order."""


class PlayedElsewhere(ViterError):
    """An evaluation that another service on the same store plays."""


class EngineDown(ViterError):
    """The engine is starting, or died under the request."""


def cause_of(error: BaseException) -> BaseException:
    """What was raised at first, where Ray wrapped it on its way between processes."""
    inner = getattr(error, "cause", None)
    return inner if isinstance(inner, BaseException) else error


def status_of(error: BaseException) -> int:
    """The status of an error, by the nearest of its classes that the table knows; 500 where it knows none."""
    return next((STATUS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in STATUS), 500)


def problem(
    path: str,
    status: int,
    detail: str,
    *,
    request_id: str,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer that tells one problem."""
    title = HTTPStatus(status).phrase
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail, "instance": path}
    body["request_id"] = request_id
    if errors:
        body["errors"] = errors
    if path.startswith(OPENAI_ROUTES):
        kind = OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        named = errors[0]["pointer"].strip("/").replace("/", ".") if errors else ""
        param = named or ("model" if status == 404 else None)
        body["error"] = {"message": detail, "type": kind, "param": param, "code": status}
    also = {"Retry-After": str(RETRY_AFTER_S[status])} if status in RETRY_AFTER_S else {}
    return JSONResponse(body, status, {**also, **(headers or {})}, media_type=PROBLEM_JSON)


def of_error(path: str, error: BaseException, *, request_id: str) -> Response:
    """The answer that tells an exception. What is no user's mistake is logged and kept from the client."""
    cause = cause_of(error)
    if isinstance(cause, TimeoutError | asyncio.TimeoutError):
        detail = "the request ran past the service's deadline; ask for fewer tokens, or for several smaller requests"
        return problem(path, 504, detail, request_id=request_id)
    status = status_of(cause)
    if isinstance(cause, ViterError):
        detail = " ".join(str(cause).split())
        field = detail.partition(":")[0] if type(cause).__name__ == "TooMuch" else ""
        errors = [{"pointer": "/" + field.replace(".", "/"), "detail": detail}] if field else None
        return problem(path, status, detail, request_id=request_id, errors=errors)
    if type(cause).__name__ in UNAVAILABLE:
        return problem(path, 503, "the engine is being restarted; try again soon", request_id=request_id)
    logger.error("request %s: unexpected error", request_id, exc_info=error)
    detail = f"an unexpected error; the service's log names it under request {request_id}"
    return problem(path, 500, detail, request_id=request_id)


def install(web: FastAPI, reasons: Mapping[str, str]) -> None:
    """Tell every error of `web` in these words. `reasons` says of OpenAI's fields why some are not taken."""

    @web.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        path = request.url.path
        known = reasons if path.startswith(OPENAI_ROUTES) else {}
        errors = [told(one, error.body, known) for one in error.errors()[:MOST_TOLD]]
        where = errors[0]["pointer"].strip("/").replace("/", ".") or "body"
        status = 400 if error.errors()[0]["type"] == "json_invalid" else 422
        detail = f"{where}: {errors[0]['detail']}"
        return problem(path, status, detail, request_id=request_id_of(request), errors=errors)

    @web.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return problem(
            request.url.path,
            error.status_code,
            str(error.detail),
            request_id=request_id_of(request),
            headers=error.headers,
        )


def told(error: Mapping[str, Any], body: Any, reasons: Mapping[str, str]) -> dict[str, str]:
    """One mistake: what it is, and where, as a JSON pointer into the body or the name of a parameter."""
    place, *location = error["loc"]
    detail = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        detail = reasons.get(str(location[-1]), "this field is not known here") if location else detail
    where = pointer_of(location, body) if place == "body" else ".".join(map(str, location))
    return {"pointer": where, "detail": detail}


def pointer_of(location: Sequence[Any], body: Any) -> str:
    """RFC 6901. pydantic's locations also name the branches of a union, which are no part of the body."""
    parts: list[str] = []
    for place, part in enumerate(location):
        if (isinstance(body, dict) and part in body) or (
            isinstance(body, list) and isinstance(part, int) and part < len(body)
        ):
            body = body[part]
        elif place < len(location) - 1 or not isinstance(body, dict):
            continue
        parts.append(str(part).replace("~", "~0").replace("/", "~1"))
    return "/" + "/".join(parts)


def request_id_of(request: Request) -> str:
    """The id the guard gave this request."""
    return str(request.scope.get("viter_request_id", "-"))
