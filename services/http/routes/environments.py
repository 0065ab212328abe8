"""The tasks: their suites, and their verifiers."""

import asyncio

from fastapi import FastAPI

from envs.base import ConfigError
from envs.verify import LineError, verify_line
from services.http.bodies import SuiteList, VerdictAnswer, VerifyOrder, suite_cards


def add(routes: FastAPI) -> None:
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
