"""`viter submit` and `viter stop` through a service: what is sent, what is said, and the exit code."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services import cli, runs_cli
from services.client import ServiceError
from tests.services.http.running import Running, running
from tests.services.runs.stand_in import StandInCluster

NANO = str(Path(__file__).parents[3] / "deploy" / "runs" / "nano-gp-l.yaml")


@pytest.fixture
def cluster() -> StandInCluster:
    return StandInCluster()


@pytest.fixture
def service(tmp_path: Path, cluster: StandInCluster) -> Iterator[Running]:
    with running(tmp_path, cluster=cluster) as service:
        yield service


def viter(*arguments: str, **environment: str | None) -> Result:
    unset = {"RAY_API_SERVER_ADDRESS": None, "VITER_URL": None, "VITER_TOKEN": None}
    return CliRunner().invoke(cli.app, list(arguments), env=unset | environment)


def test_a_run_is_submitted_through_a_service_and_stopped(
    service: Running, cluster: StandInCluster, tmp_path: Path
):
    at = ["--url", service.url, "--store", str(tmp_path)]
    said = viter("submit", NANO, "--set", "ppo.viter=10", "--no-wait", *at)
    assert said.exit_code == 0, said.stderr
    assert f"viter stop nano-gp-l --url {service.url}" in said.stderr
    (config,) = cluster.submitted
    assert (config.name, config.ppo.viter, config.store.uri) == ("nano-gp-l", 10, str(tmp_path))
    again = viter("submit", NANO, *at)
    assert (again.exit_code, "409" in again.stderr) == (1, True)
    assert viter("stop", "nano-gp-l", *at).stdout == "nano-gp-l: stopped\n"


def test_a_service_is_named_in_the_environment_too(service: Running, cluster: StandInCluster):
    said = viter("submit", NANO, "--no-wait", VITER_URL=service.url, VITER_TOKEN=service.token)
    assert said.exit_code == 0, said.stderr
    assert len(cluster.submitted) == 1


@pytest.mark.parametrize("where", [[], ["--url", "http://127.0.0.1:9", "--address", "http://127.0.0.1:9"]])
def test_where_to_is_said_once(where: list[str]):
    for command in (["submit", NANO], ["stop", "gp"]):
        said = viter(*command, *where)
        assert (said.exit_code, "either --address" in said.stderr) == (2, True)


class Ending:
    """A run as a client sees it: pending without a log, then its words, then its end."""

    url = "http://service"

    def __init__(self, words: list[str], status: str):
        self.words, self.status, self.asked = words, status, 0

    def run(self, name: str) -> Any:
        return SimpleNamespace(status="running" if self.words else self.status)

    def run_log(self, name: str, offset: int | None) -> tuple[str, int]:
        self.asked += 1
        if self.asked == 1:
            raise ServiceError("no log yet")
        word = self.words.pop(0) if self.words else ""
        return word, (offset or 0) + len(word)


@pytest.mark.parametrize(
    ("last", "status", "code"),
    [
        (json.dumps({"viter_exit": 5, "error": "diverged"}) + "\n", "failed", 5),
        (json.dumps({"viter_exit": 75, "error": "interrupted"}) + "\n", "stopped", 75),
        (json.dumps({"viter_exit": 0}) + "\n", "finished", 0),
        ("it was killed\n", "failed", 1),
        ("it was killed\n", "interrupted", 75),
    ],
)
def test_following_a_run_ends_with_its_own_exit_code(
    last: str, status: str, code: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runs_cli, "POLL_S", 0)
    heard: list[str] = []
    client: Any = Ending(["step 1\n", last], status)
    assert runs_cli._follow(client, "gp", heard.append) == code
    assert "".join(heard) == "step 1\n" + last
