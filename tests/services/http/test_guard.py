"""What a request must pass: against a small ASGI application that says what it was given."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from envs.base import ConfigError, DataError
from services.config import LimitsConfig
from services.http.guard import Guard, TokenRecord, Tokens, ensure_token, needed_scope

LIMITS = LimitsConfig(body_bytes=1024, requests=2)


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


def test_the_token_is_told_once_and_kept_as_a_hash(tmp_path: Path):
    token = ensure_token(tmp_path)
    assert token is not None
    assert ensure_token(tmp_path) is None
    assert token not in (tmp_path / "tokens.json").read_text()
    assert (tmp_path / "token").read_text().strip() == token
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("token", "tokens.json")} == {0o600}


def test_damaged_and_missing_tokens_are_one_sentence(tmp_path: Path):
    with pytest.raises(DataError, match="viter serve"):
        Tokens.load(tmp_path)
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        Tokens.load(tmp_path)


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot keep"):
        ensure_token(tmp_path / "file" / "service")


async def test_without_a_token_nothing_gets_in(guarded: Guard):
    async with client(guarded) as http:
        for path in ("/v1/models", "/v1/chat/completions", "/v1/nowhere", "/v1"):
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


async def test_a_token_without_the_scope_is_403():
    digest = "d" * 64
    reader = TokenRecord(name="reader", sha256=digest, scopes=("read",), created=0.0)
    tokens = Tokens((reader,))
    tokens.find = lambda _: reader  # type: ignore[method-assign]
    async with client(Guard(Echo(), tokens=tokens, limits=LIMITS), "x") as http:
        answer = await http.post("/v1/evaluations", json={})
        assert answer.status_code == 403
        assert "insufficient_scope" in answer.headers["www-authenticate"]
        assert (await http.get("/v1/evaluations")).status_code == 200


def test_only_changing_evaluations_needs_more_than_reading():
    assert needed_scope("GET", "/v1/evaluations") == "read"
    assert needed_scope("POST", "/v1/chat/completions") == "read"
    assert needed_scope("POST", "/v1/evaluations/eval-1/cancel") == "evaluate"


async def test_a_large_body_is_refused_by_its_announcement(guarded: Guard, token: str):
    async with client(guarded, token) as http:
        assert (await http.post("/v1/x", content=b"x" * 1024)).text == "1024"
        answer = await http.post("/v1/x", content=b"x" * 1025)
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
        answer = await http.post("/v1/x", content=endless())
    assert answer.status_code == 413
    assert sent <= 1024 + 512
    assert guarded.app.calls == 0


async def test_a_nonsense_length_is_400(guarded: Guard, token: str):
    async with client(guarded, token) as http:
        answer = await http.post("/v1/x", content=b"x", headers={"Content-Length": "-1"})
    assert answer.status_code == 400


async def test_one_more_than_the_limit_is_told_to_come_back(guarded: Guard, token: str):
    guarded.app.go.clear()
    async with client(guarded, token) as http:
        waiting = [asyncio.create_task(http.get("/v1/models")) for _ in range(2)]
        async with asyncio.timeout(5):
            while guarded.in_progress < 2:
                await asyncio.sleep(0.001)
        refused = await http.get("/v1/models")
        guarded.app.go.set()
        answers = await asyncio.gather(*waiting)
        assert (await http.get("/v1/models")).status_code == 200
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert [answer.status_code for answer in answers] == [200, 200]


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
        answer = await http.get("/v1/models", headers={"X-Request-Id": "r-1"})
    assert answer.status_code == 500
    assert "r-1" in answer.json()["detail"]
    assert "secret" not in answer.text
