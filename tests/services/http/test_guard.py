"""What a request must pass: against a small ASGI application that says what it was given."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.config import LimitsConfig
from services.http import tokens
from services.http.guard import Guard
from services.http.tokens import Tokens, ensure_token

LIMITS = LimitsConfig(body_bytes=1024, body_s=0.2, requests=2, calls=2, streams=1)
JSON = {"Content-Type": "application/json"}


class Echo:
    """Answers with the size of the body, once `go` is set."""

    def __init__(self) -> None:
        self.calls = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, _scope, receive, send):
        self.calls += 1
        message = await receive()
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(len(message["body"])).encode()})


def client(app: Guard, token: str | None = None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://viter", headers=headers)


@pytest.fixture
def token(tmp_path: Path) -> str:
    made = ensure_token(tmp_path)
    assert made is not None
    return made


@pytest.fixture
def guarded(tmp_path: Path, token: str) -> Guard:
    return Guard(Echo(), tokens=Tokens.load(tmp_path), limits=LIMITS)


async def test_without_a_token_nothing_gets_in(guarded: Guard):
    async with client(guarded) as http:
        for path in (
            "/v1/models",
            "/v1/chat/completions",
            "/v1/nowhere",
            "/v1",
            "//v1/models",
            "/V1/models",
            "/x",
            "/static",
        ):
            answer = await http.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.headers["content-type"] == "application/problem+json"
    assert guarded.app.calls == 0


@pytest.mark.parametrize("value", ["Bearer wrong", "Bearer ", "Basic abc", "viter", "Bearer é"])
async def test_a_wrong_token_is_no_token(guarded: Guard, value: str):
    async with client(guarded) as http:
        answer = await http.get("/v1/models", headers={"Authorization": value.encode()})
    assert answer.status_code == 401


async def test_the_token_opens(guarded: Guard, token: str):
    async with client(guarded, token) as http:
        assert (await http.get("/v1/models")).status_code == 200


async def test_health_needs_no_token(guarded: Guard):
    async with client(guarded) as http:
        assert (await http.get("/livez")).status_code == 200


@pytest.mark.parametrize(
    ("scope", "answers"),
    [("read", [200, 200, 403, 403]), ("evaluate", [200, 200, 200, 403]), ("train", [200, 200, 200, 200])],
)
async def test_a_scope_holds_those_before_it_and_nothing_else(tmp_path: Path, scope: str, answers: list[int]):
    made = tokens.create(tmp_path, "one", scope, None)
    guarded = Guard(Echo(), tokens=Tokens.load(tmp_path), limits=LIMITS)
    async with client(guarded, made) as http:
        asked = [
            await http.get("/v1/evaluations"),
            await http.post("/v1/chat/completions", json={}),
            await http.post("/v1/evaluations", json={}),
            await http.put("/v1/runs/a/aliases/b", json={}),
        ]
    assert [answer.status_code for answer in asked] == answers
    refused = [answer for answer in asked if answer.status_code == 403]
    assert all("insufficient_scope" in answer.headers["www-authenticate"] for answer in refused)


async def test_a_large_body_is_refused_by_its_announcement(guarded: Guard, token: str):
    async with client(guarded, token) as http:
        assert (await http.post("/v1/x", content=b'"' + b"x" * 1022 + b'"', headers=JSON)).text == "1024"
        answer = await http.post("/v1/x", content=b"x" * 1025, headers=JSON)
    assert answer.status_code == 413
    assert guarded.app.calls == 1


async def test_a_large_body_without_announcement_is_read_no_further_than_the_limit(guarded: Guard, token: str):
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 512
            yield b"x" * 512

    async with client(guarded, token) as http:
        answer = await http.post("/v1/x", content=endless(), headers=JSON)
    assert answer.status_code == 413
    assert sent <= 1024 + 512
    assert guarded.app.calls == 0


async def test_a_nonsense_length_is_400(guarded: Guard, token: str):
    async with client(guarded, token) as http:
        answer = await http.post("/v1/x", content=b"x", headers={"Content-Length": "-1"})
    assert answer.status_code == 400


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json", ""])
async def test_a_body_that_is_not_called_json_is_415(guarded: Guard, token: str, kind: str):
    async with client(guarded, token) as http:
        answer = await http.post("/v1/x", content=b"{}", headers={"Content-Type": kind})
        for good in ("application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"):
            assert (await http.post("/v1/x", content=b"{}", headers={"Content-Type": good})).status_code == 200
        assert (await http.post("/v1/x")).status_code == 200
    assert answer.status_code == 415


async def test_a_bad_body_is_400_in_one_sentence_and_reaches_no_route(guarded: Guard, token: str):
    async with client(guarded, token) as http:
        for body in (b"{", b"[NaN]", b"\xff", b'{"a": 1, "a": 2}', b"[" * 900):
            answer = await http.post("/v1/x", content=body, headers=JSON)
            assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
            assert answer.json()["detail"].startswith("the body ")
    assert guarded.app.calls == 0


async def held(guarded: Guard, http: httpx.AsyncClient, *paths: str) -> list[asyncio.Task[httpx.Response]]:
    """Requests that are being answered."""
    before = guarded.app.calls
    waiting = [asyncio.create_task(http.get(path)) for path in paths]
    async with asyncio.timeout(5):
        while guarded.app.calls < before + len(paths):
            await asyncio.sleep(0.001)
    return waiting


async def test_one_more_than_the_limit_is_told_to_come_back(tmp_path: Path):
    """Two tokens fill the places of one kind; the other kinds, and health, stay open."""
    first, second = (tokens.create(tmp_path, name, "read", None) for name in ("a", "b"))
    guarded = Guard(Echo(), tokens=Tokens.load(tmp_path), limits=LIMITS)
    guarded.app.go.clear()
    async with client(guarded, first) as http, client(guarded, second) as other:
        waiting = await held(guarded, http, "/v1/models")
        mine = await http.get("/v1/models")
        waiting += await held(guarded, other, "/v1/models")
        third = await other.get("/v1/suites")
        waiting += await held(guarded, http, "/v1/evaluations/e/events", "/livez")
        waiting.append(asyncio.create_task(http.post("/v1/completions", json={})))
        guarded.app.go.set()
        answers = await asyncio.gather(*waiting)
        assert (await http.get("/v1/models")).status_code == 200
    assert [(refused.status_code, refused.headers["retry-after"]) for refused in (mine, third)] == [(429, "1")] * 2
    assert "this token holds 1 of 2" in mine.json()["detail"]
    assert "2 requests of this kind (calls)" in third.json()["detail"]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert not guarded.places.taken.total()


async def test_without_a_token_there_is_no_websocket_either(guarded: Guard):
    sent = []

    async def send(message):
        sent.append(message)

    await guarded({"type": "websocket", "path": "/v1/models"}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert guarded.app.calls == 0


async def test_every_answer_has_an_id_and_a_sane_one_is_kept(guarded: Guard):
    async with client(guarded) as http:
        kept = await http.get("/livez", headers={"X-Request-Id": "abc-1"})
        made = await http.get("/v1/models", headers={"X-Request-Id": "a b\tc"})
    assert kept.headers["x-request-id"] == "abc-1"
    assert len(made.headers["x-request-id"]) == 32
    assert made.json()["request_id"] == made.headers["x-request-id"]


async def test_an_openai_route_tells_errors_in_openais_words_too(guarded: Guard):
    async with client(guarded) as http:
        answer = await http.post("/v1/chat/completions", json={})
    body = json.loads(answer.text)
    assert body["error"]["type"] == "authentication_error"
    assert body["status"] == body["error"]["code"] == 401


async def test_a_bug_is_a_500_that_names_the_request_and_nothing_else():
    async def broken(_scope, _receive, _send):
        raise RuntimeError("secret detail")

    async with client(Guard(broken, tokens=None, limits=LIMITS)) as http:
        answer = await http.get("http://localhost/v1/models", headers={"X-Request-Id": "r-1"})
    assert answer.status_code == 500
    assert "r-1" in answer.json()["detail"]
    assert "secret" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000"])
async def test_without_tokens_loopbacks_own_names_get_in(host: str):
    async with client(Guard(Echo(), tokens=None, limits=LIMITS)) as http:
        assert (await http.get("/v1/models", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example",
     "192.168.0.7", "0.0.0.0", "[::]", "::1", "localhost:", "localhost:x", "localhost, evil.example", "", " ", "[::1"],
)  # fmt: skip
async def test_without_tokens_a_site_that_was_led_here_gets_nothing(host: str):
    """DNS rebinding: a browser that believes to ask `evil.example` reads no answer, not even of what is open."""
    guard = Guard(Echo(), tokens=None, limits=LIMITS)
    async with client(guard) as http:
        for path in ("/v1/models", "/", "/livez"):
            answer = await http.get(path, headers={"Host": host})
            assert (answer.status_code, answer.headers["content-type"]) == (421, "application/problem+json")
    assert guard.app.calls == 0


async def test_with_tokens_any_name_will_do(guarded: Guard, token: str):
    async with client(guarded, token) as http:
        assert (await http.get("/v1/models", headers={"Host": "service.example"})).status_code == 200
