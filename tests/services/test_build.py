"""The Serve application as it is built, and who may start and stop it. No cluster: what Serve is told is looked at."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray.serve._private.build_app import build_app

from envs.base import ConfigError
from services import app
from services.config import ServiceConfig

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
