"""Who reaches what: network policies, the way in, secrets."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.manifests import APPLIED, KUBERNETES, RAY, documents, groups, named, ray


def test_nothing_is_open_but_dns_between_ray_nodes_and_the_serve_port():
    policies = {document["metadata"]["name"]: document["spec"] for document in documents("network")}
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    open_to_others: dict[int, set[str]] = {}
    for name, policy in policies.items():
        for rule in policy.get("ingress", ()):
            assert rule["from"]  # left out, it would be the whole world
            assert not [source for source in rule["from"] if "ipBlock" in source or not all(source.values())]
            for source in rule["from"]:
                if "namespaceSelector" in source:
                    space = source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
                    for port in rule["ports"]:
                        open_to_others.setdefault(port["port"], set()).add(f"{space}>{name}")
    assert open_to_others == {
        8265: {"kuberay-operator>ray-heads"},
        8000: {"kuberay-operator>ray-heads", "ingress-nginx>serve-from-ingress"},
        8080: {"monitoring>metrics"},
    }
    (dns,) = policies["dns"]["egress"]
    assert {(port["protocol"], port["port"]) for port in dns["ports"]} == {("UDP", 53), ("TCP", 53)}
    for policy in policies.values():
        for rule in policy.get("egress", ()):
            for block in [to["ipBlock"] for to in rule["to"] if "ipBlock" in to]:
                assert "169.254.0.0/16" in block["except"]  # the cloud's metadata service hands out credentials
                assert rule["ports"]


def test_the_ingress_leads_to_the_serve_service_over_tls():
    (ingress,) = documents("ingress")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    (service,) = documents("rayservice")
    assert path["backend"]["service"] == {"name": f"{service['metadata']['name']}-serve-svc", "port": {"number": 8000}}
    assert ingress["spec"]["tls"] == [{"hosts": [rule["host"]], "secretName": "viter-tls"}]


@pytest.mark.parametrize("name", RAY)
def test_no_dashboard_leaves_the_cluster(name: str):
    assert "serviceType" not in ray(name)["headGroupSpec"]  # ClusterIP
    assert not ray(name)["headGroupSpec"].get("enableIngress")
    assert not {"headServiceAnnotations", "networkPolicy"} & ray(name).keys()
    assert all("dashboard-host" not in group["rayStartParams"] for group in groups(name))


def test_what_manifests_name_exists(tmp_path: Path):
    secrets = made_secrets(tmp_path)
    (job,) = documents("rayjob")
    for reference in named(APPLIED, "secretKeyRef"):
        assert reference["key"] in secrets[reference["name"]]
    for reference in named(APPLIED, "secretRef"):
        assert reference["name"] in secrets
    for options in named(APPLIED, "authOptions"):
        assert secrets[options["secretName"]] == {"auth_token"}
    for options in named(APPLIED, "redisPassword"):
        assert options["valueFrom"]["secretKeyRef"]["name"] == "viter-redis"
    claims = {document["metadata"]["name"] for document in APPLIED if document["kind"] == "PersistentVolumeClaim"}
    assert {claim["claimName"] for claim in named(APPLIED, "persistentVolumeClaim")} == claims
    services = {document["metadata"]["name"] for document in APPLIED if document["kind"] == "Service"}
    assert {options["redisAddress"] for options in named(APPLIED, "gcsFaultToleranceOptions")} == {"viter-redis:6379"}
    assert services == {"viter-redis"}
    for name in ("rayservice", "raycluster"):
        assert (KUBERNETES / f"{name}.yaml").name in documents("kustomization")[0]["resources"]
    assert all((KUBERNETES / name).is_file() for name in documents("kustomization")[0]["resources"])
    assert job["spec"]["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"


def made_secrets(folder: Path) -> dict[str, set[str]]:
    """The keys of every secret that make-secrets.sh makes, by a kubectl that only writes down what it is told."""
    kubectl = folder / "kubectl"
    kubectl.write_text(f'#!/bin/bash\n[[ $3 == get ]] && exit 1\nprintf "%s\\n" "$*" >> {folder}/told\n')
    kubectl.chmod(0o755)
    env = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HF_TOKEN": "h",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "s",
    }
    subprocess.run([KUBERNETES / "make-secrets.sh"], env=env, check=True)
    told = (folder / "told").read_text().splitlines()
    values = re.findall(r"--from-literal=\w+=(\S+)", "\n".join(told))
    assert len({value for value in values if len(value) == 64}) == 2  # 256 random bits each, and not the same
    return {line.split()[5]: set(re.findall(r"--from-literal=(\w+)=", line)) for line in told}


def test_existing_secrets_are_left_alone(tmp_path: Path):
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/bash\n[[ $3 == get ]] || { echo "told to $3" >&2; exit 9; }\n')
    kubectl.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([KUBERNETES / "make-secrets.sh", "mine"], env=env, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["secret/viter-ray-token exists", "secret/viter-redis exists"]


def test_no_secret_stands_in_a_file():
    assert not [document for document in documents() if document["kind"] == "Secret"]
    assert not re.findall(r"(?i)(?:password|auth_token|hf_token)['\"]?: ['\"]?\w{12,}", "".join(
        path.read_text() for path in KUBERNETES.iterdir()
    ))  # fmt: skip
