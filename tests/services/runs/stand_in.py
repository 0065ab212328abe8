"""A cluster that takes jobs and trains none, and what drivers leave in a store."""

import threading
from pathlib import Path
from typing import Any

from cluster.config import RunConfig
from cluster.jobs import RunGoesOn
from envs.base import validated
from services.runs.groups import JobState
from trainers.runlog import RunLog


class StandInCluster:
    """Jobs are pending until they are stopped, or a test says otherwise."""

    def __init__(self) -> None:
        self.known: dict[str, JobState] = {}
        self.submitted: list[RunConfig] = []
        self.logs: dict[str, str] = {}
        self.may_end = threading.Event()
        self.may_end.set()

    def jobs(self) -> dict[str, JobState]:
        return dict(self.known)

    def submit(self, config: RunConfig) -> None:
        if config.name in self.known and self.known[config.name].is_live:
            raise RunGoesOn(f"run {config.name}: it is pending")
        self.submitted.append(config)
        steps = {stage: getattr(config, stage).steps for stage in config.stages}
        self.known[config.name] = JobState(id=config.name, status="pending", steps=steps, store=config.store.uri)
        self.logs[config.name] = ""

    def stop(self, name: str) -> None:
        assert self.may_end.wait(20)
        self.known[name] = self.known[name].model_copy(update={"status": "stopped"})

    def log(self, name: str) -> str:
        return self.logs[name]


def config(store: Path | str, name: str = "gp", **sections: Any) -> RunConfig:
    data = {"name": name, "store": {"uri": str(store)}, **(sections or {"sft": {"steps": 4}})}
    return validated(RunConfig, data, source="test")


def logged(store: Any, run: str, stage: str, steps: int, staging: Path) -> None:
    """Rows and events of a stage's first steps."""
    log = RunLog.of(store, run, staging=staging)
    log.event("learner_started", rank=0)
    for step in range(1, steps + 1):
        log.metrics(step, {"loss": 1.0 / step}, stage=stage)
    log.close()
