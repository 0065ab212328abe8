"""OpenAI's routes, for every checkpoint of the store."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from services.config import LimitsConfig
from services.engines.replica import Head
from services.http.problems import cause_of, of_error, request_id_of
from services.http.sampling import ChatRequest, CompletionRequest, SamplingRequest
from services.http.service import DIGEST_HEADER, OVERTIME_S, Service
from services.http.traffic import note_usage
from services.registry import ModelCard, ModelList


def add(routes: FastAPI, service: Service, limits: LimitsConfig) -> None:
    @routes.get("/v1/models", tags=["openai"])
    async def list_models() -> ModelList:
        """Every checkpoint of the store, newest first within its run."""
        return ModelList(data=list(await service.registry.cards()))

    @routes.get("/v1/models/{name}", tags=["openai"])
    async def get_model(name: str, response: Response) -> ModelCard:
        """One checkpoint, by name or alias."""
        card = await service.registry.card(name)
        response.headers[DIGEST_HEADER] = card.metadata.digest
        return card

    async def answer(request: Request, asked: SamplingRequest, route: str) -> Response:
        asked.within(limits)
        checkpoint = await service.registry.resolve(asked.model)
        body = {**asked.asked, "model": checkpoint.name}
        answers = service.registry.watched(checkpoint, service.complete(route, body, checkpoint, limits.deadline_s))
        async with asyncio.timeout(limits.deadline_s + OVERTIME_S):
            head = await anext(answers)
        assert isinstance(head, Head)
        headers = {DIGEST_HEADER: checkpoint.digest}
        if head.body is not None:
            await answers.aclose()
            note_usage(request.scope, head.body)
            return JSONResponse(head.body, head.status, headers)
        events = _events(answers, request, limits.deadline_s + OVERTIME_S)
        return StreamingResponse(events, head.status, headers, media_type="text/event-stream")

    @routes.post("/v1/chat/completions", tags=["openai"], response_model=None)
    async def chat(request: Request, body: ChatRequest) -> Response:
        """OpenAI's chat completion, by any checkpoint. `stream: true` sends server-sent events."""
        return await answer(request, body, "chat")

    @routes.post("/v1/completions", tags=["openai"], response_model=None)
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """OpenAI's text completion, by any checkpoint. `stream: true` sends server-sent events."""
        return await answer(request, body, "completion")


async def _events(
    answers: AsyncGenerator[Head | str, None], request: Request, deadline_s: float
) -> AsyncGenerator[str, None]:
    """A stream that has begun: what fails now can only be told within it."""
    try:
        async with asyncio.timeout(deadline_s), aclosing(answers) as events:
            async for event in events:
                yield str(event)
    except Exception as error:  # the status line is long gone
        told = of_error(request.url.path, cause_of(error), request_id=request_id_of(request))
        yield f"data: {json.dumps(json.loads(bytes(told.body)))}\n\n"
        yield "data: [DONE]\n\n"
