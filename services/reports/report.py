"""The report of a run: one HTML page with everything in it, which needs no server, no network and no script.

gather (files of the store) ─► figures, findings, shown ─► report.html (a Jinja template, all text escaped)
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from envs.base import DataError
from services.reports import figures, findings, measured, shown
from services.reports.measured import RATE_NAMES, STAGE_NAMES, Measured
from services.reports.pictures import Pictures
from trainers import runlog
from trainers.checkpoints import list_runs

FILE = "report.html"
STAGES = ("sft", "sft_branch", "ppo")
STAGE_TITLES = {"sft": "SFT to init", "sft_branch": "SFT continued", "ppo": "RL", "": "Training"}
TOLD_EVENTS = 200


def write(store: str, run: str) -> Path:
    """Write `<store>/<run>/report.html` and return its path. See `measured.home`.

    Raises:
        DataError: the store holds nothing of `run`.
    """
    with tempfile.TemporaryDirectory(prefix="viter-report-") as staging:
        logs = dict(_logs(store, run, Path(staging)))
        home = measured.home(store, run)
        found = measured.read(home)
        if not logs and found is None:
            known = ", ".join(sorted(list_runs(store))) or "none"
            raise DataError(f"run {run}: no log or evaluation of it in {store}; runs with checkpoints there: {known}")
        page = render(run, found, logs)
    home.mkdir(parents=True, exist_ok=True)
    path = home / FILE
    path.write_text(page)
    return path


def render(run: str, found: Measured | None, logs: Mapping[str, Path]) -> str:
    """The page of what was measured and of the logs of its stages (stage name to directory)."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    template = Environment(
        loader=PackageLoader("services.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(FILE)
    pictures = Pictures()
    episodes = shown.episodes(found, logs, pictures)
    return template.render(
        run=run,
        measure=RATE_NAMES[found.headline] if found else "",
        tasks=found.tasks_word if found else "",
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        sentences=findings.sentences(found) if found else ["This run was not evaluated."],
        compute=figures.against_compute(found) if found else [],
        iterations=figures.by_iteration(found) if found else [],
        recognition=figures.against_recognition(found) if found else [],
        rows=list(_numbers(found)) if found else [],
        unseen=list(_unseen(found)) if found else [],
        episodes=episodes,
        has_pictures=any(scene.keys for episode in episodes for scene in episode.scenes),
        left_out=pictures.left_out,
        curves=[(STAGE_TITLES[stage], drawn) for stage, log in logs.items() if (drawn := _curves(stage, log))],
        events=list(_events(logs)),
        config=_config(logs),
        environment=_environment(logs),
    )


def _logs(store: str, run: str, staging: Path) -> Iterator[tuple[str, Path]]:
    """The log directories of a run: those of its stages, or its own where it is a stage by itself."""
    for stage in (*STAGES, ""):
        name = f"{run}-{stage}" if stage else run
        directory = runlog.RunLog.of(store, name, staging=staging).directory
        if (directory / "metrics.jsonl").exists():
            yield stage, directory


def _curves(stage: str, log: Path) -> list[figures.Figure]:
    rows = runlog.read_metrics(log)
    return figures.training_curves(stage or (rows[-1]["stage"] if rows else ""), rows)


def _numbers(found: Measured) -> Iterator[dict[str, Any]]:
    """One row for each point and suite."""
    scale, unit = figures.flop_unit(max((p.flops for p in found.points), default=0))
    order = list(STAGE_NAMES)
    for point in sorted(found.points, key=lambda p: (order.index(p.stage), p.flops)):
        for suite in found.suites:
            if suite in point.results:
                yield {
                    "stage": STAGE_NAMES[point.stage],
                    "style": point.stage,
                    "checkpoint": point.checkpoint,
                    "digest": point.digest[:12],
                    "is_final": point.is_final,
                    "compute": f"{point.flops / scale:.3g} {unit}",
                    "result": point.results[suite],
                }


def _unseen(found: Measured) -> Iterator[dict[str, Any]]:
    """Tasks as training draws them and tasks held out, side by side, so that nobody reads memory as skill."""
    for seen in found.suites:
        held_out = f"{seen}-unseen" if not seen.endswith("-unseen") else ""
        for stage, name in STAGE_NAMES.items():
            point = found.final(stage)
            if point is not None and seen in point.results and held_out in point.results:
                yield {
                    "stage": name,
                    "style": stage,
                    "suite": seen,
                    "all": point.results[seen].main,
                    "unseen": point.results[held_out].main,
                }


def _events(logs: Mapping[str, Path]) -> Iterator[dict[str, str]]:
    """What happened, oldest first; the newest `TOLD_EVENTS` of them."""
    rows = [(row, stage) for stage, log in logs.items() for row in runlog.read_events(log)]
    for row, stage in sorted(rows, key=lambda pair: pair[0]["time"])[-TOLD_EVENTS:]:
        told = {key: value for key, value in row.items() if key not in ("time", "kind")}
        yield {
            "time": datetime.fromtimestamp(row["time"], UTC).strftime("%H:%M:%S"),
            "stage": STAGE_TITLES[stage],
            "kind": str(row["kind"]).replace("_", " "),
            "told": "  ".join(f"{key} {value}" for key, value in told.items()),
        }


def _config(logs: Mapping[str, Path]) -> str:
    import yaml

    newest = _json(logs, "config.json")
    return yaml.safe_dump(newest, sort_keys=False, allow_unicode=True) if newest else ""


def _environment(logs: Mapping[str, Path]) -> list[tuple[str, str]]:
    flat: list[tuple[str, str]] = []
    for key, value in _json(logs, "environment.json").items():
        if isinstance(value, dict):
            flat.extend((str(name), str(version)) for name, version in value.items())
        else:
            flat.append((str(key), " ".join(value) if isinstance(value, list) else str(value)))
    return flat


def _json(logs: Mapping[str, Path], name: str) -> dict[str, Any]:
    """A file of the last stage that has it."""
    for log in reversed(list(logs.values())):
        if (log / name).exists():
            return dict(json.loads((log / name).read_text()))
    return {}
