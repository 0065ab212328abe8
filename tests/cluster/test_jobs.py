"""Ray Jobs: what travels, what the exit code is, and one job of a real cluster."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml

from cluster import job_outcome, job_shipment, jobs, launch
from cluster.config import RunConfig
from envs.base import ConfigError, ViterError, validated
from services.client import Client, ServiceError
from services.port import free_ports
from services.runs.jobs import RayCluster
from tests.services.http.running import running
from trainers.config import ModelConfig
from trainers.lease import Lease, LeaseHeld

REMOTE = "http://head.example:8265"


def config(uri: str = "s3://bucket/runs", name: str = "a-run") -> RunConfig:
    return validated(RunConfig, {"name": name, "sft": {"steps": 1}, "store": {"uri": uri}}, source="test")


def ended(status: str, *, code: int | None = None, error_type: str | None = None) -> Any:
    return SimpleNamespace(status=SimpleNamespace(value=status), driver_exit_code=code, error_type=error_type)


# ---- exit codes


def test_the_drivers_last_word_counts_before_rays_exit_code():
    log = "step 1\n" + json.dumps({"viter_exit": 5, "error": "the loss is nan"}) + "\ncleaning up\n"
    assert job_outcome.outcome(ended("FAILED", code=1), log) == 5


def test_without_a_last_word_the_process_counts_and_never_as_success():
    assert job_outcome.outcome(ended("FAILED", code=3), "no json here") == 3
    assert job_outcome.outcome(ended("FAILED"), "") == 1
    assert job_outcome.outcome(ended("FAILED", code=0), '{"viter_exit": 0}') == 1


def test_success_is_0_and_a_stop_or_a_failing_cluster_75():
    assert job_outcome.outcome(ended("SUCCEEDED", code=0), "") == 0
    assert job_outcome.outcome(ended("STOPPED", code=0), '{"viter_exit": 75}') == 75
    assert job_outcome.outcome(ended("STOPPED", code=0), "it was killed before it said anything") == 75
    for kind in ("JOB_SUPERVISOR_ACTOR_DIED", "JobErrorType.RUNTIME_ENV_SETUP_FAILURE"):
        assert job_outcome.outcome(ended("FAILED", error_type=kind), "") == 75


def test_hostile_log_lines_are_no_exit_code():
    assert job_outcome.outcome(ended("FAILED", code=4), '[1]\n"text"\n{"viter_exit": "0"}\n{"viter_exit"\n') == 4


# ---- what travels


def test_a_job_carries_code_its_model_and_the_resolved_run_and_no_data(tmp_path: Path):
    asked = config().model_copy(update={"model": ModelConfig(source="deploy/models/nano-gp-base")})
    job_shipment.stage(asked, tmp_path)
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {*job_shipment.SHIPPED, job_shipment.RUN_FILE}
    assert [path.name for path in (tmp_path / "deploy" / "models").iterdir()] == ["nano-gp-base"]
    assert not list(tmp_path.rglob("__pycache__"))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 8 << 20
    assert RunConfig.load(tmp_path / job_shipment.RUN_FILE) == asked


def test_a_job_has_time_to_end_in_order():
    assert int(jobs._environment()["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30


def test_a_store_that_would_be_lost_with_the_job_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match=r"store\.uri: 'runs' is relative"):
        jobs._shared_store(config("runs"), False)
    assert jobs._shared_store(config("/shared/runs"), False).store.uri == "/shared/runs"
    monkeypatch.chdir(tmp_path)
    assert jobs._shared_store(config("runs"), True).store.uri == str(tmp_path / "runs")


# ---- a cluster that knows jobs, without one


class Cluster:
    """A jobs API that remembers what was asked of it."""

    def __init__(self, nodes: tuple[str, ...] = (), **known: str):
        self.nodes, self.known, self.submitted, self.asked = nodes, known, [], 0

    def _do_request(self, method: str, path: str) -> Any:
        assert (method, path) == ("GET", "/nodes?view=hostNameList")
        known, self.asked = (list(self.nodes) if self.asked else []), self.asked + 1  # not at once
        return SimpleNamespace(json=lambda: {"result": True, "data": {"hostNameList": known}})

    def list_jobs(self) -> list[Any]:
        return [
            SimpleNamespace(
                submission_id=name.replace("_", "~"),
                status=SimpleNamespace(value=s, is_terminal=lambda s=s: s != "RUNNING"),
            )
            for name, s in self.known.items()
        ]

    def submit_job(self, **job: Any) -> None:
        self.submitted.append(job)
        shipped = yaml.safe_load((Path(job["runtime_env"]["working_dir"]) / job_shipment.RUN_FILE).read_text())
        assert shipped["name"] == job["metadata"]["run"]


def test_a_run_that_is_going_on_is_not_submitted_again(monkeypatch: pytest.MonkeyPatch):
    cluster = Cluster(**{"a-run": "RUNNING"})
    monkeypatch.setattr(jobs, "_connect", lambda _: cluster)
    with pytest.raises(ConfigError, match="viter stop a-run"):
        jobs.submit(config(), address=REMOTE)
    assert cluster.submitted == []


@pytest.mark.parametrize(
    ("known", "newest"), [({"a-run": "FAILED"}, "a-run~2"), ({"a-run": "FAILED", "a-run_9": "STOPPED"}, "a-run~10")]
)
def test_a_finished_run_is_submitted_again_under_its_name(
    known: dict[str, str], newest: str, monkeypatch: pytest.MonkeyPatch
):
    cluster = Cluster(**known)
    monkeypatch.setattr(jobs, "_connect", lambda _: cluster)
    assert jobs.submit(config(), address=REMOTE).id == newest == cluster.submitted[0]["submission_id"]
    assert cluster.submitted[0]["metadata"] == {
        "run": "a-run",
        "stages": "sft",
        "steps": "1",
        "store": "s3://bucket/runs",
    }


@pytest.mark.parametrize(
    ("address", "nodes", "python"),
    [
        ("http://127.0.0.1:8265", ("viter-runs-head-x7k2p",), "python"),  # a port forwarded to a cluster elsewhere
        ("http://127.0.0.1:8265", (socket.gethostname(), "other"), sys.executable),
        (REMOTE, (socket.gethostname(),), "python"),
    ],
)
def test_a_job_runs_on_this_interpreter_only_where_this_machine_is_a_node(
    address: str, nodes: tuple[str, ...], python: str, monkeypatch: pytest.MonkeyPatch
):
    cluster = Cluster(nodes)
    monkeypatch.setattr(jobs, "_connect", lambda _: cluster)
    monkeypatch.setattr(jobs, "POLL_S", 0)
    jobs.submit(config(), address=address)
    assert cluster.submitted[0]["entrypoint"].startswith(f"{python} -m ")


def test_an_unknown_job_is_told_with_the_known_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "_connect", lambda _: Cluster(other="RUNNING"))
    with pytest.raises(ConfigError, match="it knows other"):
        jobs.find("a-run", address=REMOTE)


def test_a_run_is_found_by_its_name_as_its_newest_job(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "_connect", lambda _: Cluster(**{"a-run": "STOPPED", "a-run_2": "RUNNING"}))
    assert jobs.find("a-run", address=REMOTE).id == "a-run~2"


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "127.0.0.1", "nonsense://x", ""])
def test_an_address_that_leads_nowhere_is_one_sentence(address: str):
    with pytest.raises(ViterError) as told:
        jobs._connect(address)
    assert "\n" not in str(told.value)


def test_the_cluster_that_is_named_goes_before_the_one_this_process_belongs_to(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(ViterError, match=r"http://127\.0\.0\.1:10: no Ray dashboard answers"):
        jobs._connect("http://127.0.0.1:10")
    assert "RAY_API_SERVER_ADDRESS" not in os.environ


# ---- a real cluster


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """A cluster of its own on ports of its own, beside any other on this machine; only its own processes are ended."""
    gcs, port, agent = map(str, free_ports(3))
    with tempfile.TemporaryDirectory(prefix="vj") as scratch:
        head = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--port", gcs, "--num-cpus", "3",
             "--include-dashboard", "true", "--dashboard-port", port, "--dashboard-agent-listen-port", agent,
             "--object-store-memory", str(2**27), "--temp-dir", scratch],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not is_open(int(port)):
            assert time.monotonic() < deadline
            assert head.poll() is None
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
        for process in (*psutil.Process(head.pid).children(recursive=True), head):
            process.kill()  # asked to end in order, Ray takes half a minute for it
        head.wait(60)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_a_failing_run_keeps_its_exit_code_through_ray_jobs(
    dashboard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    wrong = validated(
        RunConfig,
        {"name": "wrong", "model": {"source": "gone@latest"}, "ppo": {"steps": 1}, "store": {"uri": str(tmp_path)}},
        source="test",
    )
    heard: list[str] = []
    assert jobs.follow(jobs.submit(wrong, address=dashboard), heard.append) == 3
    assert any("gone" in line for line in heard)


@pytest.mark.slow
def test_a_run_is_trained_followed_stopped_and_resumed_over_http(
    dashboard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One driver at a time; a stop commits what was learned, and the same order goes on from there."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    run = {
        "name": "long",
        "model": {"dtype": "float32"},
        "sft": {"steps": 100_000, "documents": 8, "checkpoint_every": 100_000},
        "learner": {"row_tokens": 256},
    }
    with running(tmp_path, cluster=RayCluster(dashboard)) as service, Client(service.url, service.token) as client:
        client.submit_run(run)
        with pytest.raises(ServiceError, match=r"long: .*409"):
            client.submit_run(run)
        wait_until(lambda: len(client.run_metrics("long", "sft")) >= 3)
        with pytest.raises(LeaseHeld, match=r"the driver of this run on .* \(process \d+, since 20"):
            Lease.take(tmp_path, launch.lease_path("long"), holder="a second driver")
        client.stop_run("long")
        wait_until(lambda: client.run("long").status != "running")
        group = client.run("long")
        assert (group.status, group.job.status) == ("stopped", "stopped")
        (stage,) = group.stages
        assert stage.checkpoints == [f"long-sft@step-{stage.step:06d}"]
        log, _ = client.run_log("long")
        assert job_outcome.outcome(jobs.listed(dashboard)["long"], log) == 75
        client.submit_run(run, set={"sft.steps": stage.step + 1})
        wait_until(lambda: client.run("long").status == "finished")
        group = client.run("long")
        assert (group.status, group.error) == ("finished", None)
        assert [row["step"] for row in client.run_metrics("long", "sft")] == list(range(1, stage.step + 2))


def wait_until(is_true: Callable[[], bool], within_s: float = 300) -> None:
    deadline = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.5)
