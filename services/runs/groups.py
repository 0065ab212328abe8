"""Runs as their store tells them: a run file's name, its stages, how far each is, and whether anybody works on it."""

import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from cluster import run_record
from cluster.config import STAGES
from cluster.launch import lease_path
from cluster.run_record import RunRecord
from envs.base import ViterError
from services.reports.report import FILE as REPORT
from trainers.checkpoint import STEP_NAME, step_name
from trainers.checkpoints import Checkpoints
from trainers.claim import Claim
from trainers.lease import holder
from trainers.runlog import log_folder, parsed_lines
from trainers.storage import OutOfStore, Store, open_store

RunStatus = Literal["running", "finished", "stopped", "failed", "interrupted"]
JobStatus = Literal["pending", "running", "stopped", "succeeded", "failed"]
STAGE_RUN = re.compile(rf"(?P<run>.+)-(?P<stage>{'|'.join(STAGES)})")
READERS = 8  # of a remote store at once

Row = dict[str, Any]
Found = TypeVar("Found")


class RunMissing(ViterError):
    """No such run in the store, and no job of its name."""


class JobState(BaseModel):
    """The Ray job of a run, as long as its cluster remembers it."""

    id: str
    status: JobStatus
    message: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    steps: dict[str, int] = {}
    """Steps of each stage it was submitted with."""
    store: str | None = None
    """Where it keeps its run."""

    @property
    def is_live(self) -> bool:
        return self.status in ("pending", "running")


class StageRun(BaseModel):
    """One stage of a run: what its checkpoints are named by."""

    id: str
    stage: str
    step: int
    steps: int | None
    metrics: dict[str, Any]
    """The newest row of numbers."""
    checkpoints: list[str]
    """Names, oldest first."""
    started_at: float | None
    updated_at: float | None


class RunGroup(BaseModel):
    """A run: the stages of one run file."""

    id: str
    object: Literal["run"] = "run"
    status: RunStatus
    created_at: float | None
    updated_at: float | None
    stages: list[StageRun]
    driver: str | None
    """Who trains it now: host, process, and since when."""
    job: JobState | None
    error: str | None
    has_report: bool


class RunList(BaseModel):
    """Runs, newest first."""

    object: Literal["list"] = "list"
    data: list[RunGroup]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Groups:
    """The runs of one store. Every call reads what has changed since the last one, and blocks."""

    def __init__(self, store: str):
        self._uri = store
        self._opened: Store | None = None
        self._read: dict[str, tuple[tuple[int, int], Any]] = {}  # by path: stamp, and what was parsed of the file
        self._steps: dict[str, tuple[tuple[str, ...], list[int]]] = {}  # by stage run: its folders, and valid steps

    @property
    def store(self) -> Store:
        if self._opened is None:
            self._opened = open_store(self._uri)
        return self._opened

    def all(self, jobs: Mapping[str, JobState]) -> list[RunGroup]:
        """Every run, the one that began last first. One whose files lead out of the store hides no other."""
        folders = self.store.folders("")
        of_stages = {found["run"] for name in folders if (found := STAGE_RUN.fullmatch(name))}
        recorded = {name for name in folders if _inside(self._record, name)}
        with ThreadPoolExecutor(READERS) as pool:
            names = sorted(recorded | of_stages | jobs.keys())
            read = pool.map(lambda name: _inside(self.get, name, jobs.get(name)), names)
            groups = [group for group in read if group is not None]
        return sorted(groups, key=lambda group: group.created_at or 0.0, reverse=True)

    def get(self, name: str, job: JobState | None) -> RunGroup:
        """One run. Raises RunMissing."""
        record = self._record(name)
        stages = [stage for kind in STAGES if (stage := self._stage(name, kind, record, job))]
        if record is None and not stages and job is None:
            raise RunMissing(f"run {name[:80]!r}: the store holds none of this name; GET /v1/runs lists them")
        driver = holder(self.store, lease_path(name))
        started = [at for stage in stages if (at := stage.started_at)]
        updated = [at for stage in stages if (at := stage.updated_at)]
        began, ended = (record.created, record.ended or record.started) if record else (None, None)
        status = status_of(record, stages, driver, job)
        return RunGroup(
            id=name,
            status=status,
            created_at=began or min(started, default=job.started_at if job else None),
            updated_at=max([*updated, *([ended] if ended else [])], default=None),
            stages=stages,
            driver=str(driver) if driver else None,
            job=job,
            error=(record.error if record else None) or (job.message if job and status == "failed" else None),
            has_report=self.store.stamp(f"{name}/{REPORT}") is not None,
        )

    def metrics(self, name: str, stage: str) -> list[Row]:
        """The rows of one stage, in order."""
        rows: list[Row] = self._parsed(self._log(f"{name}-{stage}", "metrics.jsonl"), _rows) or []
        return rows

    def events(self, name: str) -> list[Row]:
        """What happened in every stage, in order, each row with its stage."""
        rows: list[Row] = []
        for stage in STAGES:
            path = self._log(f"{name}-{stage}", "events.jsonl")
            rows += [{**row, "stage": stage} for row in self._parsed(path, _rows) or []]
        return sorted(rows, key=lambda row: row["time"])

    def report(self, name: str) -> bytes | None:
        """The page that `viter train` left, where the store has it."""
        try:
            return self.store.read(f"{name}/{REPORT}")
        except FileNotFoundError:
            return None

    def driver(self, name: str) -> Claim | None:
        """Who holds the run's lease and shows life."""
        return holder(self.store, lease_path(name))

    def config(self, name: str) -> dict[str, Any] | None:
        """The resolved run, as its newest driver was told it."""
        record = self._record(name)
        return record.config if record else None

    def _stage(self, name: str, kind: str, record: RunRecord | None, job: JobState | None) -> StageRun | None:
        run = f"{name}-{kind}"
        rows, events = self.metrics(name, kind), self._parsed(self._log(run, "events.jsonl"), _rows) or []
        config = record.config if record else self._parsed(self._log(run, "config.json"), _object) or {}
        section = config.get(kind) or {}
        checkpoints = self._checkpoints(run)
        steps = section.get("steps") or (job.steps.get(kind) if job else None)
        if not (rows or events or checkpoints or steps):
            return None
        times = [row["time"] for row in (*events[:1], *rows[:1], *events[-1:], *rows[-1:])]
        return StageRun(
            id=run,
            stage=kind,
            step=max([rows[-1]["step"] if rows else 0, *checkpoints]),
            steps=steps,
            metrics=rows[-1] if rows else {},
            checkpoints=[f"{run}@{step_name(step)}" for step in checkpoints],
            started_at=min(times, default=None),
            updated_at=max(times, default=None),
        )

    def _checkpoints(self, run: str) -> list[int]:
        """Steps with a valid manifest. Manifests are read again only where a folder came or went, or lacks its own."""
        found = (name for name in self.store.folders(f"{run}/checkpoints") if STEP_NAME.fullmatch(name))
        folders = tuple(sorted(found))
        known, steps = self._steps.get(run, ((), []))
        if folders != known or len(steps) < len(folders):
            steps = Checkpoints(self.store, run, on_damage=lambda _: None).steps() if folders else []
            self._steps[run] = folders, steps
        return steps

    def _record(self, name: str) -> RunRecord | None:
        record: RunRecord | None = self._parsed(run_record.record_path(name), _record)
        return record

    def _log(self, run: str, file: str) -> str:
        return f"{log_folder(self.store, run)}/{file}"

    def _parsed(self, path: str, parse: Any) -> Any:
        stamp = self.store.stamp(path)
        if stamp is None:
            return None
        if path not in self._read or self._read[path][0] != stamp:
            try:
                self._read[path] = stamp, parse(self.store.read(path), path)
            except FileNotFoundError:
                return None
        return self._read[path][1]


def _inside(read: Callable[..., Found | None], *named: Any) -> Found | None:
    """What `read` finds of a run; nothing where its files lead out of the store."""
    with suppress(OutOfStore):
        return read(*named)
    return None


def status_of(
    record: RunRecord | None, stages: list[StageRun], driver: Claim | None, job: JobState | None
) -> RunStatus:
    """What a run is now: a living driver or job counts, then what the last driver noted, then what the job came to."""
    if driver or (job and job.is_live):
        return "running"
    if record and record.status != "running":
        return record.status
    if job and job.status in ("failed", "stopped"):
        return "failed" if job.status == "failed" else "stopped"
    complete = [stage.steps is not None and stage.step >= stage.steps for stage in stages]
    return "finished" if record is None and complete and all(complete) else "interrupted"


def _rows(data: bytes, path: str) -> list[Row]:
    return parsed_lines(data, source=path)


def _object(data: bytes, path: str) -> Row:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _record(data: bytes, path: str) -> RunRecord | None:
    return run_record.parsed(data)
