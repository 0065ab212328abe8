"""What one value of a sweep came to, read off its log and its evaluation; and the values side by side.

metrics.jsonl, evaluation.json ─► Row ─► Results ─► table (for people), sweep.json (for programs)
"""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from cluster.launch import run_id
from envs.base import Config
from services.evaluate_run import aligned
from services.evaluations.orders import RateModel
from services.reports import measured
from services.reports.figures import flop_unit
from services.reports.findings import KIND_NAMES, change
from services.reports.measured import RATE_NAMES, Measured, Point
from services.sweeps.plan import Sweep, Value
from trainers.runlog import RunLog, read_metrics
from trainers.storage import open_store

FILE = "sweep.json"
WARM_UP = 1  # first steps whose time and idle slots are left out: engines and caches are cold


class Row(Config):
    """One value: how its steps went, and what its last checkpoint can do."""

    value: Any
    told: str
    run: str
    steps: int
    step_s: float | None
    """Median seconds of a step, the first left out."""
    staleness_mean: float | None
    """Steps that sampled tokens lagged behind, over all of them."""
    staleness_max: int | None
    logp_gap: float | None
    """Mean of steps: gap between the log-probs of the sampling policy and of the learner, in nats."""
    importance_weight: float | None
    """Mean of steps; null where the run corrects nothing, with `ppo.max_staleness` 0."""
    slots_idle: float | None
    """Mean of steps, the first left out: share of the engines' slots that held no episode."""
    tokens_sampled: int
    flops: float
    """Of PPO alone, counted from tokens."""
    success: dict[str, RateModel] = Field(default_factory=dict)
    """The rate that the environment is measured by, of the last checkpoint, by suite."""
    problem: str | None = None
    """Why the value has no end, e.g. that training diverged."""


class Results(Config):
    """A sweep as far as it went."""

    name: str
    key: str
    rate: str = ""
    """What `success` of a row is."""
    suites: dict[str, str] = Field(default_factory=dict)
    """The first ID and the first OOD suite, by kind."""
    viter: int | None = None
    """Judged attempts when measured."""
    init: dict[str, RateModel] = Field(default_factory=dict)
    """What the checkpoint that all values started from can do, by suite; empty where each made its own."""
    rows: tuple[Row, ...]


def gathered(sweep: Sweep, problems: dict[str, str]) -> Results:
    """What is in the store of every value. Args: problems: by run, of values that did not come to an end."""
    found = [measured.read(measured.home(value.config.store.uri, value.config.name)) for value in sweep.values]
    rows = [
        _row(value, _log(value), of_value, problems.get(value.config.name))
        for value, of_value in zip(sweep.values, found, strict=True)
    ]
    there = [of_value for of_value in found if of_value]
    if not there:
        return Results(name=sweep.name, key=sweep.key, rows=tuple(rows))
    first = there[0]  # what all of them have in common, it says
    return Results(
        name=sweep.name,
        key=sweep.key,
        rate=RATE_NAMES[first.headline],
        suites={kind: suite for kind in KIND_NAMES if (suite := first.first(kind))},
        viter=first.viter if len({of_value.viter for of_value in there}) == 1 else None,
        init=_success(first.final("init")) if sweep.init else {},
        rows=tuple(rows),
    )


def write(store: str, results: Results) -> str:
    """Keep the results beside the runs, and return where."""
    path = f"{results.name}/{FILE}"
    opened = open_store(store)
    opened.put(path, results.model_dump_json(indent=1).encode())
    return f"{opened.uri}/{path}"


def table(results: Results) -> str:
    """The values side by side, and in sentences which of them end apart."""
    unit, name = flop_unit(max((row.flops for row in results.rows), default=0.0))
    rates = [f"{KIND_NAMES[kind]} {results.rate}" for kind in results.suites]
    suites = tuple(results.suites.values())
    head = (
        results.key, "step", "stale", "most", "log-prob gap", "importance", "idle", *rates, "tokens sampled", name,
    )  # fmt: skip
    body = [
        (
            row.told, _number(row.step_s, ".2f", " s"), _number(row.staleness_mean, ".2f"),
            _number(row.staleness_max, "d"), _number(row.logp_gap, ".2g"), _number(row.importance_weight, ".4f"),
            _number(row.slots_idle, ".0%"), *(_rate(row.success, suite) for suite in suites),
            f"{row.tokens_sampled:,}", f"{row.flops / unit:.3g}",
        )
        for row in results.rows
    ]  # fmt: skip
    start = ("init", *"------", *(_rate(results.init, suite) for suite in suites), "-", "-")
    return "\n".join([aligned([head, *([start] if results.init else []), *body]), "", *sentences(results)])


def sentences(results: Results) -> list[str]:
    """What the table shows beyond noise, what it does not, and how to read it."""
    told = [f"{row.told}: {row.problem}" for row in results.rows if row.problem]
    for kind, suite in results.suites.items():
        rates = [(row.told, row.success[suite]) for row in results.rows if suite in row.success]
        told += _compared(f"{KIND_NAMES[kind]} {results.rate}", results.key, rates)
    step = "Step time is the median and idle the mean without the first step; stale is in steps, most the largest lag."
    return [*told, step, *_how(results)]


def _how(results: Results) -> list[str]:
    """How success was measured, where it was."""
    sizes = sorted(
        {rate.n for row in results.rows for suite in results.suites.values() if (rate := row.success.get(suite))}
    )
    if not sizes:
        return []
    attempts = f"at most {results.viter} attempts" if results.viter else "attempts as each value says"
    return [f"Measured with {attempts}, n\u00a0=\u00a0{' to '.join(map(str, sizes))}; intervals are 95 % Wilson."]


def _compared(rate: str, key: str, rates: Sequence[tuple[str, RateModel]]) -> list[str]:
    """Every value against the first one."""
    if len(rates) < 2:
        return []
    (first, before), *others = rates
    apart = [(told, after, change(before, after)) for told, after in others]
    moved = [
        f"{'above' if verb == 'rose' else 'below'} it with {told} ({before.rate:.2f} and {after.rate:.2f})"
        for told, after, verb in apart
        if not verb.startswith("did")
    ]
    against = f"{rate}, against {key}={first}:"
    return [f"{against} {'; '.join(moved)}." if moved else f"{against} no other value lies beyond noise."]


def _row(value: Value, rows: Sequence[dict[str, Any]], found: Measured | None, problem: str | None) -> Row:
    final = found.final("ppo") if found else None
    warm = rows[WARM_UP:]
    lags = [int(name.removeprefix("staleness_")) for row in rows for name, share in row.items()
            if name.removeprefix("staleness_").isdigit() and share]  # fmt: skip
    return Row(
        value=value.value,
        told=value.told,
        run=value.config.name,
        steps=len(rows),
        step_s=_over(statistics.median, warm, "step_s"),
        staleness_mean=_over(statistics.fmean, rows, "staleness_mean"),
        staleness_max=max(lags, default=None),
        logp_gap=_over(statistics.fmean, rows, "logp_gap"),
        importance_weight=_over(statistics.fmean, rows, "importance_weight"),
        slots_idle=_over(statistics.fmean, warm, "slots_idle"),
        tokens_sampled=round(sum(row["tokens_sampled"] for row in rows)),
        flops=rows[-1]["flops"] if rows else 0.0,
        success=_success(final),
        problem=problem,
    )


def _over(mean: Callable[[list[float]], float], rows: Sequence[dict[str, Any]], name: str) -> float | None:
    """`mean` of the finite numbers of that name; None where there is none."""
    numbers = [row[name] for row in rows if row.get(name) is not None]
    return float(mean(numbers)) if numbers else None


def _success(point: Point | None) -> dict[str, RateModel]:
    return {suite: result.main for suite, result in point.results.items()} if point else {}


def _log(value: Value) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="viter-sweep-") as staging:
        log = RunLog.of(value.config.store.uri, run_id(value.config, "ppo"), staging=Path(staging))
        return read_metrics(log.directory)


def _rate(success: dict[str, RateModel], suite: str) -> str:
    return measured.told(success[suite]) if suite in success else "-"


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"
