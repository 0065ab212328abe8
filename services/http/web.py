"""The service as an ASGI application: every route, guarded. Plain FastAPI over a `Service`; knows no Ray."""

from fastapi import FastAPI

from services.config import LimitsConfig
from services.http import problems
from services.http.description import describe
from services.http.guard import Guard
from services.http.routes import checkpoints, environments, episodes, evaluations, health, openai, page, runs
from services.http.sampling import REFUSED
from services.http.service import Service
from services.http.tokens import Tokens
from services.http.traffic import Telemetry, Traffic


def web(service: Service, *, tokens: Tokens | None, limits: LimitsConfig, traffic: Traffic | None = None) -> FastAPI:
    """The service as an ASGI application, guarded. For `tokens` None see `Guard`; `traffic` hears of each request."""
    routes = FastAPI(
        title="Viter",
        version="1",
        summary="Checkpoints over HTTP, and evaluations of them as jobs.",
        redirect_slashes=False,
        description="OpenAI-compatible routes for every checkpoint of the store. Errors are RFC 9457 problem+json, "
        "except what the HTTP proxy in front says of itself, which is plain text.",
    )
    problems.install(routes, REFUSED)
    routes.add_middleware(Guard, tokens=tokens, limits=limits)
    if traffic is not None:
        routes.add_middleware(Telemetry, traffic=traffic)  # the last one added is outermost
    describe(routes, has_tokens=tokens is not None)
    health.add(routes, service)
    openai.add(routes, service, limits)
    checkpoints.add(routes, service)
    evaluations.add(routes, service)
    runs.add(routes, service)
    environments.add(routes, service, limits)
    episodes.add(routes, service, limits)
    page.add(routes)
    return routes
