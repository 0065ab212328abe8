"""The checkpoint routes over a real registry and a real store."""

from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from services.config import LimitsConfig
from services.http.tokens import Tokens, ensure_token, needed_scope
from services.http.web import web
from services.registry import Registry
from trainers.checkpoints import CheckpointInfo, Checkpoints


@pytest.fixture
async def http(store: Path):
    token = ensure_token(store / "service")
    service = SimpleNamespace(registry=Registry(str(store)), evaluations=None)
    app = web(service, tokens=Tokens.load(store / "service"), limits=LimitsConfig())
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://v", headers=headers) as client:
        yield client


async def test_the_checkpoints_of_a_run_come_page_by_page_newest_first(http: httpx.AsyncClient):
    page = (await http.get("/v1/runs/nano-a/checkpoints", params={"limit": 1})).json()
    assert [card["id"] for card in page["data"]] == ["nano-a@step-000020"]
    assert (page["object"], page["has_more"]) == ("list", True)
    rest = (await http.get("/v1/runs/nano-a/checkpoints", params={"after": page["last_id"]})).json()
    assert ([card["id"] for card in rest["data"]], rest["has_more"]) == (["nano-a@step-000010"], False)


async def test_an_alias_is_put_followed_and_deleted(http: httpx.AsyncClient):
    path = "/v1/runs/nano-a/aliases/demo"
    put = await http.put(path, json={"checkpoint": "nano-b@latest"})
    assert put.status_code == 200
    assert put.json()["checkpoint"] == "nano-b@step-000005"
    assert put.headers["x-checkpoint-digest"] == put.json()["digest"]
    assert (await http.get("/v1/models/nano-a@demo")).json()["id"] == "nano-b@step-000005"
    assert (await http.delete(path)).json() == {"object": "alias", "id": "nano-a@demo", "deleted": True}
    assert (await http.get("/v1/models/nano-a@demo")).status_code == 404
    assert (await http.delete(path)).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/runs/nano-a/aliases/best", {"checkpoint": "nano-a@latest"}, 409),
        ("/v1/runs/nano-a/aliases/step-000010", {"checkpoint": "nano-a@latest"}, 422),
        ("/v1/runs/nano-a/aliases/Mine", {"checkpoint": "nano-a@latest"}, 422),
        ("/v1/runs/nano-a/aliases/mine", {"checkpoint": "nano-a@step-000011"}, 404),
        ("/v1/runs/nano-a/aliases/mine", {"checkpoint": "nano-a"}, 422),
        ("/v1/runs/nano-a/aliases/mine", {"checkpoint": ""}, 422),
        ("/v1/runs/nano-a/aliases/mine", {"checkpoint": "nano-a@latest", "force": True}, 422),
        ("/v1/runs/nano-z/aliases/mine", {"checkpoint": "nano-a@latest"}, 404),
    ],
)
async def test_a_bad_alias_is_refused_in_one_sentence(http: httpx.AsyncClient, path: str, body: dict, status: int):
    answer = await http.put(path, json=body)
    assert answer.status_code == status
    assert "\n" not in answer.json()["detail"]


async def test_a_checkpoint_whose_metrics_are_not_finite_breaks_no_listing(http: httpx.AsyncClient, store: Path):
    def write(directory: Path) -> None:
        (directory / "model").mkdir()
        (directory / "model" / "model.safetensors").write_text("x")

    Checkpoints(store, "nano-n").commit(1, write, CheckpointInfo(metrics={"loss": float("nan")}))
    cards = (await http.get("/v1/models")).json()["data"]
    assert [card["metadata"]["metrics"] for card in cards if card["id"] == "nano-n@step-000001"] == [{"loss": None}]
    assert len(cards) == 4


def test_naming_checkpoints_needs_the_scope_of_those_who_train():
    assert needed_scope("PUT", "/v1/runs/nano-a/aliases/mine") == "train"
    assert needed_scope("DELETE", "/v1/runs/nano-a/aliases/mine") == "train"
    assert needed_scope("GET", "/v1/runs/nano-a/checkpoints") == "read"
