"""deploy/kubernetes as data: what the tests of this folder read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
NOT_APPLIED = {"Kustomization", "PodMonitor"}  # kustomize's own file; a kind of the Prometheus operator


def documents(*names: str) -> list[dict[str, Any]]:
    paths = [KUBERNETES / f"{name}.yaml" for name in names] or sorted(KUBERNETES.glob("*.yaml"))
    return [document for path in paths for document in yaml.safe_load_all(path.read_text())]


def ray(name: str) -> dict[str, Any]:
    """The cluster's specification inside a Ray manifest."""
    (document,) = documents(name)
    spec = document["spec"]
    found: dict[str, Any] = spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec
    return found


def groups(name: str) -> list[dict[str, Any]]:
    return [ray(name)["headGroupSpec"], *ray(name)["workerGroupSpecs"]]


def ray_containers(name: str) -> list[dict[str, Any]]:
    return [group["template"]["spec"]["containers"][0] for group in groups(name)]


def pods(node: Any) -> Iterator[dict[str, Any]]:
    """Every pod's specification, however deep."""
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for value in node.values():
            yield from pods(value)
    elif isinstance(node, list):
        for value in node:
            yield from pods(value)


def named(node: Any, key: str) -> Iterator[Any]:
    """Everything that stands under `key`, however deep."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from named(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from named(value, key)


RAY = ("rayservice", "raycluster", "rayjob")
APPLIED = [document for document in documents() if document["kind"] not in NOT_APPLIED]
PODS = [(document["kind"], pod) for document in APPLIED for pod in pods(document)]
