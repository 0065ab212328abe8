"""Runs as their store tells them: local or remote, trained, cut off, stopped, and only known as a job."""

from pathlib import Path
from typing import Any

import pytest

from cluster import launch, run_record
from services.runs.groups import Groups, JobState, RunMissing
from tests.services.conftest import commit
from tests.services.runs.stand_in import config, logged
from tests.trainers.checkpoint_files import INFO, local_store, object_store, writer
from trainers.checkpoints import Checkpoints
from trainers.lease import Lease


def groups_of(store: Any) -> Groups:
    groups = Groups(store.uri)
    groups._opened = store
    return groups


def job(status: str, **more: Any) -> JobState:
    return JobState(id="gp", status=status, **more)


@pytest.mark.parametrize("make", [local_store, object_store])
def test_a_trained_stage_is_told_with_its_numbers_and_checkpoints(make: Any, tmp_path: Path):
    store = make(tmp_path)
    logged(store, "gp-sft", "sft", 3, tmp_path / "staging")
    Checkpoints(store, "gp-sft").commit(2, writer(2), INFO)
    groups = groups_of(store)
    group = groups.get("gp", job("running", steps={"sft": 4, "ppo": 10}))
    sft, ppo = group.stages
    assert (sft.id, sft.stage, sft.step, sft.steps) == ("gp-sft", "sft", 3, 4)
    assert sft.metrics["loss"] == pytest.approx(1 / 3)
    assert sft.checkpoints == ["gp-sft@step-000002"]
    assert (ppo.step, ppo.steps, ppo.checkpoints, ppo.metrics) == (0, 10, [], {})
    assert (group.status, group.has_report) == ("running", False)
    assert [row["step"] for row in groups.metrics("gp", "sft")] == [1, 2, 3]
    assert [(row["kind"], row["stage"]) for row in groups.events("gp")] == [("learner_started", "sft")]


@pytest.mark.parametrize("make", [local_store, object_store])
def test_what_is_written_later_is_told_later(make: Any, tmp_path: Path):
    store = make(tmp_path)
    groups = groups_of(store)
    for steps in (1, 3):
        logged(store, "gp-ppo", "ppo", steps, tmp_path / f"staging-{steps}")
        Checkpoints(store, "gp-ppo").commit(steps, writer(steps), INFO)
        stage = groups.get("gp", None).stages[0]
        assert (stage.step, stage.checkpoints[-1]) == (steps, f"gp-ppo@step-{steps:06d}")
        assert groups.metrics("gp", "ppo")[-1]["step"] == steps


def test_a_driver_that_works_ends_fails_or_is_cut_off_is_told_so(tmp_path: Path):
    groups, run = Groups(str(tmp_path)), config(tmp_path)
    with launch.leased(run, lambda _: None):
        group = groups.get("gp", None)
        assert group.status == "running"
        assert "(process " in (group.driver or "")
        assert group.stages[0].steps == 4
    assert groups.get("gp", None).status == "finished"
    with pytest.raises(KeyboardInterrupt), launch.leased(run, lambda _: None):
        raise KeyboardInterrupt
    assert groups.get("gp", None).status == "stopped"
    with pytest.raises(ValueError, match="two"), launch.leased(run, lambda _: None):
        raise ValueError("a sentence\nin two lines")
    group = groups.get("gp", None)
    assert (group.status, group.error) == ("failed", "a sentence in two lines")
    created = group.created_at
    with pytest.raises(KeyboardInterrupt), launch.leased(run, lambda _: None) as lease:
        lease.release()  # as its silence would
        Lease.take(str(tmp_path), "gp/lease", holder="another driver").release()
        raise KeyboardInterrupt
    group = groups.get("gp", None)
    assert (group.status, group.driver, group.created_at) == ("interrupted", None, created)


def test_a_job_counts_where_no_driver_noted_anything(tmp_path: Path):
    groups = Groups(str(tmp_path))
    assert groups.get("gp", job("pending", steps={"sft": 4})).status == "running"
    failed = groups.get("gp", job("failed", message="the environment cannot be made"))
    assert (failed.status, failed.error) == ("failed", "the environment cannot be made")
    assert groups.get("gp", job("stopped")).status == "stopped"
    with pytest.raises(RunMissing, match="holds none"):
        groups.get("gp", None)


def test_a_store_from_before_records_tells_whether_its_runs_are_complete(tmp_path: Path):
    logged(tmp_path, "gp-sft", "sft", 4, tmp_path)
    (tmp_path / "gp-sft" / "config.json").write_text('{"sft": {"steps": 4}}')
    groups = Groups(str(tmp_path))
    assert groups.get("gp", None).status == "finished"
    (tmp_path / "gp-sft" / "config.json").write_text('{"sft": {"steps": 400}}')
    assert groups.get("gp", None).status == "interrupted"


def test_all_runs_are_listed_the_newest_first_and_nothing_else(tmp_path: Path):
    for name in ("old", "new"):
        with launch.leased(config(tmp_path, name), lambda _: None):
            pass
    commit(tmp_path, "a-ppo", 1)
    commit(tmp_path, "imported", 1)  # checkpoints without a stage
    (tmp_path / "service").mkdir()
    found = Groups(str(tmp_path)).all({"only-a-job": job("pending", started_at=1.0)})
    assert [group.id for group in found] == ["new", "old", "only-a-job", "a"]


def test_a_damaged_record_hides_nothing(tmp_path: Path):
    commit(tmp_path, "gp-sft", 1)
    (tmp_path / "gp").mkdir()
    (tmp_path / run_record.record_path("gp")).write_text("{")
    assert Groups(str(tmp_path)).get("gp", None).stages[0].step == 1
