"""Runs as resources: what trains, what came of it so far, and orders to train."""

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from services.http.service import After, Limit, Service
from services.runs.groups import RunGroup, RunList
from services.runs.orders import RunOrder

POLL_AFTER_S = 5
END_HEADER = "X-Log-End"

Stage = Literal["sft", "sft_branch", "ppo"]


class RowList(BaseModel):
    """Rows of a log, in the order they were written."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    has_more: bool


def add(routes: FastAPI, service: Service) -> None:
    _add_runs(routes, service)
    _add_records(routes, service)


def _add_runs(routes: FastAPI, service: Service) -> None:
    """What is trained: listed, ordered, stopped."""

    @routes.get("/v1/runs", tags=["runs"])
    async def list_runs(limit: Limit = 100, after: After = None) -> RunList:
        """Runs, the one that began last first."""
        return await service.runs.page(limit, after)

    @routes.post("/v1/runs", status_code=202, tags=["runs"])
    async def start_run(order: RunOrder, response: Response) -> RunGroup:
        """Train a run as a Ray job, and poll its `Location`. One that was cut off or stopped goes on; a running one is 409.

        Over HTTP a run names no files of the service's machine but those below its store.
        """
        group = await service.runs.order(order)
        response.headers["Location"] = f"/v1/runs/{group.id}"
        response.headers["Retry-After"] = str(POLL_AFTER_S)
        return group

    @routes.get("/v1/runs/{run}", tags=["runs"])
    async def get_run(run: str) -> RunGroup:
        """How far each stage is, its newest numbers, and its checkpoints."""
        return await service.runs.get(run)

    @routes.post("/v1/runs/{run}/stop", status_code=202, tags=["runs"])
    async def stop_run(run: str) -> RunGroup:
        """Ask a run to end in order: it commits a checkpoint after its present step. Posting it again resumes it."""
        return await service.runs.stop(run)


def _add_records(routes: FastAPI, service: Service) -> None:
    """What a run leaves: numbers, events, its log, its report."""

    @routes.get("/v1/runs/{run}/metrics", tags=["runs"])
    async def get_metrics(run: str, stage: Stage, after_step: int = -1, limit: Limit = 1000) -> RowList:
        """The numbers of a stage, one row a step. Ask again with the last row's step for those since."""
        rows = await service.runs.metrics(run, stage, after_step)
        return RowList(data=rows[:limit], has_more=len(rows) > limit)

    @routes.get("/v1/runs/{run}/events", tags=["runs"])
    async def get_events(run: str, limit: Limit = 1000) -> RowList:
        """The last events of every stage: checkpoints, workers replaced, faults."""
        rows = await service.runs.events(run, limit + 1)
        return RowList(data=rows[-limit:], has_more=len(rows) > limit)

    @routes.get("/v1/runs/{run}/logs", tags=["runs"], response_class=PlainTextResponse)
    async def get_logs(
        run: str,
        offset: Annotated[int | None, Query(ge=0, description="`X-Log-End` of an earlier answer.")] = None,
        tail: Annotated[int | None, Query(ge=1, le=100_000, description="At most this many last lines.")] = None,
    ) -> PlainTextResponse:
        """What the run's job printed: the end of it, or what came after `offset`."""
        text, end = await service.runs.log(run, offset, tail)
        return PlainTextResponse(text, headers={END_HEADER: str(end)})

    @routes.get("/v1/runs/{run}/report", tags=["runs"], responses={200: {"content": {"text/html": {}}}})
    async def get_report(run: str) -> Response:
        """The run's report, one HTML page that needs nothing else."""
        headers = {"Content-Disposition": f'attachment; filename="{run}.html"'}  # never shown on the service's origin
        return Response(await service.runs.report(run), media_type="text/html", headers=headers)
