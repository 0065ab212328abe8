from dataclasses import replace

import pytest

from cluster.run_rates import like, load_of
from envs.base import DataError
from tests.trainers.samples import make_episode, make_segment
from trainers.runlog import RunLog

ROW = {
    "rollout_wait_s": 2.0, "probe_s": 0.5, "score_s": 0.5, "update_s": 1.5, "publish_s": 0.1, "step_s": 5.0,
    "staleness_mean": 0.0,
}  # fmt: skip


def episodes(step: int) -> list:
    """Eight that are solved at once and eight that never are; tokens slow down by a quarter in company."""
    solved, lost = make_segment(6, (4, 5.0)), make_segment(6, (4, -1.0), (4, -1.0), (4, -1.0))
    rows = [make_episode(solved)] * 8 + [make_episode(lost, terminated=False)] * 8
    seconds = [4 * 0.25] * 8 + [12 * 0.2] * 8
    return [
        replace(e, step=step, index=i, worker="rollout-0", usage=replace(e.usage, generate_s=s, verify_s=0.01 * len(e.turns),
                sampled_tokens=sum(t.stop - t.start for t in e.turns)))
        for i, (e, s) in enumerate(zip(rows, seconds, strict=True))
    ]  # fmt: skip


def write(store, run: str, **changes: float) -> None:
    log = RunLog.of(str(store), run, staging=store)
    for step in range(3):
        log.metrics(step + 1, {**ROW, **changes}, stage="ppo")
        log.episodes(step, episodes(step))
    log.close()


def test_what_episodes_are_like_is_counted():
    load = load_of(episodes(1))
    assert (load.prompt, load.answer, load.positions) == (6, 4, 1)
    assert load.hazards == (0.5, 0.0, 0.0)


def test_rates_add_up_to_the_step_that_was_measured(tmp_path):
    write(tmp_path, "nano-ppo")
    load, rates = like(str(tmp_path), "nano-ppo")
    assert rates.sync_s == pytest.approx(0.1)
    assert rates.fixed_s == pytest.approx(5.0 - 2.5 - 2.0 - 0.1)
    tokens = sum(len(e.segments[0].token_ids) for e in episodes(1))
    assert rates.learner_token_s == pytest.approx(2.0 / tokens)
    assert rates.engine.fixed_s > 0
    assert load.attempts(3) == 2.0


def test_rates_of_a_curriculum_are_those_of_its_last_number_of_iterations(tmp_path):
    log = RunLog.of(str(tmp_path), "nano-ppo", staging=tmp_path)
    for step, viter in enumerate((1, 1, 3)):
        log.metrics(step + 1, {**ROW, "viter": viter, "publish_s": 0.1 * viter}, stage="ppo")
        log.episodes(step, episodes(step))
    log.close()
    _, rates = like(str(tmp_path), "nano-ppo")
    assert rates.sync_s == pytest.approx(0.3)


def test_a_run_that_cannot_tell_rates_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no PPO stage of that name"):
        like(str(tmp_path), "absent-ppo")
    write(tmp_path, "stale-ppo", staleness_mean=0.8)
    with pytest.raises(DataError, match="overlapped its learning"):
        like(str(tmp_path), "stale-ppo")
