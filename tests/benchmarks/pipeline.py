"""The whole PPO step: does learning hide rollouts when a step of staleness is allowed?"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

from cluster import launch
from cluster.config import RunConfig
from envs.base import validated
from trainers.runlog import read_metrics

STEPS, WARM = 8, 2


def rows() -> list[dict[str, Any]]:
    """Two runs in turn of the demo's shape: synchronous for the parts, one step stale for the whole."""
    synchronous, stale = (_run(staleness) for staleness in (0, 1))
    rollout = _median(synchronous, "rollout_wait_s")
    learn = _median(synchronous, "score_s") + _median(synchronous, "update_s")
    step = _median(stale, "step_s")
    note = (
        f"step {step:.2f} s; alone: rollout {rollout:.2f} s, learn {learn:.2f} s, synchronous step "
        f"{_median(synchronous, 'step_s'):.2f} s; engine, worker and learner share this machine's cores"
    )
    return [
        {
            "name": "PPO step at max_staleness 1 ÷ max(rollout, learn)",
            "value": step / max(rollout, learn),
            "unit": "ratio",
            "target": "≤ 1.20",
            "note": note,
        },
        {
            "name": "nano weight sync within a run (pack, send, confirm)",
            "value": _median(synchronous, "publish_s"),
            "unit": "s",
            "target": "≤ 0.2",
            "note": "median over steps, all engines",
        },
    ]


def _run(max_staleness: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="viter-bench-") as store:
        config = validated(RunConfig, _settings(store, max_staleness), source="benchmark")
        launch.run(config, progress=lambda _: None)
        return read_metrics(Path(store) / "bench-ppo")[WARM:]


def _settings(store: str, max_staleness: int) -> dict[str, Any]:
    return {
        "name": "bench",
        "model": {"source": "deploy/models/nano-gp-base", "dtype": "float32"},
        "ppo": {
            "steps": STEPS, "episodes": 128, "deals": 300, "unit": "token", "gamma": 0, "lam": 1, "answer_tokens": 48,
            "critic_detached": True, "schedule": {"learning_rate": 1e-6}, "max_staleness": max_staleness,
        },
        "learner": {"row_tokens": 512, "rows_per_pass": 8},
        "rollout": {"engine": {"max_model_len": 512}},
        "store": {"uri": store},
    }  # fmt: skip


def _median(metrics: list[dict[str, Any]], key: str) -> float:
    return statistics.median(row[key] for row in metrics)
