"""What the service's own Ray promises, and when it takes jobs. Ray is not started."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from services import ingress, own_ray
from services.config import ServiceConfig
from services.port import free_ports


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `ray.init` was told."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(own_ray.ray, "init", lambda address, **options: told.update(options, address=address))
    monkeypatch.setattr(os, "environ", {**os.environ})  # what it sets ends with the test
    return told


def test_a_service_that_trains_has_a_dashboard_for_this_machine_and_room_for_a_run(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(own_ray, "AGENT_PORT", free_ports(1)[0])
    own_ray.begin(ServiceConfig(store=str(tmp_path)), {})
    assert (asked["address"], asked["include_dashboard"], asked["dashboard_host"]) == ("local", True, "127.0.0.1")
    assert asked["num_cpus"] >= 2 + own_ray.OVERSUBSCRIPTION * (os.cpu_count() or 1)


@pytest.mark.parametrize("settings", [{"training": False}, {"jobs": "http://head:8265"}])
def test_one_that_trains_nothing_here_pays_for_no_dashboard(
    settings: dict[str, Any], asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(own_ray, "AGENT_PORT", free_ports(1)[0])
    own_ray.begin(ServiceConfig(store=str(tmp_path), **settings), {})
    assert asked["include_dashboard"] is False
    assert asked["object_store_memory"] == own_ray.SERVING_STORE_BYTES


def test_beside_another_ray_that_takes_jobs_it_serves_and_says_why_it_does_not_train(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(own_ray, "AGENT_PORT", taken.getsockname()[1])
        config = own_ray.begin(ServiceConfig(store=str(tmp_path)), {})
    assert config.training is False  # so that it never takes the other's dashboard for its own
    assert asked["include_dashboard"] is False
    assert "taken by another Ray" in caplog.text


def test_its_way_in_has_ports_of_its_own_and_what_the_environment_says_stays(asked: dict[str, Any], tmp_path: Path):
    os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "0"
    config = ServiceConfig(store=str(tmp_path), training=False)
    own_ray.begin(config, {})
    first = {name: os.environ[name] for name in ingress.PORTS}
    own_ray.begin(config, {})
    assert len({*first.values(), *(os.environ[name] for name in ingress.PORTS)}) == 2 * len(ingress.PORTS)
    assert Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent.stat().st_mode & 0o077 == 0
    assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert os.environ["RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP"] == "0"
