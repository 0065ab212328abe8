"""One task played on request, told turn by turn."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from services.config import LimitsConfig
from services.engines.episodes import EpisodeEvent, EpisodeOrder
from services.http.problems import cause_of, of_error, request_id_of
from services.http.sampling import at_most
from services.http.service import DIGEST_HEADER, OVERTIME_S, Service

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {}},
        "description": "Events: `task` (TaskShown), `turn` (TurnTold) for each answer, `end` (EpisodeEnd), or `error`",
    }
}


def add(routes: FastAPI, service: Service, limits: LimitsConfig) -> None:
    @routes.post("/v1/episodes", tags=["environments"], response_class=StreamingResponse, responses=STREAM)
    async def play(request: Request, order: EpisodeOrder) -> StreamingResponse:
        """Play one task with a checkpoint: server-sent events `task`, `turn` for each answer as it is judged, `end`.

        Closing the connection ends the episode. One that runs past the service's deadline ends with an `error`.
        """
        at_most(order.max_tokens, limits.max_tokens, "max_tokens")
        checkpoint = await service.registry.resolve(order.checkpoint)
        events = service.registry.watched(checkpoint, service.episode(order, checkpoint, limits.deadline_s))
        async with asyncio.timeout(limits.deadline_s + OVERTIME_S):
            first = await anext(events)  # what is wrong with the order is raised here, while a status can still tell it
        told = _told(first, events, request, limits.deadline_s + OVERTIME_S)
        headers = {DIGEST_HEADER: checkpoint.digest, "Cache-Control": "no-store"}
        return StreamingResponse(told, headers=headers, media_type="text/event-stream")


async def _told(
    first: EpisodeEvent, rest: AsyncGenerator[EpisodeEvent, None], request: Request, deadline_s: float
) -> AsyncGenerator[str, None]:
    """A stream that has begun: what fails now can only be told within it."""
    try:
        async with asyncio.timeout(deadline_s), aclosing(rest) as events:
            yield _sse(first.event, first.data.model_dump_json())
            async for event in events:
                yield _sse(event.event, event.data.model_dump_json())
    except Exception as error:  # the status line is long gone
        told = of_error(request.url.path, cause_of(error), request_id=request_id_of(request))
        yield _sse("error", json.dumps(json.loads(bytes(told.body))))


def _sse(event: str, data: str) -> str:
    return f"event: {event}\ndata: {data}\n\n"
