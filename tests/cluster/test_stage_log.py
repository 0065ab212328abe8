"""What many processes say of a stage ends up in its files, in order and whole."""

from dataclasses import replace
from pathlib import Path

from cluster.stage_log import StageLog
from tests.trainers.episodes import plain_episode
from trainers.episode import Episode
from trainers.episode_arrow import to_batch
from trainers.runlog import episode_steps, read_episodes, read_events, read_metrics


def log(store: Path, resumed_at: int = 0) -> StageLog:
    return StageLog(str(store), "run-ppo", "ppo", 4, {"name": "run"}, resumed_at)


def episode(index: int) -> Episode:
    return replace(plain_episode(), step=0, index=index)


def test_numbers_and_events_reach_the_files_and_the_driver(tmp_path: Path):
    stage = log(tmp_path)
    stage.event("worker_died", {"worker": "rollout-0"})
    stage.metrics(1, {"loss": 0.5})
    assert [(news.step, news.message) for news in stage.drain()] == [(-1, "worker_died worker=rollout-0"), (1, "")]
    assert stage.drain() == []
    assert read_metrics(tmp_path / "run-ppo")[0]["loss"] == 0.5
    assert read_events(tmp_path / "run-ppo")[0]["worker"] == "rollout-0"


def test_a_step_whose_gradients_were_not_finite_is_told(tmp_path: Path):
    stage = log(tmp_path)
    stage.metrics(1, {"skipped": 0.0, "nonfinite_skips": 0.0})
    stage.metrics(2, {"skipped": 0.5, "nonfinite_skips": 1.0})
    (event,) = read_events(tmp_path / "run-ppo")
    assert (event["kind"], event["step"], event["share"], event["so_far"]) == ("updates_skipped", 2, 0.5, 1.0)


def test_a_step_is_written_once_every_rank_has_given_its_share(tmp_path: Path):
    stage = log(tmp_path)
    stage.episodes(0, 2, [to_batch([episode(3), episode(1)])])
    assert episode_steps(tmp_path / "run-ppo") == []
    stage.episodes(0, 2, [to_batch([episode(2)]), to_batch([episode(0)])])
    assert [found.index for found in read_episodes(tmp_path / "run-ppo", 0)] == [0, 1, 2, 3]


def test_a_resumed_stage_forgets_what_came_after_its_checkpoint(tmp_path: Path):
    first = log(tmp_path)
    for step in (1, 2, 3):
        first.metrics(step, {"loss": 1.0 / step})
    log(tmp_path, resumed_at=2)
    assert [row["step"] for row in read_metrics(tmp_path / "run-ppo")] == [1, 2]


def test_a_quarantined_episode_has_a_file_that_stays_when_the_stage_goes_back(tmp_path: Path):
    log(tmp_path).quarantined(3, 17, '{"step": 3}')
    log(tmp_path, resumed_at=2)
    assert (tmp_path / "run-ppo/quarantine/step-000003-index-000017.json").read_text() == '{"step": 3}'


def test_starts_are_counted_from_one_commit(tmp_path: Path):
    stage = log(tmp_path)
    assert [stage.starts_from(step) for step in (0, 0, 0, 4, 4, 6)] == [1, 2, 3, 1, 2, 1]
