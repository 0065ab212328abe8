"""The service as an ASGI application: every route, guarded. Plain FastAPI over a `Service`; knows no Ray."""

from typing import Any

from fastapi import FastAPI

from services.config import LimitsConfig
from services.http import problems
from services.http.guard import Guard, is_open
from services.http.routes import environments, evaluations, health, openai
from services.http.service import Service
from services.http.tokens import Tokens


def web(service: Service, *, tokens: Tokens | None, limits: LimitsConfig) -> FastAPI:
    """The service as an ASGI application, guarded. `tokens` None lets everybody in."""
    routes = FastAPI(
        title="Viter",
        version="1",
        summary="Checkpoints over HTTP, and evaluations of them as jobs.",
        description="OpenAI-compatible routes for every checkpoint of the store. Errors are RFC 9457 problem+json, "
        "except what the HTTP proxy in front says of itself, which is plain text.",
    )
    problems.install(routes)
    routes.add_middleware(Guard, tokens=tokens, limits=limits)
    _describe_security(routes, tokens)
    health.add(routes, service)
    openai.add(routes, service, limits)
    evaluations.add(routes, service)
    environments.add(routes)
    return routes


def _describe_security(routes: FastAPI, tokens: Tokens | None) -> None:
    plain = routes.openapi

    def described() -> dict[str, Any]:
        schema = plain()
        if tokens is not None:
            schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in schema["paths"].items():
                for operation in () if is_open(path) else operations.values():
                    operation["security"] = [{"token": []}]
        return schema

    routes.openapi = described  # type: ignore[method-assign]
