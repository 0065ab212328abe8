"""Whether the service lives, and whether it can answer."""

from typing import Any

from fastapi import FastAPI, Request

from services.http.bodies import Health
from services.http.problems import problem, request_id_of
from services.http.service import Service


def add(routes: FastAPI, service: Service) -> None:
    @routes.get("/livez", tags=["health"])
    async def livez() -> Health:
        """Alive: the routes answer."""
        return Health(status="alive")

    @routes.get("/readyz", tags=["health"], responses={503: {"description": "Not yet"}}, response_model=Health)
    async def readyz(request: Request) -> Any:
        """Ready: an engine holds a checkpoint."""
        cards = await service.registry.cards()
        if not cards:
            detail = "the store holds no checkpoint yet"
        elif not await service.is_engine_up():
            detail = "the engine is starting"
        else:
            return Health(status="ready", checkpoints=len(cards))
        return problem(request.url.path, 503, detail, request_id=request_id_of(request))
