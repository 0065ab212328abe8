"""OpenAI's own client against the routes: its exceptions, and its patience where the service is full."""

import asyncio

import httpx
import pytest
from openai import (
    AsyncOpenAI,
    AuthenticationError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    UnprocessableEntityError,
)

from services.config import LimitsConfig
from services.engines.replica import Head
from services.http.problems import EngineDown
from services.http.tokens import Tokens, ensure_token
from services.http.web import web
from services.registry import Registry

MODEL = "nano-a@latest"


class Gated:
    """What the routes stand on: it answers once `go` is set, or fails."""

    def __init__(self, store):
        self.registry = Registry(str(store))
        self.evaluations = None
        self.go = asyncio.Event()
        self.go.set()
        self.failure: Exception | None = None
        self.asked = 0

    async def complete(self, _route, body, _checkpoint, _deadline_s):
        self.asked += 1
        await self.go.wait()
        if self.failure:
            raise self.failure
        choice = {"index": 0, "text": "x", "finish_reason": "stop", "logprobs": None}
        body = {"id": "c", "object": "text_completion", "created": 0, "model": body["model"], "choices": [choice]}
        yield Head(status=200, body=body)


@pytest.fixture
def service(store) -> Gated:
    return Gated(store)


@pytest.fixture
async def openai(service: Gated, store):
    token = ensure_token(store / "service")
    limits = LimitsConfig(requests=1, max_tokens=64)
    app = web(service, tokens=Tokens.load(store / "service"), limits=limits)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
        yield AsyncOpenAI(base_url="http://viter/v1", api_key=token, http_client=http, max_retries=0)


async def test_where_the_service_is_full_the_client_waits_and_comes_back(openai: AsyncOpenAI, service: Gated):
    service.go.clear()
    first = asyncio.create_task(openai.completions.create(model=MODEL, prompt="x"))
    while service.asked == 0:
        await asyncio.sleep(0.001)
    with pytest.raises(RateLimitError) as full:
        await openai.completions.create(model=MODEL, prompt="x")
    assert int(full.value.response.headers["retry-after"]) >= 1
    patient = asyncio.create_task(openai.with_options(max_retries=2).completions.create(model=MODEL, prompt="x"))
    await asyncio.sleep(0.05)
    assert not patient.done()
    service.go.set()
    assert (await first).model == (await patient).model == "nano-a@step-000020"
    assert service.asked == 2


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        ({"model": "nano-z@latest"}, NotFoundError),
        ({"max_tokens": 65}, UnprocessableEntityError),
        ({"model": ""}, UnprocessableEntityError),
    ],
)
async def test_each_mistake_is_the_clients_own_exception(openai: AsyncOpenAI, ask: dict, error: type[Exception]):
    with pytest.raises(error):
        await openai.completions.create(**{"model": MODEL, "prompt": "x", **ask})


async def test_a_wrong_token_and_a_dead_engine_are_told_apart(openai: AsyncOpenAI, service: Gated):
    with pytest.raises(AuthenticationError):
        await openai.with_options(api_key="wrong").completions.create(model=MODEL, prompt="x")
    service.failure = EngineDown("the engine is starting")
    with pytest.raises(InternalServerError, match="starting") as down:
        await openai.completions.create(model=MODEL, prompt="x")
    assert down.value.status_code == 503
