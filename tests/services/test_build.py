"""The Serve application as it is built, and who may start and stop it. No cluster: what Serve is told is looked at."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray.serve._private.build_app import build_app

from envs.base import ConfigError
from services import app
from services.config import EvaluateNew, ServiceConfig
from services.evaluations.listing import EvaluationQuery
from services.evaluations.orders import Item, PlayOrder
from tests.services.conftest import Player, commit

SERVE_FILE = Path(__file__).parents[2] / "deploy" / "serve.yaml"


def deployments(config: ServiceConfig) -> dict[str, Any]:
    built = build_app(app.build(config), name="viter")
    return {deployment.name: deployment for deployment in built.deployments}


def test_replicas_are_a_number_or_a_range(tmp_path: Path):
    fixed = deployments(ServiceConfig(store=str(tmp_path), replicas=2))["replica"]
    assert fixed.num_replicas == 2
    ranged = deployments(ServiceConfig(store=str(tmp_path), replicas=2, max_replicas=5))["replica"]
    scaling = ranged._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 5)


def test_the_shipped_file_changes_only_deployments_that_there_are(tmp_path: Path):
    (application,) = yaml.safe_load(SERVE_FILE.read_text())["applications"]
    application["args"]["store"] = str(tmp_path)
    built = deployments(ServiceConfig.model_validate(application["args"]))
    assert set(built) == {"replica", "evaluations", "gateway"}
    assert {each["name"] for each in application["deployments"]} <= set(built)


class Cluster:
    """Serve on a cluster that has a service already; it writes down what it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, applications: dict[str, Any]):
        self.told: list[str] = []
        monkeypatch.setattr(app, "_join_ray", lambda config: config)
        monkeypatch.setattr(app.ray, "is_initialized", lambda: True)
        monkeypatch.setattr(app.serve, "status", lambda: SimpleNamespace(applications=applications))
        for name in ("start", "run", "delete", "shutdown"):
            monkeypatch.setattr(app.serve, name, lambda *a, _name=name, **k: self.told.append(_name))
        monkeypatch.setattr(app.port, "wait_until_answered", lambda url, wait_s: None)


def test_a_service_that_runs_already_is_neither_replaced_nor_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    cluster = Cluster(monkeypatch, {"viter": "RUNNING"})
    with pytest.raises(ConfigError, match="runs on this Ray cluster already"):
        app.start(ServiceConfig(store=str(tmp_path), port=18123))
    app.stop()
    assert cluster.told == []


def test_a_run_measures_through_the_service_that_runs_already(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    cluster = Cluster(monkeypatch, {"viter": "RUNNING"})
    options = SimpleNamespace(host="0.0.0.0", port=8000)
    monkeypatch.setattr(app.serve.context, "_get_global_client", lambda: SimpleNamespace(http_config=options))
    started = app.start(ServiceConfig(store=str(tmp_path), port=18123), reuse=True)
    app.stop()
    assert started.url == "http://127.0.0.1:8000"
    assert cluster.told == []


def test_a_service_of_our_own_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    cluster = Cluster(monkeypatch, {})
    assert app.start(ServiceConfig(store=str(tmp_path), port=18123)).url == "http://127.0.0.1:18123"
    assert cluster.told == ["start", "run"]
    app.stop()
    app.stop()
    assert cluster.told == ["start", "run", "delete", "shutdown"]


class Engines:
    """A replica's handle whose items come from a `Player`."""

    def __init__(self) -> None:
        self.play = self
        self.player = Player()

    def options(self, **_: Any) -> "Engines":
        return self

    def remote(self, order: PlayOrder) -> "Answers":
        return Answers(self.player(order))


class Answers:
    """What a streaming handle gives: items, until they end or are cancelled."""

    def __init__(self, items: AsyncGenerator[list[Item], None]):
        self._items = items

    def __aiter__(self) -> AsyncGenerator[list[Item], None]:
        return self._items

    def cancel(self) -> None: ...


class Manager(app.EvaluationManager):
    def __del__(self) -> None: ...  # Serve awaits the other one; nobody does here


async def test_the_manager_measures_new_checkpoints_where_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(app.logs, "join_serve", lambda: None)  # this process keeps its log as it is
    commit(tmp_path, "nano-a", 10)
    config = ServiceConfig(store=str(tmp_path), evaluate_new=EvaluateNew(n=4, viter=2)).anchored()
    manager = Manager.__new__(Manager)
    await manager.__init__(config, Engines(), 0.0)
    async with asyncio.timeout(20):
        while not (found := (await manager.page(EvaluationQuery(status="completed"))).data):
            manager.check_health()
            await asyncio.sleep(0.01)
    await manager.close()
    assert [(each.model, each.ordered_by) for each in found] == [("nano-a@step-000010", "service")]


def test_a_manager_that_is_started_anew_knows_since_when_the_service_runs(tmp_path: Path):
    begun = time.time()
    manager = deployments(ServiceConfig(store=str(tmp_path)))["evaluations"]
    (*_, since) = manager.init_args
    assert begun <= since <= time.time()
