"""Hostile names and values on every route of the document: no file outside the store is opened, and nothing is a 500."""

import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from services.config import LimitsConfig
from services.evaluations.jobs import Evaluations
from services.evaluations.journal import Journal
from services.http.tokens import Tokens, ensure_token
from services.http.web import web
from services.registry import Registry
from tests.services.conftest import Player, commit
from tests.services.http.test_web import LocalService

NAMES = (
    "../outside/secret", "../../outside/secret", "..", ".", "nano-a/../../outside/secret", "nano-a@../../../outside/secret",
    "..\\outside\\secret", "/etc/passwd", "//etc/passwd", "~root", "$HOME", "file:///etc/passwd", "s3://bucket/x", "C:\\x",
    "link", "link@latest", "link@step-000001", "nano-a@link", "nano-a\x00", "\x00", "a\r\nX-Injected: 1", "%2e%2e%2foutside",
    "．．／outside", "..%c0%af", "\u202enimda", "nano-a@step-" + "9" * 400, "nano-a@step-٣", "x" * 7000, "{{7*7}}",
    "${jndi:ldap://x}", "'; drop table runs; --", "<script>", "__class__", "-rf", " ", "nano-a@", "@latest", "@", "*", "[a-z]*",
    "💥" * 50,
)  # fmt: skip
RAW = ("%ff%fe", "%c0%ae%c0%ae", "..%2f..%2foutside%2fsecret", "%2e%2e/%2e%2e/outside", "%252e%252e%252f", "..;/outside", "%00",
       "%0d%0aX-Injected:1", "a%2Fb")  # fmt: skip
VALUES = (None, True, 0, -1, 2**62, 1.5, 1e308, "", [], {}, [[]], {"": ""}, {"__proto__": 1})


@pytest.fixture(scope="module")
def watched() -> Iterator[list[str]]:
    """What this process opens, lists or makes from here on. An audit hook cannot be removed, so it is told when to stop."""
    seen: list[str] = []
    is_on = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if is_on and event in ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            with contextlib.suppress(TypeError, ValueError):
                seen.append(os.path.realpath(os.fsdecode(arguments[0])))  # type: ignore[arg-type]

    sys.addaudithook(watch)
    yield seen
    is_on = False


@pytest.fixture
async def http(store: Path, tmp_path: Path, player: Player) -> AsyncIterator[httpx.AsyncClient]:
    outside = tmp_path / "outside" / "secret"
    outside.mkdir(parents=True)
    (outside / "manifest.json").write_text("{}")
    (store / "link").symlink_to(outside.parent)
    limits = LimitsConfig(evaluations=1000)
    jobs = Evaluations(Journal(store), Registry(str(store)), player, most_open=limits.evaluations)
    await jobs.start()
    token = ensure_token(store / "service")
    transport = httpx.ASGITransport(
        web(LocalService(store, jobs), tokens=Tokens.load(store / "service"), limits=limits)
    )
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://viter", headers=headers) as client:
        yield client
    await jobs.close()


def strayed(watched: list[str], store: Path, tmp_path: Path) -> set[str]:
    """Paths beside the store, or of the machine's accounts."""
    base, inside = os.path.realpath(tmp_path), os.path.realpath(store)
    return {
        path
        for path in watched
        if (path.startswith(base) and not path.startswith(inside)) or path.startswith(("/etc/passwd", "/root/.ssh"))
    }


def held(answer: httpx.Response) -> None:
    assert answer.status_code < 500, (
        answer.request.method,
        answer.request.url,
        answer.request.content[:200],
        answer.text[:300],
    )
    assert "x-injected" not in answer.headers
    if answer.status_code >= 400 and answer.status_code != 404:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert len(answer.content) < 16384


async def test_a_link_out_of_the_store_is_told_without_the_stores_path(
    http: httpx.AsyncClient, store: Path, tmp_path: Path
):
    commit(tmp_path / "outside", "strayed", 1)
    (store / "strayed").symlink_to(tmp_path / "outside" / "strayed")
    (store / "nano-a" / "aliases").mkdir()
    (store / "nano-a" / "aliases" / "mine").symlink_to("/etc/hostname")
    (store / "nano-a" / "run.json").symlink_to("/etc/hostname")
    asked = [await http.get(f"/v1/models/{name}") for name in ("strayed@latest", "nano-a@mine")]
    asked += [await http.get(f"/v1/runs/{run}{more}") for run in ("strayed", "nano-a") for more in ("", "/events")]
    asked.append(await http.post("/v1/completions", json={"model": "strayed@latest", "prompt": "x"}))
    asked.append(await http.post("/v1/evaluations", json={"checkpoint": "strayed@latest", "n": 1}))
    for answer in asked:
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert "leads out of the store" in answer.json()["detail"]
        assert str(tmp_path) not in answer.text
    (store / "nano-b-sft").mkdir()
    (store / "nano-b-sft" / "metrics.jsonl").write_text('{"step": 1, "time": 1.0, "loss": 1.0}\n')
    assert [run["id"] for run in (await http.get("/v1/runs")).json()["data"]] == ["nano-b"]  # it hides no other


async def operations(http: httpx.AsyncClient) -> list[tuple[str, str, dict[str, object]]]:
    document = (await http.get("/openapi.json")).json()
    return [(m.upper(), path, o) for path, methods in document["paths"].items() for m, o in methods.items()]


async def test_hostile_names_in_paths_and_queries(
    http: httpx.AsyncClient, watched: list[str], store: Path, tmp_path: Path
):
    await http.get("/v1/suites")
    watched.clear()
    for method, path, operation in await operations(http):
        if "{" in path:
            before, _, rest = path.partition("{")
            after = "/".join(part if "{" not in part else "x" for part in rest.partition("}")[2].split("/"))
            for name in (*(quote(name, safe="") for name in NAMES), *RAW):
                held(await http.request(method, f"{before}{name}{after}", json={"checkpoint": "nano-a@latest"}))
        queries = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"]
        for query in queries:
            for name in NAMES[::6]:
                held(await http.get(path.replace("{", "").replace("}", ""), params={query: name}))
    assert strayed(watched, store, tmp_path) == set()


BODIES = {
    "/v1/chat/completions": {"model": "nano-a@latest", "messages": [{"role": "user", "content": "x"}]},
    "/v1/completions": {"model": "nano-a@latest", "prompt": "x"},
    "/v1/evaluations": {"checkpoint": "nano-a@latest", "suites": ["general_points/id"], "n": 1, "environment": "general_points",
                        "options": {}, "modality": "language"},
    "/v1/verify": {"env": "general_points", "options": {}, "state": {"cards": ["C7"]}, "answer": "x"},
}  # fmt: skip


NAMING = ("model", "checkpoint", "environment")  # fields that lead to files


@pytest.mark.parametrize("path", BODIES)
async def test_hostile_values_in_bodies(
    path: str, http: httpx.AsyncClient, watched: list[str], store: Path, tmp_path: Path
):
    good = BODIES[path]
    await http.post(path, json=good)
    watched.clear()
    for field in (*good, "new"):
        for value in (*(NAMES if field in NAMING else ()), *VALUES):
            held(await http.post(path, json=good | {field: value}))
    for whole in (*VALUES, "x"):
        held(await http.post(path, content=json.dumps(whole), headers={"Content-Type": "application/json"}))
    held(await http.post(path, json=good, headers={"Idempotency-Key": "../outside/secret"}))
    assert strayed(watched, store, tmp_path) == set()
    assert not list((tmp_path / "outside").glob("**/*.jsonl"))


async def test_unknown_paths_and_methods_are_problems_too(http: httpx.AsyncClient):
    for method, path, status in (
        ("GET", "/v1/nowhere", 404), ("GET", "/nowhere", 404), ("GET", "/v1/models/", 404), ("TRACE", "/v1/models", 405),
        ("OPTIONS", "/v1/models", 405), ("POST", "/livez", 405),
        ("GET", "/v1/../../etc/passwd", 404), ("GET", "/static/../../etc/passwd", 404), ("GET", "//v1/models", 404),
    ):  # fmt: skip
        answer = await http.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), path
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
