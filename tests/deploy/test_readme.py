"""deploy/README.md names files, commands, pods and services that there are."""

import re
from pathlib import Path

import pytest

from services import cli
from tests.deploy.manifests import APPLIED, DEPLOY, RAY, documents, groups

PAGE = (DEPLOY / "README.md").read_text()


def test_its_paths_exist():
    named = set(
        re.findall(r"(?<![\w/.])((?:deploy|kubernetes|image|runs|requirements)/[\w./-]*\w\.(?:ya?ml|sh|txt))", PAGE)
    )
    named |= set(re.findall(r"(?:-f|-k) (deploy/[\w./-]+)", PAGE))
    assert len(named) > 8
    for path in named:
        assert (DEPLOY / path).exists() or (DEPLOY.parent / path).exists(), path


def test_its_commands_are_commands_of_viter():
    asked = set(re.findall(r"(?:^|[ `/])viter (train|[a-z]+) [\w.-]", PAGE, re.MULTILINE))
    known = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    known |= {group.name for group in cli.app.registered_groups}
    assert {"submit", "eval", "token", "runs"} <= asked & known
    assert asked - known <= {"exec", "get", "logs", "delete", "describe", "port", "wait"}  # of `kubectl -n viter …`


def test_its_services_and_pods_are_those_of_the_manifests():
    ours = {document["metadata"]["name"] for document in APPLIED if document["kind"].startswith("Ray")}
    assert set(re.findall(r"svc/([\w-]+)-(?:head|serve)-svc", PAGE)) <= ours
    assert set(re.findall(r"(?:rayjob|rayservice|job)[/ ](viter[\w-]*)", PAGE)) <= ours
    assert set(re.findall(r"ray\.io/group=(\w+)", PAGE)) <= {g.get("groupName") for name in RAY for g in groups(name)}
    assert set(re.findall(r"-c ([\w-]+) -- ", PAGE)) == {"ray-worker"}
    (kustomization,) = documents("kustomization")
    assert f"$IMAGE:{kustomization['images'][0]['newTag']}" in PAGE


@pytest.mark.parametrize("path", [Path("README.md"), Path("requirements/README.md"), Path("deploy/README.md")])
def test_pages_link_to_what_exists(path: Path):
    root = DEPLOY.parent
    for target in re.findall(r"\]\(((?!http)[^)#]+)", (root / path).read_text()):
        assert (root / path.parent / target).exists(), target
