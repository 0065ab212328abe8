"""The tasks: environments, deals, pictures, verdicts, and the frozen suites."""

import asyncio
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response

from services.config import LimitsConfig
from services.http import tasks
from services.http.bodies import SuiteList, suite_cards
from services.http.problems import PROBLEM_JSON
from services.http.service import Service
from services.http.tasks import (
    EnvironmentList,
    PictureOrder,
    TaskCard,
    TaskOrder,
    VerdictAnswer,
    VerdictList,
    VerifyOrder,
)

PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "The picture"}}

FAILED: dict[int | str, dict[str, Any]] = {
    502: {
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        "description": "The verifier failed: there is no verdict",
    }
}


def add(routes: FastAPI, service: Service, limits: LimitsConfig) -> None:
    @routes.get("/v1/environments", tags=["environments"])
    async def list_environments() -> EnvironmentList:
        """Every environment, with its options as they are by default, and its suites."""
        async with asyncio.timeout(limits.deadline_s):
            return await asyncio.to_thread(tasks.environments)

    @routes.post("/v1/environments/{name}/tasks", tags=["environments"])
    async def deal(name: str, order: TaskOrder) -> TaskCard:
        """Deal the task of a seed. `data` goes to /v1/episodes, `state` to /v1/verify, the keys of `images` to images."""
        async with asyncio.timeout(limits.deadline_s):
            return await asyncio.to_thread(tasks.dealt, name, order)

    @routes.post("/v1/environments/{name}/images", tags=["environments"], response_class=Response, responses=PNG)
    async def image(name: str, order: PictureOrder) -> Response:
        """A picture that the prompts of a task show, as PNG."""
        async with asyncio.timeout(limits.deadline_s):
            png = await asyncio.to_thread(tasks.picture, name, order)
        return Response(png, media_type="image/png")

    @routes.post("/v1/verify", tags=["environments"], responses=FAILED)
    async def verify(order: VerifyOrder) -> VerdictAnswer | VerdictList:
        """Judge one answer, or with `answers` several at once, each with its verdict or what kept it from one."""
        questions = tasks.questions(order, limits.answers)
        async with asyncio.timeout(limits.deadline_s):
            judged = await service.judge([question for question in questions if not isinstance(question, Exception)])
        return tasks.verdicts(order, questions, judged)

    @routes.get("/v1/suites", tags=["environments"])
    async def list_suites() -> SuiteList:
        """The frozen sets of tasks."""
        return SuiteList(data=await asyncio.to_thread(suite_cards))
