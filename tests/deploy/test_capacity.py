"""The service and the runs fit the clusters that the manifests make, in room and in time."""

import yaml

from cluster import placement
from cluster.config import RunConfig
from envs.base import validated
from services import ingress
from services.config import LimitsConfig, ServiceConfig
from services.http import guard
from tests.deploy.manifests import DEPLOY, documents, ray, ray_containers


def test_the_service_of_the_manifest_is_the_one_of_the_serve_file():
    (service,) = documents("rayservice")
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == yaml.safe_load((DEPLOY / "serve.yaml").read_text())


def test_the_service_has_room_and_time_for_what_its_configuration_asks():
    (service,) = documents("rayservice")
    serve = yaml.safe_load((DEPLOY / "serve.yaml").read_text())
    (application,) = serve["applications"]
    config = validated(ServiceConfig, application["args"], source="serve.yaml")
    (group,) = ray("rayservice")["workerGroupSpecs"]
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    assert float(container["resources"]["limits"]["nvidia.com/gpu"]) == config.replica_gpus
    assert config.replica_gpus == config.engine.tensor_parallel
    assert config.replica_cpus < float(container["resources"]["requests"]["cpu"])
    assert (group["minReplicas"], group["maxReplicas"]) == (config.replicas, config.max_replicas)

    longest = config.limits.deadline_s
    patience = {each["name"]: each["graceful_shutdown_timeout_s"] for each in application["deployments"]}
    assert all(patience[name] > longest for name in ("replica", "gateway"))
    assert service["spec"]["rayClusterDeletionDelaySeconds"] > longest
    assert (
        longest < float(container["lifecycle"]["preStop"]["exec"]["command"][1]) < pod["terminationGracePeriodSeconds"]
    )
    assert service["spec"]["excludeHeadPodFromServeSvc"]
    assert serve["proxy_location"] == "EveryNode"  # else no serving pod would listen
    assert serve["http_options"]["port"] in [port["containerPort"] for port in container["ports"]]


def test_every_serving_node_has_the_way_in_and_limits_bodies_before_it_as_the_routes_do():
    (application,) = yaml.safe_load((DEPLOY / "serve.yaml").read_text())["applications"]
    for container in ray_containers("rayservice"):
        env = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert env.items() >= ingress.EVERYWHERE.items()
        module, _, function = env["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].partition(":")
        assert (module, function) == (guard.__name__, guard.proxy_middlewares.__name__)
        assert int(env[guard.BODY_LIMIT_VARIABLE]) == application["args"]["limits"]["body_bytes"]
        assert float(env[guard.BODY_SECONDS_VARIABLE]) == application["args"]["limits"]["body_s"]
        assert int(env[guard.REQUESTS_VARIABLE]) == LimitsConfig(**application["args"]["limits"]).requests
    (outer,) = documents("ingress")
    assert outer["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] == "1m"
    assert application["args"]["limits"]["body_bytes"] == 1 << 20


def test_a_run_of_the_job_exists_and_fits_its_cluster():
    spec = documents("rayjob")[0]["spec"]
    command, _, path = spec["entrypoint"].rpartition(" ")
    assert command == "viter train"
    assert "entrypointNumCpus" not in spec  # on a worker the driver would not reach the head's proxy
    config = RunConfig.load(DEPLOY.parent / path.removeprefix("/opt/viter/"))
    assert config.store.uri.startswith("/shared/viter/")
    plan = placement.plan(config)
    assert placement.check(plan, nodes("rayjob")) == ""
    assert placement.check(plan, nodes("rayjob")[:1]) != ""


def test_every_large_run_fits_the_cluster_that_waits_for_runs_once_it_has_grown():
    for path in ("llama-3.1-8b-gp-l", "qwen2.5-vl-7b-gp-vl", "qwen3-vl-8b-virl-vl"):
        config = RunConfig.load(DEPLOY / "runs" / f"{path}.yaml", ("placement.autoscales=true",))
        plan = placement.plan(config)
        assert placement.check(plan, nodes("raycluster")) == ""
        assert placement.check(plan, [*placed(placement.demand(plan), nodes("raycluster"))]) == ""


def placed(bundles: list[dict[str, float]], grown: list[dict[str, float]]) -> list[dict[str, float]]:
    """The nodes that an autoscaler adds for `bundles`, put first where they fit; none for what fits nowhere."""
    added: list[dict[str, float]] = []
    left: list[dict[str, float]] = []
    for bundle in sorted(bundles, key=lambda bundle: -bundle.get("GPU", 0)):
        room = [node for node in left if all(node.get(name, 0) >= amount for name, amount in bundle.items())]
        if not room:
            assert len(added) < len(grown), f"no room for {bundle}"
            added.append(grown[len(added)])
            left.append(dict(added[-1]))
            room = left[-1:]
        for name, amount in bundle.items():
            room[0][name] -= amount
    return added


def nodes(name: str) -> list[dict[str, float]]:
    """The worker nodes at their most."""
    found = []
    for group in ray(name)["workerGroupSpecs"]:
        resources = group["template"]["spec"]["containers"][0]["resources"]
        node = {"CPU": float(resources["requests"]["cpu"]), "GPU": float(resources["limits"]["nvidia.com/gpu"])}
        found += [node] * group["maxReplicas"]
    return found


def test_the_groups_of_runs_have_one_shape():
    for name in ("rayjob", "raycluster"):
        learner, rollout = ray(name)["workerGroupSpecs"]
        assert learner["template"] == rollout["template"]
