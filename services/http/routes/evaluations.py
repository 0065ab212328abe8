"""Evaluations as resources."""

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Header, Path, Query
from fastapi.responses import Response
from sse_starlette import EventSourceResponse

from services.evaluations.compare import Comparison
from services.evaluations.events import END
from services.evaluations.listing import EvaluationQuery
from services.evaluations.orders import Evaluation, EvaluationList, EvaluationOrder, Item, ItemList, item_id
from services.http.event_stream import KEEP_ALIVE_S, followed
from services.http.problems import IdempotencyConflict
from services.http.service import DIGEST_HEADER, After, Limit, Service
from services.reports.pictures import picture_of

POLL_AFTER_S = 2
PICTURE_AGE_S = 3600  # a picture is a function of its item, which does not change
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]
LastEvent = Annotated[str | None, Header(alias="Last-Event-ID", pattern=rf"^(\d{{1,9}}|{END})$")]
Name = Annotated[str, Path(max_length=200)]
Index = Annotated[int, Path(ge=0, le=999_999)]
PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    204: {"description": "All was told"},
}


def add(routes: FastAPI, service: Service) -> None:
    _add_jobs(routes, service)
    _add_items(routes, service)


def _add_jobs(routes: FastAPI, service: Service) -> None:
    @routes.post("/v1/evaluations", status_code=202, tags=["evaluations"])
    async def start_evaluation(order: EvaluationOrder, response: Response, key: Key = None) -> Evaluation:
        """Queue an evaluation; poll its `Location` or follow its events. The same key gives the same evaluation."""
        if key is not None and order.idempotency not in (None, key):
            raise IdempotencyConflict(
                "the header Idempotency-Key and `idempotency` in the body differ; send one, or both alike"
            )
        keyed = order.model_copy(update={"idempotency": key or order.idempotency})
        evaluation = await service.evaluations.order(keyed)
        response.headers["Location"] = f"/v1/evaluations/{evaluation.id}"
        response.headers["Retry-After"] = str(POLL_AFTER_S)
        response.headers[DIGEST_HEADER] = evaluation.digest
        return evaluation

    @routes.get("/v1/evaluations", tags=["evaluations"])
    async def list_evaluations(query: Annotated[EvaluationQuery, Query()]) -> EvaluationList:
        """Evaluations, newest first."""
        return await service.evaluations.page(query)

    @routes.get("/v1/evaluations/{evaluation_id}", tags=["evaluations"])
    async def get_evaluation(evaluation_id: Name, response: Response) -> Evaluation:
        """Progress, and once it has ended the results."""
        evaluation = await service.evaluations.get(evaluation_id)
        response.headers[DIGEST_HEADER] = evaluation.digest
        if not evaluation.has_ended:
            response.headers["Retry-After"] = str(POLL_AFTER_S)
        return evaluation

    @routes.get(
        "/v1/evaluations/{evaluation_id}/events", tags=["evaluations"], response_class=Response, responses=EVENTS
    )
    async def follow_evaluation(evaluation_id: Name, last: LastEvent = None) -> Response:
        """Server-sent events: `state`, `item`, `progress`, and `end` with the results.

        Send the last id you saw as Last-Event-ID to go on behind it: no event is lost and no item told twice.
        """
        await service.evaluations.get(evaluation_id)  # an unknown one is a 404, not a stream
        if last == END:
            return Response(status_code=204)  # which ends the reconnecting of browsers
        events = followed(service.evaluations, evaluation_id, seen=int(last or 0))
        return EventSourceResponse(events, ping=KEEP_ALIVE_S)

    @routes.get("/v1/evaluations/{evaluation_id}/compare/{other_id}", tags=["evaluations"])
    async def compare_evaluations(evaluation_id: Name, other_id: Name) -> Comparison:
        """The other evaluation against this one on the same tasks, suite by suite: is the difference beyond chance?"""
        return await service.evaluations.compare(evaluation_id, other_id)

    @routes.post("/v1/evaluations/{evaluation_id}/cancel", tags=["evaluations"])
    async def cancel_evaluation(evaluation_id: Name) -> Evaluation:
        """Stop it and keep what is finished. One that has ended stays as it is."""
        return await service.evaluations.cancel(evaluation_id)


def _add_items(routes: FastAPI, service: Service) -> None:
    @routes.get("/v1/evaluations/{evaluation_id}/items", tags=["evaluations"])
    async def get_items(evaluation_id: Name, limit: Limit = 100, after: After = None) -> ItemList:
        """The played episodes, in the order they finished."""
        return await service.evaluations.items(evaluation_id, limit, after)

    @routes.get("/v1/evaluations/{evaluation_id}/items/{environment}/{suite}/{index}", tags=["evaluations"])
    async def get_item(evaluation_id: Name, environment: Name, suite: Name, index: Index) -> Item:
        """One played episode."""
        return await service.evaluations.item(evaluation_id, _item_id(environment, suite, index))

    @routes.get(
        "/v1/evaluations/{evaluation_id}/items/{environment}/{suite}/{index}/images/{key:path}",
        tags=["evaluations"],
        response_class=Response,
        responses=PNG,
    )
    async def get_image(evaluation_id: Name, environment: Name, suite: Name, index: Index, key: str) -> Response:
        """A picture that the episode showed, by its key in the item's positions, as PNG."""
        item = await service.evaluations.item(evaluation_id, _item_id(environment, suite, index))
        png = await asyncio.to_thread(picture_of, item, key)
        return Response(png, media_type="image/png", headers={"Cache-Control": f"private, max-age={PICTURE_AGE_S}"})


def _item_id(environment: str, suite: str, index: int) -> str:
    return item_id(f"{environment}/{suite}", index)
