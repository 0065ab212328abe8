"""The routes: parse, call one method, answer. A plain FastAPI application over a `Service`; knows no Ray."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from envs.base import ConfigError
from envs.verify import LineError, verify_line
from services import problems
from services.bodies import Health, SuiteList, VerdictAnswer, VerifyOrder, suite_cards, within_limits
from services.config import LimitsConfig
from services.guard import Guard, Tokens
from services.orders import Evaluation, EvaluationList, EvaluationOrder, ItemList
from services.problems import cause_of, of_error, problem, request_id_of
from services.registry import ModelCard, ModelList, Registry
from services.replica import Head
from trainers.checkpoints import Checkpoint

DIGEST_HEADER = "X-Checkpoint-Digest"
POLL_AFTER_S = 2
OVERTIME_S = 5.0  # a replica ends its work at the deadline; this much later it is taken for dead

Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str | None, Query(max_length=200)]
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]


class EvaluationJobs(Protocol):
    """What the routes ask of the evaluation manager."""

    async def order(self, order: EvaluationOrder, key: str | None) -> Evaluation: ...

    async def get(self, evaluation_id: str) -> Evaluation: ...

    async def page(self, limit: int, after: str | None) -> EvaluationList: ...

    async def items(self, evaluation_id: str, limit: int, after: str | None) -> ItemList: ...

    async def cancel(self, evaluation_id: str) -> Evaluation: ...


class Service(Protocol):
    """What the routes stand on."""

    @property
    def registry(self) -> Registry: ...

    @property
    def evaluations(self) -> EvaluationJobs: ...

    def complete(
        self, route: str, body: dict[str, Any], checkpoint: Checkpoint, deadline_s: float
    ) -> AsyncGenerator[Head | str, None]:
        """See `EngineReplica.complete`."""

    async def is_engine_up(self) -> bool:
        """Whether a replica holds a checkpoint."""


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
    _add_health(routes, service)
    _add_openai(routes, service, limits)
    _add_evaluations(routes, service)
    _add_verifier(routes)
    return routes


def _describe_security(routes: FastAPI, tokens: Tokens | None) -> None:
    plain = routes.openapi

    def described() -> dict[str, Any]:
        schema = plain()
        if tokens is not None:
            schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in schema["paths"].items():
                for operation in operations.values() if path.startswith("/v1") else ():
                    operation["security"] = [{"token": []}]
        return schema

    routes.openapi = described  # type: ignore[method-assign]


def _add_health(routes: FastAPI, service: Service) -> None:
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


def _add_openai(routes: FastAPI, service: Service, limits: LimitsConfig) -> None:
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

    async def answer(request: Request, body: dict[str, Any], route: str) -> Response:
        model = body.get("model")
        if not isinstance(model, str) or not model:
            detail = "model: name a checkpoint, e.g. run@step-000040 or run@latest; GET /v1/models lists them"
            return problem(request.url.path, 422, detail, request_id=request_id_of(request))
        checkpoint = await service.registry.resolve(model)
        body = within_limits({**body, "model": checkpoint.name}, limits)
        answers = service.complete(route, body, checkpoint, limits.deadline_s)
        async with asyncio.timeout(limits.deadline_s + OVERTIME_S):
            head = await anext(answers)
        assert isinstance(head, Head)
        headers = {DIGEST_HEADER: checkpoint.digest}
        if head.body is not None:
            await answers.aclose()
            return JSONResponse(head.body, head.status, headers)
        events = _events(answers, request, limits.deadline_s + OVERTIME_S)
        return StreamingResponse(events, head.status, headers, media_type="text/event-stream")

    @routes.post("/v1/chat/completions", tags=["openai"], response_model=None)
    async def chat(request: Request, body: dict[str, Any]) -> Response:
        """OpenAI's chat completion, by any checkpoint. `stream: true` sends server-sent events."""
        return await answer(request, body, "chat")

    @routes.post("/v1/completions", tags=["openai"], response_model=None)
    async def completions(request: Request, body: dict[str, Any]) -> Response:
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


def _add_evaluations(routes: FastAPI, service: Service) -> None:
    @routes.post("/v1/evaluations", status_code=202, tags=["evaluations"])
    async def start_evaluation(order: EvaluationOrder, response: Response, key: Key = None) -> Evaluation:
        """Queue an evaluation and poll its `Location`. The same Idempotency-Key gives the same evaluation."""
        evaluation = await service.evaluations.order(order, key)
        response.headers["Location"] = f"/v1/evaluations/{evaluation.id}"
        response.headers["Retry-After"] = str(POLL_AFTER_S)
        response.headers[DIGEST_HEADER] = evaluation.digest
        return evaluation

    @routes.get("/v1/evaluations", tags=["evaluations"])
    async def list_evaluations(limit: Limit = 20, after: After = None) -> EvaluationList:
        """Evaluations, newest first."""
        return await service.evaluations.page(limit, after)

    @routes.get("/v1/evaluations/{evaluation_id}", tags=["evaluations"])
    async def get_evaluation(evaluation_id: str, response: Response) -> Evaluation:
        """Progress, and once it has ended the results."""
        evaluation = await service.evaluations.get(evaluation_id)
        response.headers[DIGEST_HEADER] = evaluation.digest
        if not evaluation.has_ended:
            response.headers["Retry-After"] = str(POLL_AFTER_S)
        return evaluation

    @routes.get("/v1/evaluations/{evaluation_id}/items", tags=["evaluations"])
    async def get_items(evaluation_id: str, limit: Limit = 100, after: After = None) -> ItemList:
        """The played episodes, in the order they finished."""
        return await service.evaluations.items(evaluation_id, limit, after)

    @routes.post("/v1/evaluations/{evaluation_id}/cancel", tags=["evaluations"])
    async def cancel_evaluation(evaluation_id: str) -> Evaluation:
        """Stop it and keep what is finished. One that has ended stays as it is."""
        return await service.evaluations.cancel(evaluation_id)


def _add_verifier(routes: FastAPI) -> None:
    @routes.post("/v1/verify", tags=["environments"])
    async def verify(order: VerifyOrder) -> VerdictAnswer:
        """Judge one answer."""
        try:
            return VerdictAnswer(**verify_line(order.model_dump_json(), 1))
        except LineError as error:
            raise ConfigError(str(error).removeprefix("line 1: ")) from None

    @routes.get("/v1/suites", tags=["environments"])
    async def list_suites() -> SuiteList:
        """The frozen sets of tasks."""
        return SuiteList(data=await asyncio.to_thread(suite_cards))
