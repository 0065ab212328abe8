"""The routes, with real registry and evaluation jobs; only the engine's answers are made up."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from cluster.verifiers import VerifierWorker
from envs import make
from services.config import LimitsConfig
from services.engines.replica import Head
from services.evaluations.jobs import Evaluations
from services.evaluations.journal import Journal
from services.http.problems import EngineDown
from services.http.service import OVERTIME_S
from services.http.tokens import Tokens, ensure_token
from services.http.web import web
from services.registry import Registry
from services.runs.runs import Runs
from tests.services.runs.stand_in import StandInCluster

LIMITS = LimitsConfig(max_tokens=64, choices=2, deadline_s=0.2)


class LocalService:
    """What the routes stand on, with an engine that repeats what it was asked."""

    def __init__(self, store: Path, jobs: Evaluations):
        self.registry = Registry(str(store))
        self.evaluations = jobs
        self.runs = Runs(str(store), StandInCluster())
        self.is_up = True
        self.failure: Exception | None = None
        self.closed = 0

    async def complete(self, route, body, _checkpoint, _deadline_s) -> AsyncGenerator[Head | str, None]:
        try:
            if self.failure and not body.get("stream"):
                raise self.failure
            if not body.get("stream"):
                yield Head(status=200, body={"model": body["model"], "route": route})
                return
            yield Head(status=200)
            yield f"data: {json.dumps({'model': body['model']})}\n\n"
            if self.failure:
                raise self.failure
            yield "data: [DONE]\n\n"
        finally:
            self.closed += 1

    async def judge(self, questions):
        return VerifierWorker().judge(questions)

    async def is_engine_up(self) -> bool:
        return self.is_up


@pytest.fixture
async def service(store: Path, player):
    jobs = Evaluations(Journal(store), Registry(str(store)), player)
    await jobs.start()
    yield LocalService(store, jobs)
    await jobs.close()


@pytest.fixture
async def http(service: LocalService, store: Path):
    token = ensure_token(store / "service")
    app = web(service, tokens=Tokens.load(store / "service"), limits=LIMITS)
    headers = {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://viter", headers=headers) as client:
        yield client


async def test_models_are_listed_in_openais_shape(http: httpx.AsyncClient):
    body = (await http.get("/v1/models")).json()
    assert body["object"] == "list"
    assert body["data"][0]["id"] == "nano-a@step-000020"
    assert body["data"][0]["object"] == "model"
    assert body["data"][0]["metadata"]["step"] == 20


async def test_an_alias_answers_with_the_checkpoint_it_means(http: httpx.AsyncClient):
    one = await http.get("/v1/models/nano-a@latest")
    assert one.json()["id"] == "nano-a@step-000020"
    answer = await http.post("/v1/chat/completions", json={"model": "nano-a@latest", "messages": []})
    assert answer.json() == {"model": "nano-a@step-000020", "route": "chat"}
    told = one.json()["metadata"]["digest"]
    digests = {answer.headers["x-checkpoint-digest"], one.headers["x-checkpoint-digest"], told}
    assert len(digests) == 1


async def test_a_stream_carries_the_digest_too(http: httpx.AsyncClient, service: LocalService):
    answer = await http.post("/v1/completions", json={"model": "nano-b@latest", "prompt": "x", "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert len(answer.headers["x-checkpoint-digest"]) == 64
    assert answer.text.splitlines()[0] == 'data: {"model": "nano-b@step-000005"}'
    assert answer.text.rstrip().endswith("[DONE]")
    assert service.closed == 1


async def test_an_unknown_checkpoint_is_404_with_the_three_nearest(http: httpx.AsyncClient):
    answer = await http.post("/v1/chat/completions", json={"model": "nano-a@step-000030", "messages": []})
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == "model"
    assert answer.json()["detail"].count("nano-") == 4


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd@latest", "%2e%2e", "a%00b@latest", "nano-a@..%5cx"])
async def test_hostile_names_are_refused(http: httpx.AsyncClient, name: str):
    assert (await http.get(f"/v1/models/{name}")).status_code in (404, 422)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"max_tokens": 65}, "max_tokens"),
        ({"max_completion_tokens": 10**9}, "max_completion_tokens"),
        ({"n": 3}, "n"),
        ({"prompt": ["a", "b", "c"]}, "prompt"),
        ({"model": 3}, "model"),
    ],
)
async def test_a_request_over_the_limits_is_422_and_names_the_field(http: httpx.AsyncClient, body: dict, field: str):
    answer = await http.post("/v1/completions", json={"model": "nano-a@latest", "prompt": "x"} | body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(field)


async def test_a_list_of_token_ids_is_one_prompt(http: httpx.AsyncClient):
    answer = await http.post("/v1/completions", json={"model": "nano-a@latest", "prompt": [1, 2, 3, 4]})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "failure", [EngineDown("the engine is starting"), ActorDiedError(), ActorUnavailableError("gone", None)]
)
async def test_an_engine_that_fails_is_503_and_says_when_to_come_back(
    failure: Exception, http: httpx.AsyncClient, service: LocalService
):
    service.failure = failure
    answer = await http.post("/v1/completions", json={"model": "nano-a@latest", "prompt": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error"]["type"] == "server_error"


async def test_a_stream_that_fails_says_so_within_itself(http: httpx.AsyncClient, service: LocalService):
    service.failure = EngineDown("the engine died")
    answer = await http.post("/v1/completions", json={"model": "nano-a@latest", "prompt": "x", "stream": True})
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert json.loads(events[1])["error"]["message"] == "the engine died"
    assert events[-1] == "[DONE]"


async def test_our_deadline_holds_whatever_the_headers_say(http: httpx.AsyncClient, service: LocalService, monkeypatch):
    monkeypatch.setattr("services.http.routes.openai.OVERTIME_S", 0.0)
    assert OVERTIME_S > 0

    async def hang(*_):
        await asyncio.sleep(30)
        yield Head(status=200, body={})

    service.complete = hang
    answer = await http.post(
        "/v1/completions",
        json={"model": "nano-a@latest", "prompt": "x"},
        headers={"X-Request-Timeout-Seconds": "0", "X-Request-Disconnect-Disabled": "?1"},
    )
    assert answer.status_code == 504


async def test_an_evaluation_is_a_resource(http: httpx.AsyncClient):
    ordered = await http.post("/v1/evaluations", json={"checkpoint": "nano-a@latest", "n": 4, "viter": 2})
    assert ordered.status_code == 202
    assert "retry-after" in ordered.headers
    where = ordered.headers["location"]
    async with asyncio.timeout(20):
        while (state := (await http.get(where)).json())["status"] != "completed":
            await asyncio.sleep(0.01)
    assert state["model"] == "nano-a@step-000020"
    assert state["counts"] == {"total": 8, "done": 8, "succeeded": 4, "failed": 0}
    assert state["results"][0]["success"]["k"] == 2
    page = (await http.get(f"{where}/items", params={"limit": 3})).json()
    assert (len(page["data"]), page["has_more"]) == (3, True)
    assert page["data"][0]["turns"][0]["feedback"] == "f"
    listed = (await http.get("/v1/evaluations")).json()
    assert [e["id"] for e in listed["data"]] == [state["id"]]
    assert (await http.post(f"{where}/cancel")).json()["status"] == "completed"


@pytest.mark.parametrize(
    ("order", "pointer"),
    [
        ({"n": 0}, "/n"),
        ({"n": 10**6}, "/n"),
        ({"viter": 0}, "/viter"),
        ({"decoding": {"temperature": -1}}, "/decoding/temperature"),
        ({"decoding": {"temprature": 1}}, "/decoding/temprature"),
        ({"suites": ["a", "a"]}, "/"),
        ({"checkpoint": ""}, "/checkpoint"),
        ({"modality": "smell"}, "/modality"),
        ({"options": {"viter": 3}}, "/options"),
        ({"options": [1]}, "/options"),
    ],
)
async def test_a_bad_order_is_422_with_the_field(http: httpx.AsyncClient, order: dict, pointer: str):
    answer = await http.post("/v1/evaluations", json={"checkpoint": "nano-a@latest"} | order)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({"checkpoint": "nano-z@latest"}, 404),
        ({"suites": ["general_points/nowhere"]}, 422),
        ({"environment": "chess"}, 422),
        ({"options": {"target": 25}}, 422),
        ({"options": {"": 1}}, 422),
    ],
)
async def test_what_an_order_names_must_exist(http: httpx.AsyncClient, order: dict, status: int):
    answer = await http.post("/v1/evaluations", json={"checkpoint": "nano-a@latest"} | order)
    assert answer.status_code == status
    assert "error" not in answer.json()


async def test_json_that_is_none_is_400(http: httpx.AsyncClient):
    for path in ("/v1/evaluations", "/v1/completions"):
        answer = await http.post(path, content=b"{", headers={"Content-Type": "application/json"})
        assert answer.status_code == 400


async def test_unknown_evaluations_routes_and_methods_are_problems(http: httpx.AsyncClient):
    for method, path, status in (
        ("GET", "/v1/evaluations/eval-00000000", 404),
        ("GET", "/v1/evaluations/..%2forder", 404),
        ("GET", "/v1/nothing", 404),
        ("DELETE", "/v1/models", 405),
    ):
        answer = await http.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_a_verdict_over_http_is_the_verifiers(http: httpx.AsyncClient):
    game = make("general_points")
    task = game.sample("test", 1)
    order = {"options": {"viter": 5}, "state": {"cards": task.data["cards"]}, "attempts_left": 5}
    right = (await http.post("/v1/verify", json=order | {"answer": game.expert(task, game.start(task))})).json()
    assert (right["status"], right["reward"], right["terminated"]) == ("correct", 5.0, True)
    assert (await http.post("/v1/verify", json=order | {"answer": "__import__('os')"})).json()["reward"] < 0
    assert (await http.post("/v1/verify", json=order | {"answer": "x", "env": "chess"})).status_code == 422


async def test_suites_are_listed_with_digests(http: httpx.AsyncClient):
    suites = (await http.get("/v1/suites")).json()["data"]
    assert {"general_points/id", "general_points/ood-rule"} <= {s["name"] for s in suites if s["is_default"]}
    assert all(len(s["digest"]) == 64 and s["n"] == 1000 for s in suites)


async def test_ready_means_an_engine_and_a_checkpoint(http: httpx.AsyncClient, service: LocalService, tmp_path: Path):
    assert (await http.get("/readyz")).json() == {"status": "ready", "checkpoints": 3}
    service.is_up = False
    assert (await http.get("/readyz")).status_code == 503
    assert (await http.get("/livez")).status_code == 200
    service.registry = Registry(str(tmp_path / "empty"))
    assert "no checkpoint" in (await http.get("/readyz")).json()["detail"]


async def test_the_document_names_every_route_and_its_lock(http: httpx.AsyncClient):
    document = (await http.get("/openapi.json")).json()
    known = {"/v1/models", "/v1/chat/completions", "/v1/evaluations/{evaluation_id}/items", "/livez"}
    assert known <= set(document["paths"])
    assert document["paths"]["/v1/models"]["get"]["security"] == [{"token": []}]
    assert "security" not in document["paths"]["/livez"]["get"]
