import json
import math
import multiprocessing
import subprocess
from pathlib import Path

import pandas
import pyarrow.parquet
import pytest

from envs.base import DataError
from tests.trainers.checkpoint_files import object_store
from tests.trainers.episodes import assert_same, plain_episode
from trainers.checkpoints import StoreFull
from trainers.disk import free_bytes
from trainers.runlog import RunLog, episode_steps, read_episodes, read_events, read_metrics


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(tmp_path / "runs/gp-ppo")


def test_a_number_that_is_not_finite_is_null_and_its_name_is_listed(log: RunLog):
    log.metrics(1, {"loss": 0.5, "kl": math.nan, "ratio": math.inf}, stage="ppo")
    (row,) = read_metrics(log.directory)
    assert (row["step"], row["stage"], row["loss"], row["kl"], row["ratio"]) == (1, "ppo", 0.5, None, None)
    assert row["not_finite"] == ["kl", "ratio"]
    assert "NaN" not in (log.directory / "metrics.jsonl").read_text()


def test_the_same_numbers_stand_in_tensorboard(log: RunLog):
    from tensorboardX.proto.event_pb2 import Event

    log.metrics(3, {"loss": 0.5}, stage="ppo")
    log.close()
    (path,) = (log.directory / "tensorboard").iterdir()
    data, found = path.read_bytes(), []
    while data:  # records: length (8 bytes), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    assert found == [("ppo/loss", 3, 0.5)]


def test_a_resumed_run_drops_what_came_after_its_checkpoint(log: RunLog):
    for step in (1, 2, 3, 4):
        log.metrics(step, {"loss": step}, stage="ppo")
        log.episodes(step, [plain_episode(step=step)])
    log.event("worker_replaced", worker="rollout-1")
    log.close()
    resumed = RunLog(log.directory)
    resumed.rewind(2)
    resumed.metrics(3, {"loss": 30.0}, stage="ppo")
    resumed.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(log.directory)] == [(1, 1), (2, 2), (3, 30)]
    assert episode_steps(log.directory) == [1, 2]
    assert [event["kind"] for event in read_events(log.directory)] == ["worker_replaced", "rewound"]


def test_steps_done_again_after_a_restart_replace_their_rows(log: RunLog):
    for step, loss in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 20.0), (3, 30.0)):
        log.metrics(step, {"loss": loss}, stage="ppo")
    assert [row["loss"] for row in read_metrics(log.directory)] == [1.0, 20.0, 30.0]
    assert [(event["kind"], event["step"]) for event in read_events(log.directory)] == [("rewound", 1)]


def test_a_line_that_a_kill_cut_off_was_never_written(log: RunLog):
    log.metrics(1, {"loss": 1.0}, stage="ppo")
    with (log.directory / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert [row["step"] for row in read_metrics(log.directory)] == [1]
    log.rewind(1)
    log.metrics(2, {"loss": 2.0}, stage="ppo")
    assert [row["step"] for row in read_metrics(log.directory)] == [1, 2]


def test_a_damaged_line_in_the_middle_is_told_with_its_number(log: RunLog):
    log.directory.mkdir(parents=True)
    (log.directory / "events.jsonl").write_text('{"kind": "a"}\nnonsense\n{"kind": "b"}\n')
    with pytest.raises(DataError, match=r"events\.jsonl: line 2 is not JSON"):
        read_events(log.directory)


def write_events(directory: Path, name: str) -> None:
    log = RunLog(directory)
    for number in range(200):
        log.event("tick", name=name, number=number, padding="x" * 300)


def test_processes_that_log_events_together_keep_every_line_whole(log: RunLog):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_events, args=(log.directory, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
    events = read_events(log.directory)
    for name in "abc":
        assert [event["number"] for event in events if event["name"] == name] == list(range(200))


def test_logged_episodes_come_back_exactly(log: RunLog):
    logged = [plain_episode(index) for index in range(5)]
    log.episodes(1, logged)
    for found, expected in zip(read_episodes(log.directory, 1), logged, strict=True):
        assert_same(found, expected)
    log.episodes(2, [])
    assert read_episodes(log.directory, 2) == []


def test_people_read_episodes_with_their_own_tools(log: RunLog):
    log.episodes(1, [plain_episode()])
    path = log.directory / "episodes/step-000001.parquet"
    row = pandas.read_parquet(path).iloc[0]
    assert (list(row["answers"]), list(row["feedback"])) == (["7*7", "24"], ["no", "yes"])
    assert (list(row["statuses"]), row["reward"], row["success"]) == (["wrong_value", "correct"], 4.0, True)
    assert pyarrow.parquet.read_table(path, columns=["task"]).column("task")[0].as_py()["id"] == "C7-CK"


def test_missing_and_damaged_episodes_are_data_errors(log: RunLog):
    log.episodes(1, [plain_episode()])
    with pytest.raises(DataError, match=r"there are those of \[1\]"):
        read_episodes(log.directory, 2)
    path = log.directory / "episodes/step-000001.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_episodes(log.directory, 1)


def test_a_run_says_what_it_ran_on(log: RunLog):
    log.environment(devices=["cpu"])
    log.config({"name": "gp", "ppo": {"steps": 3}})
    environment = json.loads((log.directory / "environment.json").read_text())
    assert environment["packages"]["pyarrow"] == pyarrow.__version__
    assert environment["devices"] == ["cpu"]
    assert json.loads((log.directory / "config.json").read_text())["ppo"]["steps"] == 3


def test_a_remote_log_is_mirrored_and_goes_on_from_another_machine(tmp_path: Path):
    store = object_store(tmp_path)
    first = RunLog.of(store, "gp-ppo", staging=tmp_path / "machine-a")
    first.metrics(1, {"loss": 1.0}, stage="ppo")
    first.metrics(2, {"loss": 2.0}, stage="ppo")
    first.episodes(2, [plain_episode()])
    first.sync()
    second = RunLog.of(store, "gp-ppo", staging=tmp_path / "machine-b")
    second.rewind(1)
    second.metrics(2, {"loss": 20.0}, stage="ppo")
    second.close()
    third = RunLog.of(store, "gp-ppo", staging=tmp_path / "machine-c")
    assert [row["loss"] for row in read_metrics(third.directory)] == [1.0, 20.0]
    assert episode_steps(third.directory) == []


def test_a_local_log_lies_in_the_run_itself(tmp_path: Path):
    log = RunLog.of(tmp_path, "gp-ppo", staging=tmp_path / "unused")
    log.event("started")
    assert (tmp_path / "gp-ppo/events.jsonl").exists()
    assert not (tmp_path / "unused").exists()


def test_a_full_disk_is_one_sentence_and_what_was_logged_is_intact(tmp_path: Path):
    mount = tmp_path / "disk"
    mount.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount], check=True, capture_output=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        pytest.skip("needs the right to mount a small file system")
    try:
        log = RunLog(mount / "gp")
        log.event("started")
        (mount / "filler").write_bytes(bytes(free_bytes(mount)))
        with pytest.raises(StoreFull, match="disk full: the next entry needs"):
            log.event("long", words="x" * 10_000)
        with pytest.raises(StoreFull):
            log.episodes(1, [plain_episode()])
        (mount / "filler").unlink()
        log.event("went on")
        assert [event["kind"] for event in read_events(log.directory)] == ["started", "went on"]
    finally:
        subprocess.run(["umount", mount], check=True, timeout=10)
