"""Every series that Viter shows to Prometheus, by name, and how numbers get there.

    driver ─► mirror ─┐
    gateway, engines ─┼─► Meters ─► Ray's agent of the node ─► GET /metrics on its metrics port, with `ray_` before each name
    evaluations ──────┘

Ray gathers from every process of every node, so several gateways and engines add up. A counter keeps its last value when
its process ends. A gauge fades 20 seconds after it was last set, so whoever has one sets it again every few seconds: what
nobody vouches for any more is gone, and old values of a label need no removing. A histogram's sum is made of the
middles of its buckets: where seconds must be exact, a counter has them. Labels are bounded: a route is its
template, a digest its first characters.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from trainers.disk import free_bytes

PREFIX = "ray_"  # what Ray puts before every name
REFRESH_S = 5.0  # gauges are set again this often
DIGEST_CHARACTERS = 12

LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
LONG = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
VERDICT = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10)

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One name, and what its values mean."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """The name that Prometheus sees."""
        return PREFIX + self.name

    @property
    def samples(self) -> tuple[str, ...]:
        """The names of its samples: a histogram has three."""
        parts = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return tuple(self.exported + part for part in parts)


def _counter(name: str, help: str, *labels: str) -> Series:
    return Series(name=f"viter_{name}_total", kind="counter", help=help, labels=labels)


def _gauge(name: str, help: str, *labels: str) -> Series:
    return Series(name=f"viter_{name}", kind="gauge", help=help, labels=labels)


def _histogram(name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Series:
    return Series(name=f"viter_{name}", kind="histogram", help=help, labels=labels, buckets=buckets)


# ---- the service ----------------------------------------------------------------------------------------------------

HTTP_REQUESTS = _counter("http_requests", "Requests answered.", "route", "method", "code")
HTTP_SECONDS = _histogram("http_request_seconds", "From a request to the end of its answer.", LATENCY, "route")
HTTP_IN_PROGRESS = _gauge("http_in_progress", "Requests being answered; there while a gateway lives.")
HTTP_REJECTED = _counter("http_rejected", "Requests turned away, by why.", "reason")

ENGINE_HOLDS = _gauge("engine_holds", "Engines that hold a checkpoint.", "digest")
ENGINE_REQUESTS = _gauge("engine_requests", "Requests and episodes inside engines.")
ENGINE_WAITING = _gauge("engine_waiting", "Requests and episodes waiting for an engine to hold their checkpoint.")
ENGINE_SWAPS = _counter("engine_swaps", "Checkpoints loaded: in_place, or by a start.", "how")
ENGINE_SWAP_SECONDS = _histogram("engine_swap_seconds", "Loading a checkpoint.", LONG, "how")
ENGINE_LOADING = _counter("engine_loading_seconds", "Seconds spent loading checkpoints.", "how")
ENGINE_FAILURES = _counter("engine_failures", "Engines found dead.")
TOKENS = _counter("tokens", "Tokens of served work: prompt or sampled; completion or episode.", "kind", "work")

EVALUATIONS = _gauge("evaluations", "Evaluations: queued or in_progress.", "state")
EVALUATIONS_ENDED = _counter("evaluations_ended", "Evaluations: completed, failed or canceled.", "state")
EVALUATION_ITEMS = _counter("evaluation_items", "Episodes played: solved, unsolved or quarantined.", "outcome")
EVALUATION_ITEM_SECONDS = _histogram("evaluation_item_seconds", "One episode, waiting for its engine included.", LONG)
VERIFY_SECONDS = _histogram("verify_seconds", "One call of the service to a verifier.", VERDICT)
VERIFY_FAILURES = _counter("verify_failures", "Verifier calls that brought no verdict: crashed or timeout.", "status")

# ---- training runs: the driver tells them -----------------------------------------------------------------------------

STEP = _gauge("train_step", "Steps done; there while the stage runs.", "run", "stage")
STEPS = _gauge("train_steps", "Steps to do.", "run", "stage")
STEP_SECONDS = _histogram("train_step_seconds", "A step, and its phases.", LONG, "run", "stage", "phase")
PHASE_SECONDS = _counter("train_phase_seconds", "Seconds of steps, and of their phases.", "run", "stage", "phase")
EPISODES = _counter("episodes", "Episodes learnt from, or quarantined.", "run", "environment", "split", "outcome")
ROLLOUT_TOKENS = _counter("rollout_tokens", "Tokens of rollouts: prompt or sampled.", "run", "kind")
EPISODE_RETRIES = _counter("episode_retries", "Asked again: verdict, worker or stale.", "run", "reason")
WORKER_RESTARTS = _counter("worker_restarts", "Rollout workers replaced.", "run")
VERIFIER_CALLS = _counter("verifier_calls", "Batches judged.", "run")
VERIFIER_CALL_SECONDS = _counter("verifier_call_seconds", "Seconds of verifier calls.", "run")
VERIFIER_QUEUE = _gauge("verifier_queue_depth", "Answers waiting for a verifier.", "run")
WEIGHT_VERSION = _gauge("weight_version", "Newest weights of the learner, and of the engines.", "run", "role")
STALENESS = _gauge("staleness_steps", "Mean steps between sampling and learning.", "run")
RESUMES = _counter("resumes", "Stages taken up again: by a run, or by a restarted learner.", "run", "stage", "by")
NONFINITE_SKIPS = _counter("nonfinite_skips", "Updates skipped for a gradient that was not finite.", "run", "stage")
CHECKPOINTS = _counter("checkpoints", "Checkpoints committed.", "run", "stage")
CHECKPOINT_SECONDS = _gauge("checkpoint_seconds", "What the newest commit took.", "run", "stage")
CHECKPOINT_BYTES = _gauge("checkpoint_bytes", "Size of the newest checkpoint.", "run", "stage")
CHECKPOINT_TIME = _gauge("checkpoint_timestamp_seconds", "When it was committed, or the stage began.", "run", "stage")

FROM_METRICS = {
    "reward_mean": _gauge("reward_mean", "Mean reward of a step's episodes.", "run", "stage"),
    "success_rate": _gauge("success_rate", "Share of a step's episodes that were solved.", "run", "stage"),
    "loss": _gauge("loss", "Loss.", "run", "stage"),
    "kl": _gauge("ppo_kl", "Approximate KL of the update.", "run", "stage"),
    "clip_fraction": _gauge("clip_fraction", "Share of tokens whose ratio was clipped.", "run", "stage"),
    "entropy": _gauge("entropy", "Entropy of the policy, in nats per token.", "run", "stage"),
    "explained_variance": _gauge("explained_variance", "Of returns, by the critic.", "run", "stage"),
    "grad_norm": _gauge("grad_norm", "Norm of the gradient before clipping.", "run", "stage"),
    "lr": _gauge("learning_rate", "Learning rate of the policy.", "run", "stage"),
    "logp_gap": _gauge("logp_gap", "Mean gap of learner's and engine's log-probs.", "run", "stage"),
    "slots_idle": _gauge("slots_idle", "Share of the engines' slots without an episode.", "run", "stage"),
}
"""Gauges that show a number of the run log as it is, by its name there."""
PHASES = ("rollout_wait", "score", "update", "publish", "probe", "step")
"""Phases of a step: the run log has them with `_s` behind."""

# ---- both -------------------------------------------------------------------------------------------------------------

STORE_FREE_BYTES = _gauge("store_free_bytes", "Room on the disk of a local store.")

SERIES: tuple[Series, ...] = tuple(
    each for each in (*globals().values(), *FROM_METRICS.values()) if isinstance(each, Series)
)


class Meters(Protocol):
    """Where numbers go."""

    def add(self, series: Series, amount: float = 1.0, **labels: str) -> None:
        """Count. An amount of 0 shows the series, so that Prometheus sees its first event as an increase."""

    def set(self, series: Series, value: float, **labels: str) -> None: ...

    def observe(self, series: Series, value: float, **labels: str) -> None: ...


class Unmeasured:
    """Nobody looks."""

    def add(self, series: Series, amount: float = 1.0, **labels: str) -> None: ...

    def set(self, series: Series, value: float, **labels: str) -> None: ...

    def observe(self, series: Series, value: float, **labels: str) -> None: ...


UNMEASURED = Unmeasured()


class RayMeters:
    """Ray's exporter. What is told before this process is connected to Ray is lost."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def add(self, series: Series, amount: float = 1.0, **labels: str) -> None:
        self._metric(series)._record(amount, labels)  # `inc` refuses 0

    def set(self, series: Series, value: float, **labels: str) -> None:
        self._metric(series).set(value, labels)

    def observe(self, series: Series, value: float, **labels: str) -> None:
        self._metric(series).observe(value, labels)

    def _metric(self, series: Series) -> Any:
        if series.name not in self._made:
            from ray.util import metrics

            named = {"name": series.name, "description": series.help, "tag_keys": series.labels}
            if series.kind == "counter":
                self._made[series.name] = metrics.Counter(**named)
            elif series.kind == "gauge":
                self._made[series.name] = metrics.Gauge(**named)
            else:
                self._made[series.name] = metrics.Histogram(**named, boundaries=list(series.buckets))
        return self._made[series.name]


def show_room(meters: Meters, store: str) -> None:
    """What is free on the disk of a local store."""
    if "://" not in store:
        meters.set(STORE_FREE_BYTES, free_bytes(Path(store)))
