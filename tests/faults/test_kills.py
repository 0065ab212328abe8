"""An orchestrator and a real engine are killed: what they held is played again. The other kills are drills of `viter chaos`."""

import os
import signal
import time

import pytest

from cluster.engine.reply import History
from services.chaos import play
from services.chaos.drills import cluster as small_cluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    import ray

    with small_cluster():
        yield ray


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return play.nano(tmp_path_factory.mktemp("scratch"))


def test_a_restarted_orchestrator_starts_over_from_what_the_learner_publishes(cluster, model):
    of = play.config(model, seed=5, steps=3, workers=1)
    with play.playing(of) as run:
        assert play.told(run.step(0)) == play.expected(of, 0)
        before = process_of(cluster, run.actor)
        cluster.kill(run.actor, no_restart=False)
        # a learner's call fails meanwhile, its gang is restarted, and it publishes
        wait_until(lambda: process_of(cluster, run.actor) not in (None, before), 60)
        assert play.told(run.step(1)) == play.expected(of, 1)


def test_a_real_engine_is_killed_and_replaced(cluster, model, tmp_path):
    """With vLLM: the successor gets the newest weights, plays what was lost, and the dead one's engine process is gone.

    The worker that plays takes its second version as a delta; its successor does not find the base any more, and takes
    the parcel.
    """
    from cluster.actors import RolloutProcess, as_rollout_actor
    from cluster.engine.node_files import NodeFiles

    class Alone(RolloutProcess):
        """Other engines of this machine do not recycle its files."""

        async def _start_engine(self, model):
            engine = await super()._start_engine(model)
            engine._files = NodeFiles(tmp_path / "files")
            return engine

    of = play.config(model, seed=5, steps=3, workers=1, episodes=24)
    with play.playing(of, actor=as_rollout_actor(Alone)) as run:
        assert {(e.step, e.index) for e in run.step(0)} == {(0, index) for index in range(24)}
        (pid,) = run.processes("rollout").values()
        children = descendants(pid)
        run.publish(1)
        os.kill(pid, signal.SIGKILL)
        second = run.take(1)
        assert {(e.step, e.index) for e in second} == {(1, index) for index in range(24)}
        assert {e.worker for e in second} <= {"rollout-0", "rollout-0.2"}
        assert all(int(s.weight_versions[s.sampled].min()) == 1 for e in second for s in e.segments)
        scores = cluster.get(run.actor.probe.remote([History([5, 6, 7, 8])]), timeout=60)
        assert list(scores) == ["rollout-0.2"]
        stats = run.stats()
        assert (stats["weights_by_delta"], stats["weights_by_parcel"], stats.get("transfers_failed", 0)) == (1, 2, 0)
        wait_until(lambda: not any(map(is_running, children)), 30)


def process_of(ray, actor) -> int | None:
    """The process id of an actor; None while it does not answer."""
    try:
        return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=5)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return None


def descendants(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def is_running(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_until(is_true, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
