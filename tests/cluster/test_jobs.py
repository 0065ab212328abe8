"""Ray Jobs: what travels, what the exit code is, and one job of a real cluster."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from cluster import jobs
from cluster.config import RunConfig
from envs.base import ConfigError, ViterError, validated

REMOTE = "http://head.example:8265"


def config(uri: str = "s3://bucket/runs", name: str = "a-run") -> RunConfig:
    return validated(RunConfig, {"name": name, "sft": {"steps": 1}, "store": {"uri": uri}}, source="test")


def ended(status: str, *, code: int | None = None, error_type: str | None = None) -> Any:
    return SimpleNamespace(status=SimpleNamespace(value=status), driver_exit_code=code, error_type=error_type)


# ---- exit codes


def test_the_drivers_last_word_counts_before_rays_exit_code():
    log = "step 1\n" + json.dumps({"viter_exit": 5, "error": "the loss is nan"}) + "\ncleaning up\n"
    assert jobs.outcome(ended("FAILED", code=1), log) == 5


def test_without_a_last_word_the_process_counts_and_never_as_success():
    assert jobs.outcome(ended("FAILED", code=3), "no json here") == 3
    assert jobs.outcome(ended("FAILED"), "") == 1
    assert jobs.outcome(ended("FAILED", code=0), '{"viter_exit": 0}') == 1


def test_success_is_0_and_a_stop_or_a_failing_cluster_75():
    assert jobs.outcome(ended("SUCCEEDED", code=0), "") == 0
    assert jobs.outcome(ended("STOPPED", code=0), '{"viter_exit": 75}') == 75
    assert jobs.outcome(ended("STOPPED", code=0), "it was killed before it said anything") == 75
    for kind in ("JOB_SUPERVISOR_ACTOR_DIED", "JobErrorType.RUNTIME_ENV_SETUP_FAILURE"):
        assert jobs.outcome(ended("FAILED", error_type=kind), "") == 75


def test_hostile_log_lines_are_no_exit_code():
    assert jobs.outcome(ended("FAILED", code=4), '[1]\n"text"\n{"viter_exit": "0"}\n{"viter_exit"\n') == 4


# ---- what travels


def test_a_job_carries_code_models_and_the_resolved_run_and_no_data(tmp_path: Path):
    jobs._stage(config(), tmp_path)
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {*jobs.SHIPPED, jobs.RUN_FILE}
    assert not list(tmp_path.rglob("__pycache__"))
    assert RunConfig.load(tmp_path / jobs.RUN_FILE) == config()


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
        self.nodes, self.known, self.submitted, self.deleted, self.asked = nodes, known, [], [], 0

    def _do_request(self, method: str, path: str) -> Any:
        assert (method, path) == ("GET", "/nodes?view=hostNameList")
        known, self.asked = (list(self.nodes) if self.asked else []), self.asked + 1  # not at once
        return SimpleNamespace(json=lambda: {"result": True, "data": {"hostNameList": known}})

    def list_jobs(self) -> list[Any]:
        return [
            SimpleNamespace(submission_id=name, status=SimpleNamespace(value=s, is_terminal=lambda s=s: s != "RUNNING"))
            for name, s in self.known.items()
        ]

    def delete_job(self, name: str) -> None:
        self.deleted.append(name)

    def submit_job(self, **job: Any) -> None:
        self.submitted.append(job)
        shipped = yaml.safe_load((Path(job["runtime_env"]["working_dir"]) / jobs.RUN_FILE).read_text())
        assert shipped["name"] == job["submission_id"]


def test_a_run_that_is_going_on_is_not_submitted_again(monkeypatch: pytest.MonkeyPatch):
    cluster = Cluster(**{"a-run": "RUNNING"})
    monkeypatch.setattr(jobs, "_connect", lambda _: cluster)
    with pytest.raises(ConfigError, match="viter stop a-run"):
        jobs.submit(config(), address=REMOTE)
    assert cluster.submitted == []


def test_a_finished_run_is_submitted_again_under_its_name(monkeypatch: pytest.MonkeyPatch):
    cluster = Cluster(**{"a-run": "FAILED"})
    monkeypatch.setattr(jobs, "_connect", lambda _: cluster)
    assert jobs.submit(config(), address=REMOTE).id == "a-run"
    assert cluster.deleted == ["a-run"]
    assert cluster.submitted[0]["metadata"] == {"run": "a-run", "stages": "sft", "store": "s3://bucket/runs"}


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


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "127.0.0.1", "nonsense://x", ""])
def test_an_address_that_leads_nowhere_is_one_sentence(address: str):
    with pytest.raises(ViterError) as told:
        jobs._connect(address)
    assert "\n" not in str(told.value)


# ---- a real cluster


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """A cluster of its own on ports of its own, beside any other on this machine; only its own processes are ended."""
    gcs, port, agent = free_ports(3)
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
        head.terminate()
        head.wait(60)


def free_ports(count: int) -> list[str]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [str(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


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
def test_a_stopped_run_ends_in_order_and_can_be_submitted_again(
    dashboard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    long = {"name": "long", "model": {"source": "nano"}, "sft": {"steps": 100_000}, "placement": {"learner_cpus": 900}}
    waits = validated(RunConfig, {**long, "store": {"uri": str(tmp_path)}}, source="test")
    waits = waits.model_copy(update={"placement": waits.placement.model_copy(update={"autoscales": True})})
    job = jobs.submit(waits, address=dashboard)
    deadline = time.monotonic() + 60
    while "waiting" not in job.client.get_job_logs(job.id):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    with pytest.raises(ConfigError, match="another name"):
        jobs.submit(waits, address=dashboard)
    assert "asked to stop" in jobs.stop(job)
    assert jobs.follow(job, lambda _: None) == 75
    assert "interrupted" in job.client.get_job_logs(job.id)
    again = jobs.submit(waits, address=dashboard)
    jobs.stop(again)
