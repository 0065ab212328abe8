"""What the service's own Ray promises, and that it takes jobs."""

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from services import ingress, own_ray
from services.config import ServiceConfig


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `ray.init` was told."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(own_ray.ray, "init", lambda address, **options: told.update(options, address=address))
    monkeypatch.setattr(os, "environ", {**os.environ})  # what it sets ends with the test
    return told


def test_a_service_that_trains_has_a_dashboard_for_this_machine_and_room_for_a_run(
    asked: dict[str, Any], tmp_path: Path
):
    own_ray.begin(ServiceConfig(store=str(tmp_path)), {})
    assert (asked["address"], asked["include_dashboard"], asked["dashboard_host"]) == ("local", True, "127.0.0.1")
    assert asked["num_cpus"] >= 2 + own_ray.OVERSUBSCRIPTION * (os.cpu_count() or 1)


@pytest.mark.parametrize("settings", [{"training": False}, {"jobs": "http://head:8265"}])
def test_one_that_trains_nothing_here_pays_for_no_dashboard(
    settings: dict[str, Any], asked: dict[str, Any], tmp_path: Path
):
    own_ray.begin(ServiceConfig(store=str(tmp_path), **settings), {})
    assert asked["include_dashboard"] is False
    assert asked["object_store_memory"] == own_ray.SERVING_STORE_BYTES


BESIDE_ANOTHER = """
import sys, time
from ray.job_submission import JobSubmissionClient
from services import own_ray
from services.config import ServiceConfig
from services.runs.jobs import _own_dashboard
own_ray.begin(ServiceConfig(store=sys.argv[1]), {"log_to_driver": False})
client = JobSubmissionClient(_own_dashboard())
job = client.submit_job(entrypoint="echo it ran")
while not client.get_job_status(job).is_terminal():
    time.sleep(0.2)
print(client.get_job_logs(job))
"""


@pytest.mark.slow
def test_beside_another_ray_it_takes_jobs_too(tmp_path: Path):
    """The other one's agent listens on Ray's port for it, which is the same for every Ray."""
    with socket.socket() as taken:
        with suppress(OSError):  # another Ray of this machine has it now
            taken.bind(("", 52365))
            taken.listen()
        command = [sys.executable, "-c", BESIDE_ANOTHER, str(tmp_path)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert "it ran" in ended.stdout, ended.stderr


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
