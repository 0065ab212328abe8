"""Evaluations over HTTP: ordered once, listed, followed, looked into and compared."""

import asyncio
import io
import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from sse_starlette import ServerSentEvent

import envs
from envs import suites
from envs.base import DataError
from services.client import Client
from services.evaluations import jobs as jobs_module
from services.evaluations.events import events_in
from services.evaluations.jobs import Evaluations
from services.evaluations.journal import Journal
from services.evaluations.orders import Item, PlayOrder, Position
from services.http import event_stream
from services.http.event_stream import followed
from services.registry import Registry
from tests.services.conftest import Player, commit, solved
from tests.services.http.running import Running, running
from tests.services.http.test_web import http, service  # noqa: F401  (fixtures)

ORDER = {"checkpoint": "nano-a@latest", "n": 4, "viter": 2, "suites": ["general_points/id"]}


async def ended(http: httpx.AsyncClient, where: str) -> dict:  # noqa: F811
    async with asyncio.timeout(20):
        while (state := (await http.get(where)).json())["status"] not in ("completed", "failed", "canceled"):
            await asyncio.sleep(0.01)
    return state


async def test_an_order_says_how_answers_are_drawn(http: httpx.AsyncClient):  # noqa: F811
    decoding = {"temperature": 0.0, "max_tokens": 32, "seed": 7}
    made = (await http.post("/v1/evaluations", json={**ORDER, "decoding": decoding})).json()
    assert made["order"]["decoding"] == decoding
    assert made["ordered_by"] == "client"


async def test_the_key_means_the_same_in_the_header_and_in_the_body(http: httpx.AsyncClient):  # noqa: F811
    header = {"Idempotency-Key": "once"}
    first = await http.post("/v1/evaluations", json=ORDER, headers=header)
    second = await http.post("/v1/evaluations", json={**ORDER, "idempotency": "once"})
    both = await http.post("/v1/evaluations", json={**ORDER, "idempotency": "once"}, headers=header)
    assert {answer.json()["id"] for answer in (first, second, both)} == {first.json()["id"]}
    assert {answer.status_code for answer in (first, second, both)} == {202}
    twice = await http.post("/v1/evaluations", json={**ORDER, "idempotency": "other"}, headers=header)
    assert twice.status_code == 422
    other = await http.post("/v1/evaluations", json={**ORDER, "n": 5}, headers=header)
    assert (other.status_code, first.json()["id"] in other.json()["detail"]) == (422, True)


async def test_a_hundred_orders_with_one_key_are_one_evaluation(http: httpx.AsyncClient, service):  # noqa: F811
    async def ask() -> httpx.Response:
        while (answer := await http.post("/v1/evaluations", json={**ORDER, "idempotency": "k"})).status_code == 429:
            await asyncio.sleep(0.01)
        return answer

    answers = await asyncio.gather(*(ask() for _ in range(100)))
    assert {answer.status_code for answer in answers} == {202}
    (one,) = {answer.json()["id"] for answer in answers}
    await ended(http, f"/v1/evaluations/{one}")
    assert [each["id"] for each in (await http.get("/v1/evaluations")).json()["data"]] == [one]
    assert (await service.evaluations.get(one)).counts.done == 4


async def test_a_list_can_be_narrowed_turned_and_paged(http: httpx.AsyncClient):  # noqa: F811
    ids = {}
    for name in ("nano-a@step-000010", "nano-a@step-000020", "nano-b@latest"):
        ids[name] = (await http.post("/v1/evaluations", json={**ORDER, "checkpoint": name})).json()["id"]
        await ended(http, f"/v1/evaluations/{ids[name]}")
    a10, a20, b = ids.values()

    async def listed(**query: str) -> list[str]:
        return [each["id"] for each in (await http.get("/v1/evaluations", params=query)).json()["data"]]

    assert await listed() == [b, a20, a10]
    assert await listed(order="asc") == [a10, a20, b]
    assert await listed(run="nano-a") == [a20, a10]
    assert await listed(checkpoint="nano-a@step-000010") == [a10]
    assert await listed(status="completed", run="nano-b") == [b]
    assert await listed(status="queued") == []
    page = (await http.get("/v1/evaluations", params={"limit": 2})).json()
    assert (page["has_more"], page["last_id"]) == (True, a20)
    assert await listed(after=a20) == [a10]
    assert await listed(after=a20, run="nano-b", order="asc") == [b]
    assert (await http.get("/v1/evaluations", params={"after": "eval-00000000"})).status_code == 404
    assert (await http.get("/v1/evaluations", params={"sort": "up"})).status_code == 422


async def test_a_run_by_its_name_means_all_its_stages(http: httpx.AsyncClient, store: Path):  # noqa: F811
    commit(store, "gp-ppo", 3)
    made = (await http.post("/v1/evaluations", json={**ORDER, "checkpoint": "gp-ppo@step-000003"})).json()
    for run, count in (("gp", 1), ("gp-ppo", 1), ("g", 0), ("gp-sft", 0)):
        listed = (await http.get("/v1/evaluations", params={"run": run})).json()["data"]
        assert [each["id"] for each in listed] == [made["id"]] * count


def seeing(order: PlayOrder, index: int) -> Item:
    """An item of a suite with pictures, with the key its environment names."""
    task = suites.load(order.suite, order.order.n).tasks[index]
    environment = envs.make(task.environment, **task.options)
    images = list(environment.prompt(task, environment.start(task))[-1].images)
    known = {"options": dict(task.options), "data": dict(task.data), "positions": [Position(images=images)]}
    return solved(order, index).model_copy(update=known)


async def test_an_item_can_be_looked_into_with_its_pictures(http: httpx.AsyncClient, player: Player):  # noqa: F811
    player.item = seeing
    where = (await http.post("/v1/evaluations", json={**ORDER, "suites": ["general_points/vision-id"]})).headers[
        "location"
    ]
    await ended(http, where)
    item = (await http.get(f"{where}/items/general_points/vision-id/2")).json()
    assert item["id"] == "general_points/vision-id/000002"
    (key,) = item["positions"][0]["images"]
    answer = await http.get(f"{where}/items/general_points/vision-id/2/images/{key}")
    assert answer.headers["content-type"] == "image/png"
    drawn = envs.make("general_points", **item["options"]).image(key)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), drawn)
    for missing in (f"2/images/{key}x", "2/images/..%2f..%2fetc%2fpasswd", "4", "4/images/x"):
        answer = await http.get(f"{where}/items/general_points/vision-id/{missing}")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_two_evaluations_are_compared(http: httpx.AsyncClient):  # noqa: F811
    places = [(await http.post("/v1/evaluations", json=ORDER)).headers["location"] for _ in range(2)]
    one, two = [(await ended(http, where))["id"] for where in places]
    found = (await http.get(f"/v1/evaluations/{one}/compare/{two}")).json()
    (suite,) = found["suites"]
    assert (suite["success"]["won"], suite["success"]["p_value"], suite["won"]) == (0, 1.0, [])
    assert suite["in_words"].endswith("within chance")
    assert (await http.get(f"/v1/evaluations/{one}/compare/eval-00000000")).status_code == 404


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = tmp_path_factory.mktemp("store")
    commit(store, "nano-a", 10)
    with running(store) as made:
        yield made


def test_events_tell_every_item_once_and_end_with_the_results(api: Running):
    with httpx.Client(base_url=api.url, headers=api.headers, timeout=20) as client:
        where = client.post("/v1/evaluations", json={**ORDER, "n": 30}).headers["location"]
        with client.stream("GET", f"{where}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            whole = list(events_in(stream.iter_lines()))
        final = client.get(where).json()
        items = [event.data for event in whole if event.event == "item"]
        assert len({item["id"] for item in items}) == len(items) == 30
        assert items[0].keys() == {"id", "success", "attempts", "error"}
        assert (whole[-1].id, whole[-1].event, whole[-1].data) == ("end", "end", final)
        assert final["results"][0]["success"]["k"] == sum(item["success"] for item in items)
        assert {event.event for event in whole} <= {"state", "item", "progress", "end"}

        for cut in whole[:-1]:
            with client.stream("GET", f"{where}/events", headers={"Last-Event-ID": cut.id}) as stream:
                rest = [event.data for event in events_in(stream.iter_lines()) if event.event == "item"]
            assert rest == items[int(cut.id) :]
        assert client.get(f"{where}/events", headers={"Last-Event-ID": "end"}).status_code == 204


class Cut(httpx.BaseTransport):
    """A network that breaks every stream after its first few lines."""

    def __init__(self) -> None:
        self._inner = httpx.HTTPTransport()
        self.cuts = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._inner.handle_request(request)

        def torn() -> Iterator[bytes]:
            seen = b""
            for chunk in answer.iter_raw():
                seen += chunk
                yield chunk
                if seen.count(b"event: item") >= 7:
                    self.cuts += 1
                    raise httpx.ReadError("the connection was reset")

        return httpx.Response(answer.status_code, headers=answer.headers, stream=_Stream(torn()))


class _Stream(httpx.SyncByteStream):
    def __init__(self, chunks: Iterator[bytes]):
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks


def test_the_client_follows_over_broken_connections_and_hears_each_item_once(api: Running, monkeypatch):
    monkeypatch.setattr("services.client.FIRST_POLL_S", 0.01)
    with Client(api.url, api.token) as client:
        network = Cut()
        client._http._transport = network
        made = client.evaluate("nano-a@latest", n=40, viter=2, suites=["general_points/id"])
        events = list(client.events(made.id))
        assert network.cuts >= 5
        items = [event.data["id"] for event in events if event.event == "item"]
        assert len(items) == len(set(items)) == 40
        assert events[-1].data["status"] == "completed"
        assert list(client.events(made.id, last="end")) == []
        with pytest.raises(DataError, match="no evaluation"):
            next(client.events("eval-00000000"))
        assert [each.id for each in client.evaluations(limit=1)] == [made.id]
        assert client.compare(made.id, made.id).suites[0].n == 40


def test_a_stream_that_cannot_be_is_a_problem(api: Running):
    with httpx.Client(base_url=api.url, headers=api.headers, timeout=20) as client:
        assert client.get("/v1/evaluations/eval-00000000/events").status_code == 404
        where = client.post("/v1/evaluations", json=ORDER).headers["location"]
        answer = client.get(f"{where}/events", headers={"Last-Event-ID": "-1"})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


class Moving:
    """The jobs as a gateway sees them whose manager dies and is replaced: calls in between fail."""

    def __init__(self, jobs: Evaluations | None):
        self.jobs = jobs

    async def news(self, *asked):
        if self.jobs is None:
            raise RuntimeError("the actor died")
        return await self.jobs.news(*asked)


async def test_a_listener_does_not_notice_that_the_manager_was_replaced(store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(event_stream, "RETRY_S", 0.01)
    player, reached, never = Player(), asyncio.Event(), asyncio.Event()

    async def stop_at_8(played: int) -> None:
        if played >= 8:
            reached.set()
            await never.wait()

    player.before_batch = stop_at_8
    first = Evaluations(Journal(store), Registry(str(store)), player)
    await first.start()
    order = jobs_module.EvaluationOrder(**{**ORDER, "n": 16})
    made = await first.order(order)
    service = Moving(first)  # noqa: F811
    heard: list[ServerSentEvent] = []

    async def listen() -> None:
        heard.extend([event async for event in followed(service, made.id, seen=0)])

    listening = asyncio.create_task(listen())
    await asyncio.wait_for(reached.wait(), 10)
    service.jobs = None
    await first.close()
    player.before_batch = lambda _: None
    second = Evaluations(Journal(store), Registry(str(store)), player)
    await second.start()
    service.jobs = second
    await asyncio.wait_for(listening, 20)
    await second.close()
    items = [json.loads(event.data)["id"] for event in heard if event.event == "item"]
    assert len(items) == len(set(items)) == 16
    assert [event.event for event in heard][-1] == "end"
    assert [int(event.id) for event in heard if event.event == "item"] == list(range(1, 17))


async def test_a_listener_who_leaves_is_forgotten(store: Path, player: Player):
    never, is_closed = asyncio.Event(), asyncio.Event()

    async def wait(_: int) -> None:
        await never.wait()

    player.before_batch = wait
    jobs = Evaluations(Journal(store), Registry(str(store)), player)
    await jobs.start()
    made = await jobs.order(jobs_module.EvaluationOrder(**ORDER))

    async def body() -> AsyncGenerator[ServerSentEvent, None]:
        try:
            async for event in followed(jobs, made.id, seen=0):
                yield event
        finally:
            is_closed.set()

    events = body()
    assert (await anext(events)).event == "state"
    await events.aclose()
    assert is_closed.is_set()
    assert [task for task in asyncio.all_tasks() if "news" in str(task.get_coro())] == []
    await jobs.close()


async def test_a_comment_keeps_a_quiet_stream_open(service, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    from services.http.routes import evaluations as routes

    monkeypatch.setattr(routes, "KEEP_ALIVE_S", 1)
    assert event_stream.KEEP_ALIVE_S == 15
    never = asyncio.Event()
    service.evaluations._play.before_batch = lambda _: never.wait()
    made = await service.evaluations.order(jobs_module.EvaluationOrder(**ORDER))
    app = routes.FastAPI()
    routes.add(app, service)
    chunks: list[bytes] = []
    gone = asyncio.Event()

    async def receive() -> dict:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        chunks.append(message.get("body", b""))
        if chunks[-1].startswith(b": "):
            gone.set()

    path = f"/v1/evaluations/{made.id}/events"
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }
    async with asyncio.timeout(20):
        await app(scope, receive, send)  # ends, since the client closed
    assert any(chunk.startswith(b": ") for chunk in chunks)
