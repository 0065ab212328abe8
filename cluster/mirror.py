"""A stage's numbers for Prometheus: what the run log and the orchestrator say anyway, told once more by the driver alone."""

import math
import time
from collections.abc import Mapping
from typing import Any

from cluster import metrics
from cluster.config import RunConfig
from cluster.metrics import Meters, Series
from cluster.stage_log import Progress

RETRIES = {"verifier_retries": "verdict", "episodes_lost_and_requeued": "worker", "episodes_stale": "stale"}
"""Sums of the orchestrator that count something done again, and the reason they are shown under."""
LOSSES = {"verifier_timeouts": "timeout", "verifier_deaths": "crashed"}
SUMS = {
    "worker_restarts": metrics.WORKER_RESTARTS,
    "verifier_calls": metrics.VERIFIER_CALLS,
    "verifier_call_s": metrics.VERIFIER_CALL_SECONDS,
}


class RunMirror:
    """Shows one stage of a run. `tell` hears its news; `watch` asks the orchestrator, and keeps gauges from fading."""

    def __init__(self, meters: Meters, config: RunConfig, stage: str) -> None:
        self._meters, self._stage = meters, stage
        self._run, self._environment = config.name, config.environment.name
        self._store, self._steps = config.store.uri, getattr(config, stage).steps
        self._gauges: dict[tuple[Series, tuple[tuple[str, str], ...]], float] = {}
        self._sums: dict[str, float] = {}  # the orchestrator's, as they were told last
        self._skips: float | None = 0.0  # as told last; None while those of a resumed learner are unknown
        self._starts = 0  # learner groups since `begin`
        self._watched_at = -math.inf
        self._asked: Any = None  # reference to the orchestrator's next sums

    def begin(self, step: int, *, resumes: bool) -> None:
        """The stage starts, or is taken up again, after `step` steps."""
        self._skips = None if resumes else 0.0
        self._add(metrics.RESUMES, float(resumes), stage=self._stage, by="run")
        self._add(metrics.RESUMES, 0, stage=self._stage, by="learner_restart")
        self._add(metrics.NONFINITE_SKIPS, 0, stage=self._stage)
        self._add(metrics.CHECKPOINTS, 0, stage=self._stage)
        self._set(metrics.STEP, step, stage=self._stage)
        self._set(metrics.STEPS, self._steps, stage=self._stage)
        self._set(metrics.CHECKPOINT_TIME, time.time(), stage=self._stage)

    def tell(self, news: Progress) -> None:
        if news.metrics:
            self._step(news.step, news.metrics)
        elif news.event == "checkpoint":
            self._add(metrics.CHECKPOINTS, stage=self._stage)
            self._set(metrics.CHECKPOINT_TIME, time.time(), stage=self._stage)
            self._set(metrics.CHECKPOINT_SECONDS, news.fields["seconds"], stage=self._stage)
            self._set(metrics.CHECKPOINT_BYTES, news.fields["bytes"], stage=self._stage)
        elif news.event == "quarantined":
            self._episodes(quarantined=1)
        elif news.event == "learner_started" and news.fields["rank"] == 0:
            self._add(metrics.RESUMES, float(self._starts > 0), stage=self._stage, by="learner_restart")
            self._starts += 1

    def watch(self, orchestrator: Any) -> None:
        """Every few seconds: set all gauges again, and tell the orchestrator's sums if there are any. Waits for nobody."""
        if time.monotonic() - self._watched_at < metrics.REFRESH_S:
            return
        self._watched_at = time.monotonic()
        if orchestrator is not None:
            self._episodes(solved=0, unsolved=0, quarantined=0)
            self._ask(orchestrator)
        for (series, labels), value in self._gauges.items():
            self._meters.set(series, value, **dict(labels))
        metrics.show_room(self._meters, self._store)

    def _ask(self, orchestrator: Any) -> None:
        import ray
        from ray.exceptions import RayError

        if self._asked is not None and ray.wait([self._asked], timeout=0)[0]:
            try:
                self.rollouts(ray.get(self._asked))
            except RayError:  # it died; Ray starts it again, and whoever waits for it hears of it
                self._sums = {}
            self._asked = None
        if self._asked is None:
            self._asked = orchestrator.stats.remote()

    def rollouts(self, stats: Mapping[str, float]) -> None:
        """The orchestrator's sums since its start, and where it stands."""
        for name, series in SUMS.items():
            self._add(series, self._grown(name, stats))
        for name, reason in RETRIES.items():
            self._add(metrics.EPISODE_RETRIES, self._grown(name, stats), reason=reason)
        for name, status in LOSSES.items():
            self._meters.add(metrics.VERIFY_FAILURES, self._grown(name, stats), status=status)
        self._set(metrics.VERIFIER_QUEUE, stats.get("verifier_queue", 0.0))
        self._set(metrics.WEIGHT_VERSION, stats["weight_version"], role="engines")

    def _step(self, step: int, numbers: Mapping[str, float]) -> None:
        self._set(metrics.STEP, step, stage=self._stage)
        for name, series in metrics.FROM_METRICS.items():
            if math.isfinite(numbers.get(name, math.nan)):
                self._set(series, numbers[name], stage=self._stage)
        for phase in metrics.PHASES:
            if (seconds := numbers.get(f"{phase}_s")) is not None:
                labels = {"run": self._run, "stage": self._stage, "phase": phase}
                self._meters.observe(metrics.STEP_SECONDS, seconds, **labels)
                self._meters.add(metrics.PHASE_SECONDS, seconds, **labels)
        skips = numbers["nonfinite_skips"]
        new_skips = 0.0 if self._skips is None else max(0.0, skips - self._skips)  # fewer after a restart from a commit
        self._add(metrics.NONFINITE_SKIPS, new_skips, stage=self._stage)
        self._skips = skips
        if "episodes" in numbers:
            self._rollout(step, numbers)

    def _rollout(self, step: int, numbers: Mapping[str, float]) -> None:
        solved = round(numbers["episodes"] * numbers["success_rate"])
        self._episodes(solved=solved, unsolved=numbers["episodes"] - solved)
        self._add(metrics.ROLLOUT_TOKENS, numbers["tokens_sampled"], kind="sampled")
        self._add(metrics.ROLLOUT_TOKENS, numbers["tokens_prefilled"], kind="prompt")
        self._set(metrics.STALENESS, numbers["staleness_mean"])
        self._set(metrics.WEIGHT_VERSION, step, role="learner")

    def _episodes(self, **outcomes: float) -> None:
        for outcome, count in outcomes.items():
            self._add(metrics.EPISODES, count, environment=self._environment, split="train", outcome=outcome)

    def _add(self, series: Series, amount: float = 1.0, **labels: str) -> None:
        self._meters.add(series, amount, run=self._run, **labels)

    def _set(self, series: Series, value: float, **labels: str) -> None:
        named = {"run": self._run, **labels}
        self._gauges[series, tuple(sorted(named.items()))] = value
        self._meters.set(series, value, **named)

    def _grown(self, name: str, stats: Mapping[str, float]) -> float:
        """How much a sum grew. One that fell lost the part of a dead worker, or started anew: nothing is counted then."""
        now = stats.get(name, 0.0)
        before, self._sums[name] = self._sums.get(name, 0.0), now
        return max(0.0, now - before)
