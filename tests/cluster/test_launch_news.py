"""What a driver passes on from the orchestrator to the stage's log."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from cluster import launch
from cluster.config import RunConfig
from cluster.quarantine import Artefact, Case
from cluster.rollout import Quarantined
from cluster.stage_log import Progress, StageLog
from cluster.tally import Event, Tally
from envs.base import validated
from envs.task import Status
from tests.cluster.players import game
from trainers.runlog import read_events


class Here:
    """An object of this process that is called as if it were an actor."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._inner, name))


class Rollouts:
    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def events(self) -> list[Event]:
        return self._tally.drain()


def test_a_quarantined_episode_is_told_in_short_and_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    config = validated(RunConfig, {"name": "run", "ppo": {"steps": 4, "seed": 7, "viter": 3}}, source="test")
    task, tally, told = game().sample(7, "train", 3, 5), Tally(), []
    outcome = Quarantined(
        task=task, status=Status.TIMEOUT, reason="slow", state=game().start(task), answer="24", weight_version=3
    )
    tally.event("worker_ready", worker="rollout-0")
    tally.quarantined(
        Case(step=3, index=5, reason="slow", time=1.0, worker="rollout-0", weight_version=3, outcome=outcome)
    )
    log = StageLog(str(tmp_path), "run-ppo", "ppo", 4, {}, 0)
    job = SimpleNamespace(
        orchestrator=Here(Rollouts(tally)), log=Here(log), config=config, source="nano-start", run="run-ppo"
    )
    launch._tell_news(job, SimpleNamespace(tell=lambda _: None), told.append)  # type: ignore[arg-type]

    assert [event["kind"] for event in read_events(tmp_path / "run-ppo")] == ["worker_ready", "quarantined"]
    assert [isinstance(news, Progress) and news.event for news in told] == ["worker_ready", "quarantined"]
    (kept,) = (tmp_path / "run-ppo" / "quarantine").iterdir()
    artefact = Artefact.load(kept)
    assert kept.name == "step-000003-index-000005.json"
    assert (artefact.task, artefact.answer, artefact.run, artefact.source) == (task, "24", "run-ppo", "nano-start")
