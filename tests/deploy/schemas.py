"""The schemas of Kubernetes and of KubeRay that are kept in crds/, strict: a field that they do not know is an error."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

CRDS = Path(__file__).with_name("crds")


def check(manifest: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError, or KeyError where the kind is not kept."""
    schema_of(manifest["kind"], manifest["apiVersion"]).validate(manifest)


@cache
def schema_of(kind: str, version: str) -> jsonschema.Draft202012Validator:
    if version == "ray.io/v1":
        return jsonschema.Draft202012Validator(_closed(_read("kuberay-1.7.0")[kind]))
    kept = _read("kubernetes-1.34")
    return jsonschema.Draft202012Validator({**kept["kinds"][kind], "definitions": kept["definitions"]})


def pod_security_of(pod: dict[str, Any]) -> set[str]:
    """What keeps a pod from the `restricted` standard; empty where nothing does."""
    shared = pod.get("securityContext", {})
    wrong = set()
    if "hostNetwork" in pod or any("hostPath" in volume for volume in pod.get("volumes", ())):
        wrong.add("host")
    if shared.get("seccompProfile") != {"type": "RuntimeDefault"}:
        wrong.add("seccomp")
    if shared.get("runAsNonRoot") is not True or not shared.get("runAsUser"):
        wrong.add("root")
    for container in pod["containers"]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            wrong.add("escalation")
        if own.get("capabilities") != {"drop": ["ALL"]}:
            wrong.add("capabilities")
    return wrong


@cache
def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress((CRDS / f"{name}.json.gz").read_bytes()))
    return found


def _closed(schema: Any) -> Any:
    """A CRD's schema as the API server takes it under strict field validation: what is not named is not allowed."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    is_object = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if is_object and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed
