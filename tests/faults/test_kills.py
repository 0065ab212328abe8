"""Rollout workers and verifiers are killed with SIGKILL while they work: no episode is lost, doubled or changed."""

import contextlib
import os
import random
import signal
import threading
import time

import pytest

from cluster.config import RunConfig
from cluster.engine.reply import History
from envs.base import validated
from trainers.episode_arrow import from_batch
from trainers.nano.model import create

pytestmark = pytest.mark.slow

STEPS, EPISODES = 3, 48


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init("local", num_cpus=16, include_dashboard=False, object_store_memory=256 * 2**20, log_to_driver=False)
    yield ray
    if started:
        ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return create(tmp_path_factory.mktemp("nano"), seed=0)


def run_config(model, *, workers: int, staleness: int = 0, episodes: int = EPISODES, in_flight: int = 8) -> RunConfig:
    return validated(
        RunConfig,
        {
            "name": "kills",
            "model": {"source": str(model)},
            "ppo": {
                "steps": STEPS, "episodes": episodes, "minibatches": 1, "viter": 3, "answer_tokens": 32,
                "max_staleness": staleness, "seed": 5,
            },
            "rollout": {
                "workers": workers, "verifiers": 2, "episodes_in_flight": in_flight, "verdict_deadline_s": 30,
                "engine": {"max_model_len": 512, "kv_cache_gib": 0.1},
            },
            "placement": {"rollout_cpus": 0.5},
        },
        source="test",
    )  # fmt: skip


class Run:
    """The orchestrator actor of a run, driven as a learner would."""

    def __init__(self, ray, config: RunConfig, model, rollout_actor=None):
        from cluster.actors import OrchestratorActor

        self._ray, self._config, self._model = ray, config, model
        self.actor = OrchestratorActor.remote(config, str(model), rollout_actor)
        ray.get(self.actor.start.remote(), timeout=240)

    def publish(self, version: int) -> None:
        from safetensors.torch import load_file

        from cluster.weights import pack_weights

        weights = load_file(str(self._model / "model.safetensors"))
        parcel = self._ray.put(pack_weights(weights.items(), version=version))
        self._ray.get(self.actor.publish.remote([parcel], version=version), timeout=120)

    def take(self, step: int) -> list:
        count = self._config.ppo.episodes
        shares = self._ray.get(self.actor.take.remote(count, step=step), timeout=240)
        batches = self._ray.get([share.batch for share in shares])
        return [e for share, batch in zip(shares, batches, strict=True) for e in from_batch(batch.take(share.rows))]

    def steps(self, count: int = STEPS) -> dict[tuple[int, int], list]:
        """Every episode's tokens and statuses by (step, index)."""
        home = {}
        for step in range(count):
            self.publish(step)
            for episode in self.take(step):
                key = (episode.step, episode.index)
                assert key not in home
                tokens = [segment.token_ids.tolist() for segment in episode.segments]
                home[key] = [tokens, [turn.status for turn in episode.turns]]
        return home

    def processes(self, kind: str) -> dict[str, int]:
        found = self._ray.get(self.actor.processes.remote(), timeout=30)
        return {name: pid for name, pid in found.items() if name.startswith(kind)}

    def close(self) -> None:
        self._ray.get(self.actor.close.remote(), timeout=60)
        self._ray.kill(self.actor)


@contextlib.contextmanager
def killing(run: Run, kind: str, *, seed: int, every_s: float, most: int):
    """Meanwhile, processes of `kind` are killed one by one at random times. Yields the list of those killed."""
    dice, over, killed = random.Random(seed), threading.Event(), []

    def kill() -> None:
        while len(killed) < most and not over.wait(dice.uniform(0.2, 1.8) * every_s):
            with contextlib.suppress(ProcessLookupError, Exception):
                _, pid = dice.choice(sorted(run.processes(kind).items()))
                if pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join(30)


@pytest.fixture(scope="module")
def undisturbed(cluster, model):
    """What a run of one worker, left in peace, brings home."""
    from tests.faults.stand_in_actor import StandInRolloutActor

    run = Run(cluster, run_config(model, workers=1), model, StandInRolloutActor)
    home = run.steps()
    run.close()
    return home


def everything(steps: int = STEPS, episodes: int = EPISODES) -> set[tuple[int, int]]:
    return {(step, index) for step in range(steps) for index in range(episodes)}


@pytest.mark.parametrize("staleness", [0, 1])
def test_killed_rollout_workers_lose_double_and_change_nothing(cluster, model, undisturbed, staleness: int):
    from tests.faults.stand_in_actor import StandInRolloutActor

    run = Run(cluster, run_config(model, workers=2, staleness=staleness), model, StandInRolloutActor)
    with killing(run, "rollout", seed=staleness, every_s=0.4, most=4) as killed:
        home = run.steps()
    stats = cluster.get(run.actor.stats.remote())
    events = cluster.get(run.actor.events.remote())
    run.close()
    assert home == undisturbed
    assert set(home) == everything()
    assert len(killed) >= 1
    assert 1 <= stats["worker_restarts"] <= len(killed)
    assert sum(event.kind == "worker_died" for event in events) == stats["worker_restarts"]
    assert stats["episodes_kept"] == STEPS * EPISODES


def test_killed_verifiers_cost_no_verdict(cluster, model, undisturbed):
    from tests.faults.stand_in_actor import StandInRolloutActor

    run = Run(cluster, run_config(model, workers=2), model, StandInRolloutActor)
    with killing(run, "verifier", seed=3, every_s=0.4, most=4) as killed:
        home = run.steps()
    stats = cluster.get(run.actor.stats.remote())
    run.close()
    assert home == undisturbed
    assert len(killed) >= 1
    assert stats.get("episodes_quarantined", 0) == 0
    assert stats["verifier_failures"] == 0


def test_a_restarted_orchestrator_starts_over_from_what_the_learner_publishes(cluster, model, undisturbed):
    from tests.faults.stand_in_actor import StandInRolloutActor

    run = Run(cluster, run_config(model, workers=1), model, StandInRolloutActor)
    run.publish(0)
    assert len(run.take(0)) == EPISODES
    before = process_of(cluster, run.actor)
    cluster.kill(run.actor, no_restart=False)
    # a learner's call fails meanwhile, its gang is restarted, and it publishes
    wait_until(lambda: process_of(cluster, run.actor) not in (None, before), 60)
    run.publish(1)
    assert {(e.step, e.index) for e in run.take(1)} == {(1, index) for index in range(EPISODES)}
    run.close()


def test_a_real_engine_is_killed_and_replaced(cluster, model):
    """With vLLM: the successor gets the newest weights, plays what was lost, and the dead one's engine process is gone."""
    run = Run(cluster, run_config(model, workers=1, episodes=24), model)
    try:
        run.publish(0)
        first = run.take(0)
        assert {(e.step, e.index) for e in first} == {(0, index) for index in range(24)}
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
        wait_until(lambda: not any(map(is_running, children)), 30)
    finally:
        run.close()


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
