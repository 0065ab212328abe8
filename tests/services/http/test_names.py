"""Names from the network never leave the store: what Python opens is watched while every route is given bad ones."""

import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from envs.base import DataError
from services.config import LimitsConfig
from services.evaluations.jobs import Evaluations
from services.evaluations.journal import Journal
from services.http.tokens import Tokens, ensure_token
from services.http.web import web
from services.registry import Registry
from tests.services.conftest import commit
from tests.services.http.test_web import LocalService

NAMES = [
    "..", ".", "../", "../outside", "../../../../etc/passwd", "..\\outside", "/etc/passwd", "//etc/passwd", "C:\\x",
    "%2e%2e%2f", "..%2foutside", "%252e%252e%252foutside", "a\0b", "\0", "nano-a\n", "nano-a/../nano-b", "nano-a/", "~",
    "~root", "$HOME", "nano-a;ls", "a" * 300, "../" * 200 + "etc/passwd", "ｎano-a", "nano‐a", "‮nano", "．．", "NANO-A",
    " nano-a", "nano-a ", "-rf", ".tmp-x", "..nano", "nano..a", "linked", "service/token", "file:///etc/passwd",
    "s3://bucket/x", "\ud800", "*", "nano-?", "{}",
]  # fmt: skip
PYTHON = tuple(sysconfig.get_paths().values())
OURS = str(Path(__file__).parents[3])


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """What Python opens or lists from here on, its own modules left out. A hook stays; it is told when to stop."""
    paths: list[str] = []
    is_watching = [True]

    def watch(event: str, arguments: tuple) -> None:
        if is_watching[0] and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | Path):
            path = str(arguments[0])
            if not path.startswith((*PYTHON, f"{OURS}/services", f"{OURS}/trainers")):
                paths.append(path)

    sys.addaudithook(watch)
    yield paths
    is_watching[0] = False


@pytest.fixture
def root(store: Path, tmp_path: Path) -> Path:
    """The store, beside a real checkpoint outside of it, with a run that is a link to it."""
    commit(tmp_path / "outside", "linked", 1)
    (store / "linked").symlink_to(tmp_path / "outside" / "linked")
    (store / "nano-b" / "aliases").symlink_to(tmp_path / "outside")
    return store


@pytest.fixture
async def http(root: Path, player):
    jobs = Evaluations(Journal(root), Registry(str(root)), player)
    token = ensure_token(root / "service")
    app = web(LocalService(root, jobs), tokens=Tokens.load(root / "service"), limits=LimitsConfig())
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://v", headers=headers) as client:
        yield client
    await jobs.close()


def requests(name: str) -> Iterator[tuple[str, str, dict | None]]:
    """Every place where a request may name a run, a checkpoint or an alias."""
    references = (name, f"{name}@latest", f"{name}@step-000001", f"nano-a@{name}")
    for reference in references:
        yield "POST", "/v1/completions", {"model": reference, "prompt": "x"}
        yield "POST", "/v1/evaluations", {"checkpoint": reference, "n": 1}
        yield "PUT", "/v1/runs/nano-a/aliases/mine", {"checkpoint": reference}
    if "\ud800" in name:  # no URL can hold it
        return
    for reference in references:
        yield "GET", f"/v1/models/{encoded(reference)}", None
    run = encoded(name)
    yield "GET", f"/v1/runs/{run}/checkpoints", None
    yield "PUT", f"/v1/runs/{run}/aliases/mine", {"checkpoint": "nano-a@latest"}
    yield "DELETE", f"/v1/runs/{run}/aliases/mine", None
    yield "PUT", f"/v1/runs/nano-a/aliases/{run}", {"checkpoint": "nano-a@latest"}
    yield "DELETE", f"/v1/runs/nano-a/aliases/{run}", None


def encoded(name: str) -> str:
    """As one part of a path, dots too: a client would follow `..` before it asks."""
    return quote(name, safe="").replace(".", "%2E")


def outside(opened: list[str], root: Path) -> list[str]:
    """What lies neither in the store nor beside this test's directory: there the threads of other tests still write."""
    ours = root.parent
    mine = [path for path in map(Path, opened) if not path.is_relative_to(ours.parent) or path.is_relative_to(ours)]
    return [str(path) for path in mine if not path.is_relative_to(root)]


@pytest.mark.parametrize("name", NAMES)
async def test_no_route_opens_a_file_outside_the_store(
    http: httpx.AsyncClient, root: Path, opened: list[str], name: str
):
    answers = {}
    for method, path, body in requests(name):
        if name == "linked" and path.endswith("/linked"):
            continue  # a good name for an alias
        content = json.dumps(body) if body is not None else None
        answers[method, path, content] = (await http.request(method, path, content=content)).status_code
    refusals = (400,) if name == "\ud800" else (404, 422)  # a body that is no Unicode is malformed
    assert {asked: status for asked, status in answers.items() if status not in refusals} == {}
    assert outside(opened, root) == []
    assert not (root / "nano-a" / "aliases").exists() or list((root / "nano-a" / "aliases").iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
async def test_the_registry_opens_nothing_outside_the_store(root: Path, opened: list[str], name: str):
    registry = Registry(str(root))
    for reference in (name, f"{name}@latest", f"{name}@step-000001", f"nano-a@{name}", f"nano-b@{name}"):
        with pytest.raises(DataError):
            await registry.resolve(reference)
    for run, alias in ((name, "mine"), ("nano-a", name), ("nano-b", "mine")):
        if (run, alias) != ("nano-a", "linked"):
            with pytest.raises(DataError):
                await registry.set_alias(run, alias, "nano-a@latest")
            with pytest.raises(DataError):
                await registry.delete_alias(run, alias)
    assert outside(opened, root) == []


async def test_the_watch_sees_what_is_opened(root: Path, tmp_path: Path, opened: list[str]):
    (tmp_path / "seen").write_text("x")
    await Registry(str(root)).resolve("nano-a@latest")
    assert outside(opened, root) == [str(tmp_path / "seen")]
    assert len(opened) > 1
