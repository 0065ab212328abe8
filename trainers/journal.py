"""The end of a step: numbers written down, a checkpoint when one is due, and whether to go on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from trainers.checkpoints import Checkpoint, CheckpointInfo, Checkpoints
from trainers.learner import Learner

MetricsSink = Callable[[int, dict[str, float]], object]


class Journal(Protocol):
    """What a training loop tells of itself."""

    def end_of_step(self, step: int, metrics: dict[str, float]) -> bool:
        """`step` steps are done. Collective. False asks the loop to return; a checkpoint has then been committed."""


class StageJournal:
    """The journal of one stage of a run. All ranks hold one; the first rank writes."""

    def __init__(
        self, learner: Learner, checkpoints: Checkpoints, *, steps: int, every: int,
        info: Callable[[dict[str, float]], CheckpointInfo], metrics: MetricsSink,
        on_commit: Callable[[Checkpoint, float], object] = lambda *_: None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        """`info` describes a checkpoint by the metrics of its step; `on_commit` is told it and the seconds it took;
        `is_stopping` is asked after each step."""
        self._learner, self._checkpoints, self._steps, self._every = learner, checkpoints, steps, every
        self._info, self._metrics, self._on_commit, self._is_stopping = info, metrics, on_commit, is_stopping
        self._last = time.perf_counter()

    def end_of_step(self, step: int, metrics: dict[str, float]) -> bool:
        measured, self._learner.measured = self._learner.measured, {}
        now = time.perf_counter()
        everything = metrics | measured | {
            "step_s": now - self._last,
            "nonfinite_skips": float(self._learner.nonfinite_skips),
            "flops": float(self._learner.spent.flops),
        }  # fmt: skip
        self._last = now
        is_writer = self._learner.rank == 0
        if is_writer:
            self._metrics(step, everything)
        stops = self._learner.sum(float(is_writer and self._is_stopping())) > 0
        if stops or step % self._every == 0 or step == self._steps:
            self._commit(step, everything, is_writer=is_writer)
        return not stops

    def _commit(self, step: int, metrics: dict[str, float], *, is_writer: bool) -> None:
        if is_writer:
            started = time.perf_counter()
            checkpoint = self._checkpoints.commit(step, self._learner.save, self._info(metrics))
            self._on_commit(checkpoint, time.perf_counter() - started)
        else:
            self._learner.save(Path())  # gives its shards to the writer, writes nothing
        self._learner.barrier()
