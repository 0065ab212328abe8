"""What learner ranks and the orchestrator say about a stage, written beside the driver and told to it in order."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from envs.base import ViterError
from trainers.episode import Episode
from trainers.episode_arrow import from_batch
from trainers.runlog import RunLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One piece of news of a run, for a console."""

    stage: str
    step: int
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    message: str = ""
    event: str = ""  # the kind of an event, whose words are the message
    fields: dict[str, Any] = field(default_factory=dict)


class StageLog:
    """A RunLog that many processes write to. The driver calls `drain` to show what came in since."""

    def __init__(self, store: str, run: str, stage: str, steps: int, config: dict[str, Any], resumed_at: int) -> None:
        self._log = RunLog.of(store, run, staging=Path(tempfile.gettempdir()) / "viter-runlogs")
        self._log.config(config)
        self._log.environment()
        self._log.rewind(resumed_at)
        self._stage, self._steps = stage, steps
        self._news: list[Progress] = []
        self._shares: dict[int, list[list[Episode]]] = {}
        self._stopping = False
        self._mistake: ViterError | None = None
        self._starts: tuple[int, int] = (-1, 0)  # the commit that the gang started from last, and how often in a row

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._log.metrics(step, values, stage=self._stage)
        self._log.sync()
        self._news.append(Progress(stage=self._stage, step=step, steps=self._steps, metrics=values))
        if skipped := values.get("skipped"):  # in PPO the mean over a step's updates
            self.event("updates_skipped", {"step": step, "share": skipped, "so_far": values.get("nonfinite_skips")})

    def event(self, kind: str, fields: dict[str, Any]) -> None:
        self._log.event(kind, **fields)
        words = " ".join(f"{key}={value}" for key, value in fields.items())
        told = Progress(
            stage=self._stage, step=-1, steps=self._steps, message=f"{kind} {words}".strip(), event=kind, fields=fields
        )
        self._news.append(told)

    def quarantined(self, step: int, index: int, artefact: str) -> None:
        self._log.quarantined(step, index, artefact)
        self._log.sync()

    def episodes(self, step: int, world_size: int, batches: list[pa.RecordBatch]) -> None:
        """One rank's share of a step; written once the shares of all ranks are here."""
        shares = self._shares.setdefault(step, [])
        shares.append([episode for batch in batches for episode in from_batch(batch)])
        if len(shares) == world_size:
            everyone = [episode for share in self._shares.pop(step) for episode in share]
            self._log.episodes(step, sorted(everyone, key=lambda episode: episode.index))

    def drain(self) -> list[Progress]:
        news, self._news = self._news, []
        return news

    def stop(self) -> None:
        """Ask the learner to commit a checkpoint and return after its current step."""
        self._stopping = True

    def is_stopping(self) -> bool:
        return self._stopping

    def starts_from(self, step: int) -> int:
        """The gang starts from the commit of `step`. Returns how often in a row it has."""
        commit, count = self._starts
        self._starts = (step, count + 1 if commit == step else 1)
        return self._starts[1]

    def give_up(self, mistake: ViterError) -> None:
        """A rank met what no restart will mend. Told to the driver once the gang has ended."""
        self._mistake = self._mistake or mistake

    def mistake(self) -> ViterError | None:
        return self._mistake
