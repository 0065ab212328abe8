"""Environments, tasks, pictures, verdicts and episodes over HTTP; episodes are made up, the verifier is real."""

import asyncio
import io
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import envs
from cluster.verifiers import VerifierWorker
from envs.task import Status, Verdict
from services.config import LimitsConfig
from services.engines.episodes import EpisodeEnd, EpisodeEvent, shown, task_of
from services.http.problems import EngineDown
from services.http.web import web
from services.registry import Registry
from tests.services.sse import events_of

LIMITS = LimitsConfig(max_tokens=64, answers=3)
HAND = {"cards": ["C7", "CK", "C7", "CA"]}
SEEN = {"modality": "vision", "resolution": 64}


class LocalService:
    """What the routes stand on: a verifier here, and episodes that end without a turn."""

    def __init__(self, store: Path):
        self.registry = Registry(str(store))
        self.evaluations = None
        self.asked = 0
        self.is_hanging = False
        self.failure: Exception | None = None
        self.closed = 0

    async def judge(self, questions):
        self.asked += len(questions)
        if self.is_hanging:
            await asyncio.sleep(60)
        return VerifierWorker().judge(questions)

    async def episode(self, order, checkpoint, _deadline_s) -> AsyncGenerator[EpisodeEvent, None]:
        try:
            environment, task = task_of(order, checkpoint)
            yield shown(environment, task, checkpoint)
            if self.failure:
                raise self.failure
            if self.is_hanging:
                await asyncio.sleep(60)
            end = EpisodeEnd(model=checkpoint.name, digest=checkpoint.digest, turns=0, success=False, reward=0.0)
            yield EpisodeEvent("end", end)
        finally:
            self.closed += 1


@pytest.fixture
def service(store: Path) -> LocalService:
    return LocalService(store)


def client(service: LocalService, limits: LimitsConfig) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(web(service, tokens=None, limits=limits))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


@pytest.fixture
async def http(service: LocalService):
    async with client(service, LIMITS) as made:
        yield made


@pytest.fixture
async def hasty(service: LocalService):
    """The same with a deadline that passes at once."""
    async with client(service, LIMITS.model_copy(update={"deadline_s": 0.2})) as made:
        yield made


async def test_environments_say_what_can_be_asked_of_them(http: httpx.AsyncClient):
    listed = (await http.get("/v1/environments")).json()
    cards = {card["name"]: card for card in listed["data"]}
    assert (listed["object"], listed["first_id"], listed["has_more"]) == ("list", "general_points", False)
    assert (cards["general_points"]["tasks_word"], cards["virl"]["tasks_word"]) == ("hands", "routes")
    assert cards["virl"]["headline"] == "per_step_accuracy"
    assert cards["general_points"]["options"]["target"] == 24
    assert "general_points/ood-rule" in cards["general_points"]["suites"]


@pytest.mark.parametrize("name", ["general_points", "virl"])
async def test_a_dealt_task_is_its_seeds_and_can_be_judged(http: httpx.AsyncClient, name: str):
    cards = [(await http.post(f"/v1/environments/{name}/tasks", json={"seed": seed})).json() for seed in (3, 3, 4)]
    assert cards[0] == cards[1] != cards[2]
    card = cards[0]
    environment = envs.make(name, **card["options"])
    task = environment.task_of(card["data"])
    assert environment.prompt(task, environment.start(task))[-1].text == card["prompt"]
    order = {
        "env": name,
        "options": card["options"],
        "state": card["state"],
        "answer": environment.expert(task, environment.start(task)),
    }
    assert (await http.post("/v1/verify", json=order)).json()["status"] == "correct"


async def test_a_picture_is_the_one_that_the_task_shows(http: httpx.AsyncClient):
    card = (await http.post("/v1/environments/virl/tasks", json={"options": SEEN})).json()
    (key,) = card["images"]
    order = {"data": card["data"], "options": SEEN, "key": key}
    answer = await http.post("/v1/environments/virl/images", json=order)
    assert answer.headers["content-type"] == "image/png"
    drawn = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert np.array_equal(drawn, envs.make("virl", **SEEN).image(key))
    foreign = await http.post("/v1/environments/virl/images", json=order | {"key": "gridport:0:1.000000,1.000000@1"})
    assert (foreign.status_code, key in foreign.json()["detail"]) == (422, True)
    blind = await http.post("/v1/environments/general_points/images", json={"data": HAND, "key": "C7-CK-C7-CA"})
    assert "shows none" in blind.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("chess/tasks", {}, "chess"),
        ("general_points/tasks", {"options": {"target": "x"}}, "target"),
        ("general_points/tasks", {"seed": -1}, "seed"),
        ("general_points/tasks", {"deed": 1}, "deed"),
        ("general_points/images", {"data": {"cards": ["C1"]}, "options": SEEN, "key": "x"}, "cards"),
        (
            "virl/images",
            {"data": {"instructions": ["x"], "rail": [["fly()", "", False, 0, 0, [0, 0]]]}, "key": "x"},
            "fly",
        ),
        (
            "virl/images",
            {"data": {"instructions": ["x"], "rail": [["stop()", "", False, 1, 0, [0, 0]]]}, "key": "x"},
            "line 1",
        ),
    ],
)
async def test_what_cannot_be_dealt_or_drawn_is_422_with_the_field(
    http: httpx.AsyncClient, path: str, body: dict, words: str
):
    answer = await http.post(f"/v1/environments/{path}", json=body)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


async def test_several_answers_are_judged_each_in_its_place(http: httpx.AsyncClient, service: LocalService):
    right = {
        "state": HAND,
        "answer": '{"cards": ["7", "K", "7", "A"], "number": [7, 10, 7, 1], "formula": "7+10+7*1=24"}',
    }
    answers = [right, {"state": {"cards": ["C1"]}, "answer": "x"}, {"state": HAND, "answer": "x"}]
    rows = (await http.post("/v1/verify", json={"answers": answers})).json()["data"]
    assert (rows[0]["status"], rows[0]["reward"]) == ("correct", 5.0)
    assert "cards" in rows[1]["error"]
    assert rows[2]["status"] == "illegal_formula"
    assert service.asked == 2


@pytest.mark.parametrize(
    "order",
    [
        {"answers": [{"state": HAND, "answer": "x"}] * 4},
        {"answers": []},
        {"answers": [{"state": HAND}]},
        {"answers": [{"state": HAND, "answer": "x"}], "env": "virl"},
        {"state": HAND},
        {"answer": "x"},
        {},
    ],
)
async def test_too_many_answers_or_none_are_refused(http: httpx.AsyncClient, service: LocalService, order: dict):
    assert (await http.post("/v1/verify", json=order)).status_code == 422
    assert service.asked == 0


async def test_a_verifier_that_fails_is_an_error_and_no_reward(http: httpx.AsyncClient, service: LocalService):
    async def fail(questions):
        return [(Verdict(reward=0.0, status=Status.CRASHED, feedback="it died"), state) for _, state, _ in questions]

    service.judge = fail
    one = await http.post("/v1/verify", json={"state": HAND, "answer": "x"})
    assert (one.status_code, "reward" in one.json()) == (502, False)
    assert "it died" in one.json()["detail"]
    several = await http.post("/v1/verify", json={"answers": [{"state": HAND, "answer": "x"}]})
    assert several.json() == {"data": [{"error": "the verifier failed (crashed): it died"}]}


async def test_a_verifier_that_hangs_runs_into_the_deadline(hasty: httpx.AsyncClient, service: LocalService):
    service.is_hanging = True
    assert (await hasty.post("/v1/verify", json={"state": HAND, "answer": "x"})).status_code == 504


async def test_an_episode_is_a_stream_of_events(http: httpx.AsyncClient):
    order = {"checkpoint": "nano-a@latest", "environment": "general_points", "data": HAND, "viter": 2, "max_tokens": 8}
    answer = await http.post("/v1/episodes", json=order)
    assert answer.headers["content-type"].startswith("text/event-stream")
    (task, shown_as), (end, came) = events_of(answer.text)
    assert (task, end) == ("task", "end")
    assert (shown_as["data"], shown_as["options"]["viter"], shown_as["model"]) == (HAND, 2, "nano-a@step-000020")
    assert answer.headers["x-checkpoint-digest"] == shown_as["digest"] == came["digest"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"checkpoint": "nano-z@latest"}, 404),
        ({"environment": "chess"}, 422),
        ({"data": {"cards": []}}, 422),
        ({"max_tokens": 65}, 422),
        ({"temperature": -1}, 422),
        ({"environment": None}, 422),
    ],
)
async def test_an_episode_that_cannot_begin_has_a_status(http: httpx.AsyncClient, changes: dict, status: int):
    order = {"checkpoint": "nano-a@latest", "environment": "general_points", "max_tokens": 8}
    answer = await http.post("/v1/episodes", json=order | changes)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_an_episode_that_fails_or_hangs_says_so_within_itself(
    hasty: httpx.AsyncClient, service: LocalService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("services.http.routes.episodes.OVERTIME_S", 0.0)
    order = {"checkpoint": "nano-a@latest", "environment": "general_points", "max_tokens": 8}
    service.failure = EngineDown("the engine died")
    (task, _), (error, told) = events_of((await hasty.post("/v1/episodes", json=order)).text)
    assert (task, error, told["status"], told["detail"]) == ("task", "error", 503, "the engine died")
    service.failure, service.is_hanging = None, True
    (_, _), (error, told) = events_of((await hasty.post("/v1/episodes", json=order)).text)
    assert (error, told["status"]) == ("error", 504)
    assert service.closed == 2
