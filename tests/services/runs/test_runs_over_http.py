"""The routes of runs over the real store, with a cluster that takes jobs and trains none."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from cluster import launch
from services.http.tokens import Tokens, ensure_token
from services.http.web import web
from services.runs.runs import Runs
from tests.services.http.test_web import LIMITS, LocalService
from tests.services.runs.stand_in import StandInCluster, config, logged

RUN = {"name": "gp", "sft": {"steps": 4}}


@pytest.fixture
def cluster() -> StandInCluster:
    return StandInCluster()


@pytest.fixture
async def http(tmp_path: Path, cluster: StandInCluster) -> AsyncIterator[httpx.AsyncClient]:
    token = ensure_token(tmp_path / "service")
    service = LocalService(tmp_path, None)
    service.runs = Runs(str(tmp_path), cluster)
    app = web(service, tokens=Tokens.load(tmp_path / "service"), limits=LIMITS)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://viter", headers=headers
    ) as client:
        yield client
    await service.runs.close()


async def test_a_run_is_ordered_found_and_refused_while_it_goes_on(
    http: httpx.AsyncClient, cluster: StandInCluster, tmp_path: Path
):
    ordered = await http.post("/v1/runs", json={"run": RUN, "set": {"sft.seed": 7}})
    assert (ordered.status_code, ordered.headers["location"]) == (202, "/v1/runs/gp")
    assert cluster.submitted == [config(tmp_path, sft={"steps": 4, "seed": 7})]
    group = (await http.get("/v1/runs/gp")).json()
    assert (group["status"], group["job"]["status"]) == ("running", "pending")
    assert [(stage["id"], stage["step"], stage["steps"]) for stage in group["stages"]] == [("gp-sft", 0, 4)]
    again = await http.post("/v1/runs", json={"run": RUN})
    assert (again.status_code, again.headers["content-type"]) == (409, "application/problem+json")
    listed = (await http.get("/v1/runs")).json()
    assert (listed["object"], listed["first_id"], listed["has_more"]) == ("list", "gp", False)


async def test_a_run_that_ended_is_resumed_by_the_same_order(http: httpx.AsyncClient, cluster: StandInCluster):
    assert (await http.post("/v1/runs", json={"run": RUN})).status_code == 202
    cluster.stop("gp")
    assert (await http.get("/v1/runs/gp")).json()["status"] == "stopped"
    assert (await http.post("/v1/runs", json={"run": RUN})).status_code == 202
    assert len(cluster.submitted) == 2


async def test_a_run_that_somebody_trains_elsewhere_is_409(
    http: httpx.AsyncClient, cluster: StandInCluster, tmp_path: Path
):
    with launch.leased(config(tmp_path), lambda _: None):
        answer = await http.post("/v1/runs", json={"run": RUN})
        assert answer.status_code == 409
        assert "trained by the driver of this run on" in answer.json()["detail"]
        stopped = await http.post("/v1/runs/gp/stop")
        assert (stopped.status_code, "interrupt it there" in stopped.json()["detail"]) == (409, True)
    assert cluster.submitted == []


async def test_two_orders_at_once_give_one_run(http: httpx.AsyncClient, cluster: StandInCluster):
    answers = await asyncio.gather(*(http.post("/v1/runs", json={"run": RUN}) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    assert len(cluster.submitted) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"run": RUN | {"sft": {"stebs": 1}}}, "did you mean 'steps'"),
        ({"file": "nano-gp"}, "nano-gp-l"),
        ({"run": RUN, "set": {"sft.corpus": "/etc/passwd"}}, "below the service's store"),
        ({}, "either"),
    ],
)
async def test_a_wrong_order_is_422_and_names_the_key(http: httpx.AsyncClient, body: dict, words: str):
    answer = await http.post("/v1/runs", json=body)
    assert (answer.status_code, words in answer.json()["detail"]) == (422, True), answer.json()


async def test_live_numbers_are_those_after_a_step(http: httpx.AsyncClient, tmp_path: Path):
    logged(tmp_path, "gp-sft", "sft", 5, tmp_path)
    rows = (await http.get("/v1/runs/gp/metrics", params={"stage": "sft", "after_step": 2})).json()
    assert ([row["step"] for row in rows["data"]], rows["has_more"]) == ([3, 4, 5], False)
    rows = (await http.get("/v1/runs/gp/metrics", params={"stage": "sft", "limit": 2})).json()
    assert ([row["step"] for row in rows["data"]], rows["has_more"]) == ([1, 2], True)
    events = (await http.get("/v1/runs/gp/events")).json()
    assert [(row["kind"], row["stage"]) for row in events["data"]] == [("learner_started", "sft")]
    assert (await http.get("/v1/runs/gp/metrics", params={"stage": "dpo"})).status_code == 422


async def test_a_log_is_read_on_from_where_it_was(http: httpx.AsyncClient, cluster: StandInCluster):
    await http.post("/v1/runs", json={"run": RUN})
    cluster.logs["gp"] = "one\ntwo\n"
    answer = await http.get("/v1/runs/gp/logs")
    assert (answer.text, answer.headers["x-log-end"]) == ("one\ntwo\n", "8")
    cluster.logs["gp"] += "three\n"
    assert (await http.get("/v1/runs/gp/logs", params={"offset": 8})).text == "three\n"
    assert (await http.get("/v1/runs/gp/logs", params={"offset": 999})).text == ""
    assert (await http.get("/v1/runs/gp/logs", params={"tail": 2})).text == "two\nthree\n"
    cluster.logs["gp"] = "x" * (1 << 20)
    answer = await http.get("/v1/runs/gp/logs")
    assert (len(answer.text), answer.headers["x-log-end"]) == (1 << 18, str(1 << 20))


async def test_a_stop_is_answered_before_the_run_has_ended(
    http: httpx.AsyncClient, cluster: StandInCluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("services.runs.runs.STOPPING_S", 0.05)
    await http.post("/v1/runs", json={"run": RUN})
    cluster.may_end.clear()
    assert (await http.post("/v1/runs/gp/stop")).json()["status"] == "running"
    cluster.may_end.set()
    async with asyncio.timeout(20):
        while (await http.get("/v1/runs/gp")).json()["status"] != "stopped":
            await asyncio.sleep(0.01)
    assert (await http.post("/v1/runs/gp/stop")).json()["status"] == "stopped"


async def test_a_report_is_a_file_and_not_a_page_of_this_origin(http: httpx.AsyncClient, tmp_path: Path):
    logged(tmp_path, "gp-sft", "sft", 1, tmp_path)
    assert (await http.get("/v1/runs/gp/report")).status_code == 404
    (tmp_path / "gp").mkdir()
    (tmp_path / "gp" / "report.html").write_text("<p>found")
    answer = await http.get("/v1/runs/gp/report")
    assert (answer.text, answer.headers["content-disposition"]) == ("<p>found", 'attachment; filename="gp.html"')
    assert (await http.get("/v1/runs/gp")).json()["has_report"] is True


async def test_pages_follow_each_other(http: httpx.AsyncClient, tmp_path: Path):
    for name in ("a", "b", "c"):
        logged(tmp_path, f"{name}-ppo", "ppo", 1, tmp_path)
    first = (await http.get("/v1/runs", params={"limit": 2})).json()
    second = (await http.get("/v1/runs", params={"limit": 2, "after": first["last_id"]})).json()
    assert [group["id"] for group in (*first["data"], *second["data"])] == ["c", "b", "a"]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert (await http.get("/v1/runs", params={"after": "z"})).status_code == 404


@pytest.mark.parametrize("name", ["none", "..%2fservice", "%00", "service"])
async def test_what_is_no_run_is_404(http: httpx.AsyncClient, name: str):
    for path in ("", "/metrics?stage=ppo", "/events", "/logs", "/report"):
        assert (await http.get(f"/v1/runs/{name}{path}")).status_code == 404
    assert (await http.post(f"/v1/runs/{name}/stop")).status_code == 404


async def test_a_service_that_trains_nothing_says_so_and_still_lists(tmp_path: Path):
    logged(tmp_path, "gp-sft", "sft", 1, tmp_path)
    service = LocalService(tmp_path, None)
    service.runs = Runs(str(tmp_path), None)
    app = web(service, tokens=None, limits=LIMITS)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        assert len((await http.get("/v1/runs")).json()["data"]) == 1
        for path, body in (("/v1/runs", {"run": RUN}), ("/v1/runs/gp/stop", None)):
            answer = await http.post(path, json=body)
            assert (answer.status_code, "trains nothing" in answer.json()["detail"]) == (409, True)
