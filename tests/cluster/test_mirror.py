"""A stage's numbers as Prometheus gets them: counters that grow by what happened, gauges that end with the stage."""

from pathlib import Path

import pytest

from cluster import metrics
from cluster.config import RunConfig
from cluster.mirror import RunMirror
from cluster.stage_log import Progress, StageLog
from envs.base import validated
from tests.meters import Remembered

NUMBERS = {
    "episodes": 8.0, "success_rate": 0.25, "reward_mean": -0.5, "tokens_sampled": 100.0, "tokens_prefilled": 40.0,
    "staleness_mean": 0.5, "nonfinite_skips": 2.0, "kl": 0.01, "entropy": float("nan"), "step_s": 3.0, "update_s": 2.0,
}  # fmt: skip


@pytest.fixture
def meters() -> Remembered:
    return Remembered()


@pytest.fixture
def mirror(meters: Remembered, tmp_path: Path) -> RunMirror:
    ppo = {"steps": 3, "episodes": 8, "minibatches": 2}
    run = {"name": "r", "model": {"source": "nano"}, "store": {"uri": str(tmp_path)}, "ppo": ppo}
    return RunMirror(meters, validated(RunConfig, run, source="test"), "ppo")


def step(number: int, **numbers: float) -> Progress:
    return Progress(stage="ppo", step=number, steps=3, metrics={**NUMBERS, **numbers})


def event(kind: str, **fields: object) -> Progress:
    return Progress(stage="ppo", step=-1, steps=3, event=kind, fields=fields)


def test_steps_add_up_and_gauges_show_the_last(mirror: RunMirror, meters: Remembered):
    mirror.begin(0, resumes=False)
    mirror.tell(step(1))
    mirror.tell(step(2, nonfinite_skips=3.0, success_rate=1.0))
    environment = "general_points"
    assert meters.counted["episodes_total", "r", environment, "train", "solved"] == 2 + 8
    assert meters.counted["episodes_total", "r", environment, "train", "unsolved"] == 6
    assert meters.counted["rollout_tokens_total", "r", "sampled"] == 200
    assert meters.counted["nonfinite_skips_total", "r", "ppo"] == 3
    assert meters.gauges["train_step", "r", "ppo"] == 2
    assert meters.gauges["weight_version", "r", "learner"] == 2
    assert meters.gauges["ppo_kl", "r", "ppo"] == 0.01
    assert ("entropy", "r", "ppo") not in meters.gauges  # not finite
    assert meters.seen["train_step_seconds", "r", "ppo", "step"] == [3.0, 3.0]
    assert ("train_step_seconds", "r", "ppo", "score") not in meters.seen


def test_a_resumed_learners_old_skips_are_not_counted_again(mirror: RunMirror, meters: Remembered):
    mirror.begin(1, resumes=True)
    mirror.tell(step(2, nonfinite_skips=5.0))
    mirror.tell(step(3, nonfinite_skips=6.0))
    assert meters.counted["nonfinite_skips_total", "r", "ppo"] == 1
    assert meters.counted["resumes_total", "r", "ppo", "run"] == 1


def test_events_are_counted(mirror: RunMirror, meters: Remembered):
    mirror.begin(0, resumes=False)
    for rank in (0, 1, 0, 1):
        mirror.tell(event("learner_started", rank=rank))
    mirror.tell(event("quarantined", worker="w", index=3, reason="timeout"))
    mirror.tell(event("checkpoint", name="r-ppo@step-000001", seconds=0.5, bytes=1000))
    assert meters.counted["resumes_total", "r", "ppo", "learner_restart"] == 1
    assert meters.counted["resumes_total", "r", "ppo", "run"] == 0
    assert meters.counted["episodes_total", "r", "general_points", "train", "quarantined"] == 1
    assert meters.counted["checkpoints_total", "r", "ppo"] == 1
    assert meters.gauges["checkpoint_bytes", "r", "ppo"] == 1000


def test_the_orchestrators_sums_are_counted_by_their_growth(mirror: RunMirror, meters: Remembered):
    """A worker that dies takes its part of the sums along; what it had counted stays counted, and nothing counts twice."""
    sums = {"weight_version": 1.0, "verifier_queue": 4.0, "verifier_calls": 10.0, "verifier_timeouts": 1.0}
    mirror.rollouts(sums)
    mirror.rollouts({**sums, "verifier_calls": 15.0, "verifier_timeouts": 2.0, "episodes_lost_and_requeued": 3.0})
    mirror.rollouts({**sums, "verifier_calls": 6.0})
    mirror.rollouts({**sums, "verifier_calls": 8.0})
    assert meters.counted["verifier_calls_total", "r"] == 10 + 5 + 0 + 2
    assert meters.counted["verify_failures_total", "timeout"] == 2
    assert meters.counted["episode_retries_total", "r", "worker"] == 3
    assert meters.gauges["verifier_queue_depth", "r"] == 4


def test_gauges_are_set_again_before_they_fade(
    mirror: RunMirror, meters: Remembered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    mirror.begin(0, resumes=False)
    mirror.tell(step(1))
    mirror.watch(None)
    meters.gauges.clear()
    clock[0] += metrics.REFRESH_S / 2
    mirror.watch(None)
    assert meters.gauges == {}
    clock[0] += metrics.REFRESH_S / 2
    mirror.watch(None)
    assert meters.gauges["train_step", "r", "ppo"] == 1
    assert meters.gauges["reward_mean", "r", "ppo"] == -0.5
    assert meters.gauges["store_free_bytes",] > 0


def test_the_stage_log_tells_what_the_mirror_reads(mirror: RunMirror, meters: Remembered, tmp_path: Path):
    log = StageLog(str(tmp_path), "r-ppo", "ppo", 3, {}, 0)
    log.event("checkpoint", {"name": "x", "digest": "d", "seconds": 1.5, "bytes": 7})
    log.metrics(1, NUMBERS)
    for news in log.drain():
        mirror.tell(news)
    assert meters.gauges["checkpoint_seconds", "r", "ppo"] == 1.5
    assert meters.gauges["train_step", "r", "ppo"] == 1


def test_names_are_prometheus_names_and_labels_are_few():
    names = [series.name for series in metrics.SERIES]
    assert len(names) == len(set(names)) > 40
    for series in metrics.SERIES:
        assert series.name.startswith("viter_")
        assert series.name.endswith("_total") == (series.kind == "counter")
        assert (series.kind == "histogram") == bool(series.buckets)
        assert list(series.buckets) == sorted(series.buckets)
        assert series.help.endswith(".")
        assert {"path", "request", "token", "id"}.isdisjoint(series.labels)
