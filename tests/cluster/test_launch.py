"""Whole runs with the real parts, Ray Train, DeepSpeed and vLLM: small, cut off on purpose, compared bit for bit."""

import contextlib
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cluster import launch, metrics
from cluster.config import RunConfig
from cluster.stage_log import Progress
from envs.base import validated
from tests.scrape import Samples, scraped, total
from trainers.checkpoints import Checkpoints, resolve
from trainers.learner import DivergedError
from trainers.nano.model import create
from trainers.runlog import episode_steps, read_episodes, read_events, read_metrics

pytestmark = pytest.mark.slow

SFT = {"steps": 6, "documents": 16, "checkpoint_every": 2, "schedule": {"learning_rate": 1e-3}}
PPO = {
    "steps": 3, "episodes": 8, "viter": [[0, 1], [1, 2]], "answer_tokens": 16, "minibatches": 2, "epochs": 1,
    "checkpoint_every": 1, "schedule": {"learning_rate": 1e-4}, "unit": "token", "probe_tolerance": 0.001,
}  # fmt: skip
TRAINING = {
    name for each in metrics.SERIES if {"run", "stage"} & set(each.labels) for name in each.samples
} | {metrics.STORE_FREE_BYTES.exported, *metrics.VERIFY_FAILURES.samples}  # fmt: skip
ENGINE = {"dtype": "float32", "prefix_cache": False, "max_model_len": 256, "max_num_seqs": 16}


@pytest.fixture(scope="module", autouse=True)
def _one_cluster():
    """Every run of this module connects to one small cluster."""
    import ray

    often = {"metrics_report_interval_ms": 1000}
    ray.init(
        "local",
        num_cpus=6,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=2**28,
        _system_config=often,
    )
    yield
    ray.shutdown()


def config(store: Path, name: str = "small", **stages: Any) -> RunConfig:
    data = {
        "name": name,
        "model": {"source": "nano", "dtype": "float32"},
        "learner": {"row_tokens": 256},
        "rollout": {"episodes_in_flight": 8, "engine": ENGINE},
        "store": {"uri": str(store)},
        **stages,
    }
    return validated(RunConfig, data, source="test")


def run(of: RunConfig, progress: Any = lambda _: None) -> dict[str, str]:
    """The digest of each stage's last checkpoint."""
    return {stage: checkpoint.digest for stage, checkpoint in launch.run(of, progress=progress).checkpoints.items()}


def test_a_run_resumed_half_way_ends_with_the_same_bits(tmp_path: Path):
    whole = run(config(tmp_path / "whole", sft=SFT))
    run(config(tmp_path / "cut", sft={**SFT, "steps": 4}))
    assert run(config(tmp_path / "cut", sft=SFT)) == whole
    assert [row["step"] for row in read_metrics(tmp_path / "cut" / "small-sft")] == list(range(1, 7))


def test_local_paths_mean_where_the_run_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Learner ranks work in directories of their own; a relative model and store must not follow them there."""
    create(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    relative = config(Path("runs"), model={"source": "model", "dtype": "float32"}, sft={**SFT, "steps": 1})
    assert run(relative).keys() == {"sft"}
    assert Checkpoints(tmp_path / "runs", "small-sft").steps() == [1]


def test_a_finished_run_is_left_alone(tmp_path: Path):
    first = run(config(tmp_path, sft={**SFT, "steps": 2}))
    news: list[Progress] = []
    assert run(config(tmp_path, sft={**SFT, "steps": 2}), news.append) == first
    assert resolve(tmp_path, "small-sft@init").name == "small-start@step-000000"
    assert [report.message for report in news] == ["done already"]


def test_two_learner_ranks_learn_what_one_does(tmp_path: Path):
    one = launch.run(config(tmp_path / "one", sft=SFT), progress=lambda _: None)
    wide = config(tmp_path / "two", sft=SFT).model_copy(update={})
    wide = validated(
        RunConfig, {**wide.model_dump(), "learner": {"row_tokens": 256, "workers": 2, "zero_stage": 2}}, source="test"
    )
    two = launch.run(wide, progress=lambda _: None)
    losses = [[row["loss"] for row in read_metrics(Path(result.store) / "small-sft")] for result in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.fixture(scope="module")
def calm_ppo(tmp_path_factory) -> dict[str, str]:
    """Digests of a run that nobody disturbs."""
    return run(config(tmp_path_factory.mktemp("calm"), ppo=PPO))


def _killing_the_learner(log: Path) -> tuple[list[int], Any]:
    """Whom it killed, and a `progress` that kills the learner after its first step, while it publishes the second."""
    killed: list[int] = []

    def kill_once(news: Progress) -> None:
        if news.step == 1 and news.metrics and not killed:
            pid = next(event["pid"] for event in read_events(log) if event["kind"] == "learner_started")
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    return killed, kill_once


def test_ppo_goes_on_by_itself_after_its_learner_is_killed(tmp_path: Path, calm_ppo: dict[str, str]):
    """The gang restarts from the newest commit, and the run ends with the weights of a run that nobody disturbed."""
    log = tmp_path / "rough" / "rough-ppo"
    killed, kill_once = _killing_the_learner(log)
    assert run(config(tmp_path / "rough", "rough", ppo=PPO), kill_once) == calm_ppo
    _is_shown_to_prometheus("rough")
    started = [event["pid"] for event in read_events(log) if event["kind"] == "learner_started"]
    assert len(started) == 2
    assert killed == started[:1]
    assert all(row["publish_bytes"] > 0 and row["published_delta"] in (0, 1) for row in read_metrics(log))
    for step in episode_steps(log):
        assert Counter(episode.index for episode in read_episodes(log, step)) == Counter(range(8))
    most_turns = [max(len(episode.turns) for episode in read_episodes(log, step)) for step in episode_steps(log)]
    assert most_turns == [row["viter"] for row in read_metrics(log)] == [1, 2, 2]


def test_weights_that_are_broadcast_lead_to_the_same_bits_also_when_the_sender_is_killed(
    tmp_path: Path, calm_ppo: dict[str, str]
):
    log = tmp_path / "rough" / "rough-ppo"
    killed, kill_once = _killing_the_learner(log)
    rollout = {"workers": 2, "weights": "broadcast", "episodes_in_flight": 8, "engine": ENGINE}
    assert run(config(tmp_path / "rough", "rough", ppo=PPO, rollout=rollout), kill_once) == calm_ppo
    assert len(killed) == 1
    rows = read_metrics(log)
    assert [row["published_delta"] for row in rows] == [0] * len(rows)
    assert rows[-1]["published_broadcast"] == 1


def _is_shown_to_prometheus(name: str) -> None:
    """Every series of training is exported, and the sums are those of the steps, of which a restart repeats some."""

    def is_all_told(shown: dict[str, Samples]) -> bool:
        steps = total(shown["ray_viter_train_step_seconds_count"], run=name, phase="step")
        return (
            steps >= 3
            and total(shown["ray_viter_resumes_total"], run=name, by="learner_restart") == 1
            and total(shown["ray_viter_checkpoints_total"], run=name) >= 3
            and total(shown["ray_viter_episodes_total"], run=name) == 8 * steps
            and total(shown["ray_viter_rollout_tokens_total"], run=name, kind="sampled") > 0
        )

    scraped(TRAINING, until=is_all_told)


def test_an_interrupted_run_commits_and_resumes(tmp_path: Path):
    endless = {**SFT, "steps": 10_000, "checkpoint_every": 10_000}

    def interrupt(news: Progress) -> None:
        if news.step == 3:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        run(config(tmp_path, sft=endless), interrupt)
    kept = Checkpoints(tmp_path, "small-sft").newest()
    assert kept is not None
    assert kept.step >= 3


def test_what_runs_reserved_is_free_again_when_they_have_ended(calm_ppo: dict[str, str]):
    import ray

    assert calm_ppo
    assert [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"] == []


def test_a_mistake_met_by_the_ranks_is_told_once_and_restarts_nothing(tmp_path: Path):
    """A probe that cannot pass: the run ends with the two numbers instead of starting the gang twenty times."""
    hopeless = config(tmp_path, ppo={**PPO, "probe_tolerance": 1e-12})
    with pytest.raises(DivergedError, match=r"differ by .* nats on the probe, ppo.probe_tolerance allows 1e-12"):
        run(hopeless)
    started = [event for event in read_events(tmp_path / "small-ppo") if event["kind"] == "learner_started"]
    assert len(started) == 1
