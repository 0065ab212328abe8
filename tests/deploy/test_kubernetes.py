"""The manifests of deploy/kubernetes: valid, restricted, probed, and of one version."""

import copy
import importlib.metadata
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from tests.deploy import schemas
from tests.deploy.manifests import APPLIED, PODS, RAY, documents, groups, named, pods, ray, ray_containers

IMAGE = "viter:0.1.0-ray2.60.0"


@pytest.mark.parametrize("manifest", APPLIED, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_a_manifest_has_only_fields_that_kubernetes_and_kuberay_know(manifest: dict[str, Any]):
    schemas.check(manifest)
    assert manifest["metadata"].get("namespace", "viter") == "viter"


def broken_by(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        *way, last = path.split("/")
        for step in way:
            manifest = manifest[int(step) if step.isdigit() else step]
        manifest[last] = value

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rayservice", broken_by("spec/rayClusterConfig/headGroupSpec/template/spec/containers/0/imagee", "x")),
        ("rayservice", broken_by("spec/rayClusterConfig/authOptions/mode", "tokens")),
        ("rayservice", broken_by("spec/rayClusterConfig/workerGroupSpecs/0/template/spec/tolerations/0/kye", "gpu")),
        ("rayservice", broken_by("spec/serveConfigV2", {"applications": []})),
        ("raycluster", broken_by("spec/autoscalerOptions/version", "v3")),
        ("raycluster", broken_by("spec/headGroupSpec/rayStartParams/num-cpus", 0)),
        (
            "raycluster",
            broken_by("spec/workerGroupSpecs/0/template/spec/containers/0/resources/limits/memory", "400GB"),
        ),
        ("rayjob", broken_by("spec/rayClusterSpecs", {})),
        ("rayjob", broken_by("spec/backoffLimit", "3")),
        ("storage", broken_by("spec/modes", [])),
        ("ingress", broken_by("spec/rules/0/http/paths/0/backend/service/port/numbre", 8000)),
        ("disruption", broken_by("spec/minAvailble", 1)),
    ],
)
def test_a_broken_manifest_is_refused(name: str, change: Callable[[dict[str, Any]], None]):
    (manifest,) = copy.deepcopy(documents(name))
    schemas.check(manifest)
    change(manifest)
    with pytest.raises(jsonschema.ValidationError):
        schemas.check(manifest)


@pytest.mark.parametrize("name", RAY)
def test_a_cluster_has_our_ray_a_token_and_an_idle_head(name: str):
    version = importlib.metadata.version("ray")
    assert ray(name)["rayVersion"] == version
    assert ray(name)["authOptions"] == {"mode": "token", "secretName": "viter-ray-token"}
    assert ray(name)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    images = {container["image"] for pod in pods(documents(name)) for container in pod["containers"]}
    assert images == {IMAGE}
    assert f"viter:{importlib.metadata.version('viter')}-ray{version}" == IMAGE
    (kustomization,) = documents("kustomization")
    assert [(i["name"], i["newTag"]) for i in kustomization["images"]] == [tuple(IMAGE.split(":"))]


@pytest.mark.parametrize(("kind", "pod"), PODS)
def test_every_pod_is_restricted_and_reserves_the_memory_that_it_may_use(kind: str, pod: dict[str, Any]):
    assert schemas.pod_security_of(pod) == set()
    for container in pod["containers"]:
        wanted, most = container["resources"]["requests"], container["resources"]["limits"]
        assert wanted["memory"] == most["memory"]
        assert wanted.get("nvidia.com/gpu") == most.get("nvidia.com/gpu")
        assert wanted["cpu"]
        mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
        claims = {claim["metadata"]["name"] for claims in named(APPLIED, "volumeClaimTemplates") for claim in claims}
        assert mounted <= {volume["name"] for volume in pod.get("volumes", ())} | claims


@pytest.mark.parametrize("edit", ["root", "escalation", "capabilities", "seccomp", "host"])
def test_a_pod_that_could_do_more_is_noticed(edit: str):
    pod = copy.deepcopy(groups("rayservice")[0]["template"]["spec"])
    own = pod["containers"][0]["securityContext"]
    if edit == "root":
        pod["securityContext"]["runAsNonRoot"] = False
    elif edit == "escalation":
        own["allowPrivilegeEscalation"] = True
    elif edit == "capabilities":
        own["capabilities"] = {"drop": ["ALL"], "add": ["SYS_ADMIN"]}
    elif edit == "seccomp":
        del pod["securityContext"]["seccompProfile"]
    else:
        pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    assert schemas.pod_security_of(pod) == {edit}


@pytest.mark.parametrize("name", RAY)
def test_ray_containers_are_probed_and_write_only_where_a_volume_is(name: str):
    for container in ray_containers(name):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert {"httpGet", "exec"} & container[probe].keys()
        assert container["livenessProbe"]["httpGet"] == {"path": "/api/healthz", "port": 52365}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"/shared/viter", "/dev/shm", "/tmp", "/home/viter"}


@pytest.mark.parametrize("name", RAY)
def test_shared_memory_holds_the_object_store_and_both_fit_the_container(name: str):
    for group in groups(name):
        pod = group["template"]["spec"]
        (shm,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm"]
        store = int(group["rayStartParams"]["object-store-memory"])
        limit = _bytes(pod["containers"][0]["resources"]["limits"]["memory"])
        assert shm["medium"] == "Memory"
        assert store < _bytes(shm["sizeLimit"]) < limit


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([MGT])i", quantity).groups()  # type: ignore[union-attr]
    return int(number) << {"M": 20, "G": 30, "T": 40}[unit]


def test_only_serving_pods_have_a_disruption_budget():
    (budget,) = documents("disruption")
    labels = budget["spec"]["selector"]["matchLabels"]
    assert [name for name in RAY for group in groups(name)[1:] if group["groupName"] == labels["ray.io/group"]] == [
        "rayservice"
    ]
