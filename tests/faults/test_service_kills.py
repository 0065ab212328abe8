"""A replica, the evaluation manager and a worker node are killed while requests and an evaluation go on; a node falls silent."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.config import EngineConfig
from envs.base import ConfigError
from services import ingress
from services.chaos.rig import HEALTH
from services.client import Client, saved_token
from services.config import ServiceConfig
from services.port import check_free, free_ports, wait_until_answered

pytestmark = pytest.mark.slow

REQUESTS, ITEMS, CLIENTS = 1000, 500, 4
CHECKPOINT = "nano@step-000001"
CUT_OFF = 599  # no status: a connection that ended without an answer
STORE_BYTES = 100 * 2**20
NODE = {"num_cpus": 2, "object_store_memory": STORE_BYTES}  # room for one replica


@pytest.fixture(scope="module")
def cluster():
    """A head without room for a replica, and two worker nodes with room for one each."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in (ingress.EVERYWHERE | ingress.here() | HEALTH).items():
            patch.setenv(name, value)
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE_BYTES})
        nodes.workers = [nodes.add_node(**NODE) for _ in range(2)]
        ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
        yield nodes
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    from trainers.checkpoints import CheckpointInfo, Checkpoints
    from trainers.nano import model

    store = tmp_path_factory.mktemp("store")
    info = CheckpointInfo(parents=(), metrics={}, compute={"parameters": 800_000}, config={}, world_size=1)
    Checkpoints(store, "nano").commit(1, lambda path: model.create(path / "model", seed=1), info)
    return store


@pytest.fixture(scope="module")
def service(cluster, store):
    from services import app

    engine = EngineConfig(dtype="float32", kv_cache_gib=0.25, max_model_len=512, prefix_cache=False)
    config = ServiceConfig(store=str(store), port=free_ports(1)[0], engine=engine, replicas=2, replica_cpus=1.5)
    started = app.start(config)
    with Client(started.url, saved_token(store)) as client:
        wait_for(lambda: client.is_ready() and len(processes("replica")) == 2, 180)
        yield client
    app.stop()


@pytest.fixture(scope="module")
def token(service, store):
    return saved_token(store)


def wait_for(is_so, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.2)


def processes(deployment: str) -> list[int]:
    """Process ids of the living replicas of a deployment."""
    name = f"ray::ServeReplica:viter:{deployment}"
    return [p.pid for p in psutil.process_iter() if any(name in word for word in _command(p))]


def raylet(node) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def without_the_gateway(nodes):
    """The first of the nodes that has not the gateway: clients whose gateway dies are told so, and have to ask again."""
    (gateway,) = processes("gateway")
    return next(node for node in nodes if raylet(node).pid != psutil.Process(gateway).ppid())


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@dataclass
class Traffic:
    """Clients that ask until they are told to stop; each asks again, a moment later, what was not answered with 200."""

    url: str
    token: str
    may_end: threading.Event = field(default_factory=threading.Event)
    answered: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    texts: set[str] = field(default_factory=set)
    hints: int = 0  # refusals that said when to ask again
    slowest_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        body = {"model": CHECKPOINT, "prompt": "Cards:", "max_tokens": 4, "temperature": 0}
        headers = {"Authorization": f"Bearer {self.token}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=120) as http:
            while not self.may_end.is_set():
                started = time.monotonic()
                try:
                    answer = http.post("/v1/completions", json=body)
                except httpx.HTTPError:
                    answer = httpx.Response(CUT_OFF)
                with self.lock:
                    self.statuses[answer.status_code] += 1
                    self.slowest_s = max(self.slowest_s, time.monotonic() - started)
                    if answer.status_code == 200:
                        self.answered += 1
                        self.texts.add(answer.json()["choices"][0]["text"])
                    else:
                        self.hints += "Retry-After" in answer.headers
                        time.sleep(0.5)

    @contextmanager
    def flowing(self):
        threads = [threading.Thread(target=self.run) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.may_end.set()
            for thread in threads:
                thread.join(240)


def test_nothing_is_lost_while_a_replica_the_manager_and_a_node_die(service, token, cluster, capsys):
    traffic = Traffic(service.url, token)
    evaluation = service.evaluate(
        CHECKPOINT, suites=["general_points/id"], n=ITEMS, viter=5, decoding={"max_tokens": 32}
    )
    told = []
    with traffic.flowing():
        for kill in ("replica", "evaluations", "node"):
            wait_for(lambda: service.evaluation(evaluation.id).counts.done >= 120 * (len(told) + 1), 240)
            before, started = traffic.answered, time.monotonic()
            done = service.evaluation(evaluation.id).counts.done
            if kill == "node":
                cluster.remove_node(without_the_gateway(cluster.workers), allow_graceful=False)
            else:
                os.kill(processes(kill)[0], signal.SIGKILL)
            wait_for(lambda before=before: traffic.answered >= before + 2 * CLIENTS, 60)
            told.append(
                f"{kill} at {done} items and {before} requests: 8 more answers after {time.monotonic() - started:.1f} s"
            )
        wait_for(lambda: traffic.answered >= REQUESTS, 240)
        ended = service.wait(evaluation.id, deadline_s=240)
    items = list(service.items(evaluation.id))
    with capsys.disabled():
        print("", *told, f"answers: {dict(traffic.statuses)}, the slowest after {traffic.slowest_s:.1f} s", sep="\n  ")
    assert traffic.answered >= REQUESTS
    assert len(traffic.texts) == 1  # the same weights all the time
    assert set(traffic.statuses) <= {200, 503}
    assert traffic.hints == traffic.statuses[503]
    assert traffic.statuses[503] <= CLIENTS * len(told)  # at most what was under way at each kill
    assert (ended.status, ended.counts.done, ended.counts.failed) == ("completed", ITEMS, 0)
    assert sorted(item.index for item in items) == list(range(ITEMS))


def test_what_a_node_owes_that_falls_silent_is_answered_by_another(service, token, cluster, capsys):
    """Its connections stay open, as where a cable is cut: nothing but Ray's look at the node says that it is gone."""
    node = cluster.add_node(**NODE)
    traffic = Traffic(service.url, token)
    silent: list[psutil.Process] = []
    try:
        with traffic.flowing():
            wait_for(lambda: len([users for users in users_of_replicas() if users > 0]) == 2, 120)
            silent = [raylet(node), *raylet(node).children(recursive=True)]
            assert any(process.pid in processes("replica") for process in silent)
            for process in silent:
                process.suspend()
            before, started = traffic.answered, time.monotonic()
            wait_for(lambda: traffic.answered >= before + 20 * CLIENTS, 100)
    finally:
        for process in silent:
            process.kill()
    with capsys.disabled():
        print(f"\n  {20 * CLIENTS} more answers after {time.monotonic() - started:.1f} s of silence,", end=" ")
        print(f"the slowest after {traffic.slowest_s:.1f} s")
    assert set(traffic.statuses) == {200}
    assert traffic.slowest_s > 1.0  # some were there


def users_of_replicas() -> list[int]:
    """How many requests are at each replica, as it tells its routers."""
    import ray

    users = []
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith("SERVE_REPLICA::viter#replica#"):
            stats = ray.get_actor(actor["name"], actor["namespace"]).record_routing_stats.remote()
            with suppress(ray.exceptions.RayTaskError):  # its process has only just begun
                users.append(ray.get(stats, timeout=60)["users"])
    return users


def test_a_service_that_is_killed_leaves_its_port_to_the_next(tmp_path: Path):
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "services.cli", "serve", "--store", str(tmp_path), "--port", str(port)]
    url = f"http://127.0.0.1:{port}/livez"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as served:
        try:
            wait_until_answered(url, 120.0)
        finally:
            served.kill()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            return check_free("127.0.0.1", port)
        except ConfigError:
            time.sleep(0.2)
    pytest.fail(f"something listens on {port} a minute after the service was killed")
