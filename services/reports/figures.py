"""The figures of a report: from measured points and logged metrics to charts. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.reports.charts import Dot, Series, lines, scatter
from services.reports.measured import RATE_NAMES, STAGE_NAMES, Measured, Point, told

BRANCHES = ("sft_branch", "ppo")
CURVES = {
    "sft": ("loss", "entropy", "grad_norm"),
    "sft_branch": ("loss", "entropy", "grad_norm"),
    "ppo": ("reward_mean", "success_rate", "kl", "entropy", "clip_fraction", "explained_variance", "staleness_mean",
            "logp_gap", "grad_norm", "viter"),
}  # fmt: skip
"""The metrics drawn of each stage, where they were logged."""
SETTINGS = ("viter",)
"""Those of them that a run file sets: drawn only where they change."""
WORDS = {
    "loss": "loss per token",
    "grad_norm": "gradient norm",
    "reward_mean": "reward per episode",
    "success_rate": "success while sampling",
    "kl": "KL to the sampling policy",
    "entropy": "entropy per token",
    "clip_fraction": "clipped share of tokens",
    "explained_variance": "variance the critic explains",
    "staleness_mean": "staleness of tokens, steps",
    "logp_gap": "log-prob gap, engine to learner",
    "viter": "verification iterations",
}
UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart and what stands above it."""

    caption: str
    svg: str


def against_compute(measured: Measured) -> list[Figure]:
    """The headline rate over FLOPs after init, one chart for each suite, a line for each branch."""
    scale, unit = flop_unit(max((point.flops for point in measured.points), default=0))
    figures = []
    for suite in measured.suites:
        series = [
            Series(name=STAGE_NAMES[stage], style=stage, dots=dots)
            for stage in BRANCHES
            if measured.final(stage) and (dots := _dots(measured.of(stage), suite, scale, unit))
        ]
        if not series:
            series = [Series(name="init", style="init", dots=_dots(measured.of("init"), suite, scale, unit))]
        title = f"{RATE_NAMES[measured.headline]} on {suite}"
        svg = lines(series, x_label=f"{unit} after init", title=title, y_limits=_top(series))
        if svg:
            figures.append(Figure(suite, svg))
    return figures


def by_iteration(measured: Measured) -> list[Figure]:
    """Success within 1, 2, … attempts of init and of each branch's last checkpoint."""
    figures = []
    for suite in measured.suites:
        series = []
        for stage, name in STAGE_NAMES.items():
            point = measured.final(stage)
            if point is None or suite not in point.results:
                continue
            rates = point.results[suite].by_iteration
            dots = [
                Dot(x=i, y=r.rate, low=r.low, high=r.high, note=f"within {i}: {told(r)}")
                for i, r in enumerate(rates, start=1)
            ]
            series.append(Series(name=name, style=stage, dots=dots))
        svg = lines(
            series, x_label="attempts", title=f"success on {suite} by attempts", y_limits=_top(series), whole_x=True
        )
        if svg:
            figures.append(Figure(suite, svg))
    return figures


def against_recognition(measured: Measured) -> list[Figure]:
    """What was read rightly against what was answered rightly, one chart for each suite that shows pictures.

    A point is a checkpoint; a branch's points are joined by compute, from init on.
    """
    figures = []
    name = RATE_NAMES[measured.headline]
    for suite in (suite for suite in measured.suites if "/vision-" in suite):
        branches = [
            Series(name=STAGE_NAMES[stage], style=stage, dots=dots)
            for stage in BRANCHES
            if measured.final(stage) and (dots := _read(measured.of(stage), suite, name))
        ]
        start = Series(name="init", style="init", dots=_read(measured.of("init"), suite, name))
        series = [*branches, start]
        svg = scatter(
            series, x_label="recognition", y_label=name, title=f"recognition and {name} on {suite}",
            x_limits=_around(series), y_limits=_top(series),
        )  # fmt: skip
        if svg:
            figures.append(Figure(suite, svg))
    return figures


def training_curves(stage: str, rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Small charts of a stage's metrics over its steps."""
    figures = []
    for key in CURVES.get(stage, ()):
        dots = [
            Dot(x=row["step"], y=float(row[key]), note=f"step {row['step']}: {row[key]:.4g}")
            for row in rows
            if isinstance(row.get(key), int | float) and math.isfinite(row[key])
        ]
        if key in SETTINGS and len({dot.y for dot in dots}) < 2:
            continue
        svg = lines(
            [Series(name=key, style=stage, dots=dots)],
            x_label="step",
            title=f"{key} of {stage}",
            whole_x=True,
            labelled=False,
        )
        if svg:
            figures.append(Figure(WORDS[key], svg))
    return figures


def flop_unit(most: float) -> tuple[float, str]:
    """The unit in which `most` FLOPs are a readable number."""
    return next(((size, name) for size, name in UNITS if most >= size), (1.0, "FLOP"))


def _dots(points: Sequence[Point], suite: str, scale: float, unit: str) -> list[Dot]:
    return [
        Dot(x=p.flops / scale, y=rate.rate, low=rate.low, high=rate.high,
            note=f"{p.checkpoint}: {told(rate)}, n = {rate.n}, {p.flops / scale:.3g} {unit}")
        for p in points
        if suite in p.results
        for rate in (p.results[suite].main,)
    ]  # fmt: skip


def _read(points: Sequence[Point], suite: str, name: str) -> list[Dot]:
    return [
        Dot(x=read.rate, y=rate.rate, note=f"{p.checkpoint}: recognition {told(read)}, {name} {told(rate)}")
        for p in points
        if suite in p.results and (read := p.results[suite].recognition)
        for rate in (p.results[suite].main,)
    ]


def _around(series: Sequence[Series]) -> tuple[float, float]:
    """The tenths that all points lie between."""
    found = [dot.x for s in series for dot in s.dots] or [0.0, 1.0]
    low = max(0.0, math.floor(min(found) * 10 - 0.2) / 10)
    return low, max(low + 0.1, min(1.0, math.ceil(max(found) * 10 + 0.2) / 10))


def _top(series: Sequence[Series]) -> tuple[float, float]:
    """From 0 to the next tenth above the highest interval."""
    highest = max((d.high if d.high is not None else d.y for s in series for d in s.dots), default=1.0)
    return 0.0, min(1.0, math.ceil(highest * 10 + 1e-9) / 10) or 0.1
