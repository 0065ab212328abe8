"""What a request leaves behind: its route and not its path, its reason when refused, a line without secrets."""

import asyncio
import json
import logging
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from services.config import LimitsConfig
from services.evaluations.jobs import Evaluations
from services.evaluations.journal import Journal
from services.http.tokens import Tokens, ensure_token
from services.http.traffic import REASONS, Telemetry, Traffic
from services.http.web import web
from services.registry import Registry
from tests.meters import Remembered
from tests.services.http.test_web import LocalService


@pytest.fixture
def meters() -> Remembered:
    return Remembered()


@pytest.fixture
def token(store: Path) -> str:
    made = ensure_token(store / "service")
    assert made is not None
    return made


@pytest.fixture
async def http(store: Path, player, meters: Remembered, token: str):
    jobs = Evaluations(Journal(store), Registry(str(store)), player)
    await jobs.start()
    service = LocalService(store, jobs)
    limits = LimitsConfig(body_bytes=4096)
    app = web(service, tokens=Tokens.load(store / "service"), limits=limits, traffic=Traffic(meters))
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://viter", headers=headers
    ) as client:
        client.service = service  # type: ignore[attr-defined]
        yield client
    await jobs.close()


async def test_requests_are_counted_by_the_template_of_their_route(http: httpx.AsyncClient, meters: Remembered):
    for name in ("nano-a@latest", "nano-b@latest", "nano-a@step-000099"):
        await http.get(f"/v1/models/{name}")
    for path in ("/v1/nowhere", "/v1/nowhere/else"):
        await http.get(path)
    await http.request("PROPFIND", "/v1/models")
    counted = {key[1:]: count for key, count in meters.counted.items() if key[0] == "http_requests_total"}
    assert counted[("/v1/models/{name}", "GET", "200")] == 2
    assert counted[("/v1/models/{name}", "GET", "404")] == 1
    assert counted[("none", "GET", "404")] == 2
    assert counted[("/v1/models", "other", "405")] == 1
    assert len(meters.seen["http_request_seconds", "/v1/models/{name}"]) == 3


async def test_refused_requests_are_counted_by_reason_and_keep_their_route(http: httpx.AsyncClient, meters: Remembered):
    await http.get("/v1/models/nano-a@latest", headers={"Authorization": "Bearer wrong"})
    await http.post("/v1/verify", content=b"[" + b" " * 5000 + b"]", headers={"Content-Type": "application/json"})
    assert meters.counted["http_rejected_total", "token"] == 1
    assert meters.counted["http_rejected_total", "large_body"] == 1
    assert meters.counted["http_requests_total", "/v1/models/{name}", "GET", "401"] == 1
    assert meters.counted["http_requests_total", "/v1/verify", "POST", "413"] == 1
    shown = {key[1] for key in meters.counted if key[0] == "http_rejected_total"}
    assert shown == set(REASONS.values())  # all are there from the start


async def test_a_failure_nobody_foresaw_is_a_500(http: httpx.AsyncClient, meters: Remembered):
    http.service.failure = ZeroDivisionError("a bug")  # type: ignore[attr-defined]
    await http.post("/v1/completions", json={"model": "nano-a@latest", "prompt": "x"})
    assert meters.counted["http_requests_total", "/v1/completions", "POST", "500"] == 1


async def test_a_line_names_the_token_and_the_checkpoint_and_holds_neither_token_nor_prompt(
    http: httpx.AsyncClient, token: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    body = {"model": "nano-a@latest", "prompt": "tell nobody"}
    answer = await http.post("/v1/completions", json=body, headers={"x-request-id": "trace-1"})
    record = next(record for record in caplog.records if record.name == "viter.http")
    assert (record.method, record.endpoint, record.status) == ("POST", "/v1/completions", 200)
    assert (record.request_id, record.token_name) == ("trace-1", "operator")
    assert answer.headers["x-checkpoint-digest"].startswith(record.digest)
    everything = " ".join(json.dumps(vars(record), default=str) for record in caplog.records)
    assert token not in everything
    assert "tell nobody" not in everything


async def test_healthy_probes_are_counted_and_leave_no_line(
    http: httpx.AsyncClient, meters: Remembered, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    await http.get("/livez")
    assert meters.counted["http_requests_total", "/livez", "GET", "200"] == 1
    assert [record for record in caplog.records if record.name == "viter.http"] == []
    http.service.is_up = False  # type: ignore[attr-defined]
    await http.get("/readyz")
    assert [record.status for record in caplog.records if record.name == "viter.http"] == [503]


async def test_the_gauge_shows_who_is_inside(store: Path, meters: Remembered):
    """Two requests wait in a route; one client goes away, the other is answered."""
    go, inside = asyncio.Event(), asyncio.Semaphore(0)
    traffic = Traffic(meters)

    async def app(scope, receive, send) -> None:
        inside.release()
        await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return {"type": "http.request"}

    async def send(_message) -> None: ...

    scopes = [{"type": "http", "method": "GET", "path": "/x", "app": FastAPI(openapi_url=None)} for _ in range(2)]
    guarded = Telemetry(app, traffic=traffic)
    calls = [asyncio.create_task(guarded(scope, receive, send)) for scope in scopes]
    await inside.acquire()
    await inside.acquire()
    traffic.show()
    assert meters.gauges["http_in_progress",] == 2
    calls[0].cancel()
    await asyncio.wait([calls[0]])
    go.set()
    await calls[1]
    traffic.show()
    assert meters.gauges["http_in_progress",] == 0
    assert meters.counted["http_requests_total", "none", "GET", "499"] == 1
    assert meters.counted["http_requests_total", "none", "GET", "200"] == 1
