"""The OpenAPI document: what FastAPI knows of the routes, and what the guard and the error table add to every answer."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from services.http.guard import is_open
from services.http.problems import PROBLEM_JSON, Problem

ALWAYS = (400, 408, 413, 429, 500, 503)
"""Whatever is asked: a malformed, slow or large request, too many of them, a fault, an engine that starts anew."""
GUARDED = (401, 403)
UNGUARDED = (421,)  # where no token is asked for, loopback's own names are
NAMED = (404,)  # a path or a query that names something
WRITTEN = (404, 409, 415, 422, 504, 507)  # a body that names something and asks for work


def describe(routes: FastAPI, *, has_tokens: bool) -> None:
    """Let the document of `routes` tell every error, and who may call."""
    plain = routes.openapi

    def described() -> dict[str, Any]:
        if routes.openapi_schema is not None:
            return routes.openapi_schema
        document = plain()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        for name, nested in schemas["Problem"].pop("$defs", {}).items():
            schemas[name] = nested
        for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own words, which no route answers in
            schemas.pop(name, None)
        if has_tokens:
            document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                guarded = has_tokens and not is_open(path)
                if guarded:
                    operation["security"] = [{"token": []}]
                for status in (*_statuses(method, operation, guarded), *(() if has_tokens else UNGUARDED)):
                    operation["responses"][str(status)] = _problem(status)
        return document

    routes.openapi = described  # type: ignore[method-assign]


def _statuses(method: str, operation: dict[str, Any], guarded: bool) -> set[int]:
    takes_values = bool(operation.get("parameters"))
    return {
        *ALWAYS,
        *(GUARDED if guarded else ()),
        *((*NAMED, 422) if takes_values else ()),
        *(WRITTEN if method != "get" else ()),
    }


def _problem(status: int) -> dict[str, Any]:
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase, "content": content}
    if status in (429, 503):
        described["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return described
