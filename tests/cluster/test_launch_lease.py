"""One driver for each run: a second one is refused before anything starts, and one cut off commits nothing more."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import interrupts, launch
from cluster.config import RunConfig
from envs.base import validated
from tests.trainers.checkpoint_files import INFO, local_store, object_store, writer
from trainers.checkpoints import Checkpoints
from trainers.lease import Lease, LeaseHeld, LeaseLost


def config(store: Path) -> RunConfig:
    data = {"name": "small", "sft": {"steps": 2}, "store": {"uri": str(store)}}
    return validated(RunConfig, data, source="test")


def test_a_second_driver_is_refused_before_anything_starts(tmp_path: Path):
    import ray

    with launch.leased(config(tmp_path), lambda _: None):
        with pytest.raises(LeaseHeld, match=rf"small/lease: held by the driver .* \(process {os.getpid()}, since"):
            launch.run(config(tmp_path), progress=lambda _: None)
        assert not ray.is_initialized()
        assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_a_driver_that_ended_leaves_the_lease_to_the_next(tmp_path: Path):
    with launch.leased(config(tmp_path), lambda _: None) as first:
        pass
    with launch.leased(config(tmp_path), lambda _: None) as second:
        assert second.token > first.token


@pytest.mark.parametrize("make", [local_store, object_store])
def test_a_writer_whose_lease_was_taken_publishes_nothing(make: Any, tmp_path: Path):
    store = make(tmp_path)
    lease = Lease.take(store, "gp/lease", holder="cut off", settle_s=0.2)
    checkpoints = Checkpoints(store, "gp-sft", fence=lease.fence)
    checkpoints.commit(1, writer(1), INFO)

    def taken_over_meanwhile(staged: Path) -> None:
        writer(2)(staged)
        lease.release()
        Lease.take(store, "gp/lease", holder="the next", settle_s=0.2)

    with pytest.raises(LeaseLost, match="the next"):
        checkpoints.commit(2, taken_over_meanwhile, INFO)
    assert checkpoints.steps() == [1]
    with pytest.raises(LeaseLost):
        checkpoints.commit(1, writer(9), INFO)  # nor is what stands there replaced
    assert Checkpoints(store, "gp-sft").newest().digest == checkpoints.get(1).digest


def test_the_driver_ends_when_its_lease_is_lost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cluster.learner_group.run", lambda _: signal.pause())
    lost = SimpleNamespace(lost=LeaseLost("taken over"))
    with pytest.raises(LeaseLost):
        launch._follow(SimpleNamespace(run="small-sft"), lost, SimpleNamespace(), lambda _: None)


class StageLog:
    """The remote log of a stage: `stop` is heard, and the learner commits a moment later."""

    def __init__(self) -> None:
        self.is_stopping = threading.Event()
        self.stop = SimpleNamespace(remote=self.is_stopping.set)


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Signals are heard as a command hears them; afterwards none has ever come."""
    monkeypatch.setattr(interrupts, "_preempted", None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupts.listen()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_only_after_the_learner_has_committed(
    number: int, listening: None, monkeypatch: pytest.MonkeyPatch
):
    """With real signals, amid the wait: Python takes a thread whose `join` they interrupt for ended."""
    log, order = StageLog(), []

    def train(job: Any) -> None:
        threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
        assert log.is_stopping.wait(20)
        time.sleep(0.3)
        order.append("committed")

    monkeypatch.setattr("cluster.learner_group.run", train)
    monkeypatch.setattr(launch, "_tell_news", lambda *_: None)
    job = SimpleNamespace(run="small-sft", stage="sft", log=log, settings=SimpleNamespace(steps=2), orchestrator=None)
    with pytest.raises(KeyboardInterrupt):
        launch._follow(job, SimpleNamespace(lost=None), SimpleNamespace(watch=lambda _: None), lambda _: None)
    order.append("passed on")
    assert order == ["committed", "passed on"]


def test_sigterm_and_ctrl_c_are_told_apart(listening: None):
    with pytest.raises(KeyboardInterrupt) as told:
        signal.raise_signal(signal.SIGINT)
    assert told.type is KeyboardInterrupt
    assert interrupts.meant(told.value) is told.value
    with pytest.raises(interrupts.Preempted) as preempted:
        signal.raise_signal(signal.SIGTERM)
    assert interrupts.meant(KeyboardInterrupt()) is preempted.value  # as Ray has it, where it waits
