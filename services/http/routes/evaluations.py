"""Evaluations as resources."""

from typing import Annotated

from fastapi import FastAPI, Header
from fastapi.responses import Response

from services.evaluations.orders import Evaluation, EvaluationList, EvaluationOrder, ItemList
from services.http.service import DIGEST_HEADER, After, Limit, Service

POLL_AFTER_S = 2
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]


def add(routes: FastAPI, service: Service) -> None:
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
