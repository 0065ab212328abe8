"""What was measured of a run, as the file `<store>/<run>/evaluation.json`: points of checkpoints, each with its suites.

Measured ── points ── Point (a checkpoint, its compute) ── results ── SuiteResult (rates, intervals)
                                                  └── episodes ── Item
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from envs.base import Config, ConfigError, DataError, validated
from envs.suites import Headline
from services.evaluations.orders import Item, RateModel, SuiteResult
from trainers.storage import LocalStore, open_store

FILE = "evaluation.json"
STAGE_NAMES = {"init": "init", "sft_branch": "SFT", "ppo": "RL"}
RATE_NAMES: dict[Headline, str] = {"success": "success", "per_step_accuracy": "per-step accuracy"}

Stage = Literal["init", "sft_branch", "ppo"]


class Point(Config):
    """One checkpoint, where it stands on the compute axis, and what it can do."""

    stage: Stage
    checkpoint: str
    digest: str
    step: int
    flops: float = Field(ge=0)
    """Spent after init, counted from tokens."""
    is_final: bool
    results: dict[str, SuiteResult]
    """By suite."""
    episodes: tuple[Item, ...] = ()
    """A few of them, for people; all of them stay with the service."""


class Measured(Config):
    """All points of a run, and how they were measured."""

    run: str
    environment: str
    tasks_word: str = "tasks"
    """What people call several of its tasks, e.g. "hands"."""
    options: dict[str, Any] = Field(default_factory=dict)
    """How the tasks of every suite were shown, e.g. `{"resolution": 128}`."""
    viter: int
    """Judged attempts when measured."""
    curriculum: str = ""
    """Verification iterations that RL trained with, in words, where they changed over its steps."""
    temperature: float
    deals: dict[str, int | None] = Field(default_factory=dict)
    """Distinct tasks each branch trained on; null without end."""
    points: tuple[Point, ...]

    def of(self, stage: str) -> tuple[Point, ...]:
        """The points of a stage, by compute; a branch starts at init."""
        starts = [p for p in self.points if p.stage == "init"]
        rest = sorted((p for p in self.points if p.stage == stage != "init"), key=lambda p: p.flops)
        return (*starts, *rest)

    def final(self, stage: str) -> Point | None:
        """The last checkpoint of a stage, None where the run lacks it."""
        return next((p for p in self.points if p.stage == stage and p.is_final), None)

    @property
    def suites(self) -> tuple[str, ...]:
        """Every suite that was measured, in the order it was asked for."""
        return tuple(dict.fromkeys(name for point in self.points for name in point.results))

    def first(self, kind: str) -> str | None:
        """The main suite of a kind."""
        return next(iter(self.of_kind(kind)), None)

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """The suites of a kind, the main one first."""
        kinds = {name: result.kind for point in self.points for name, result in point.results.items()}
        return tuple(name for name in self.suites if kinds[name] == kind)

    @property
    def headline(self) -> Headline:
        """The rate that the environment is measured by."""
        return next((result.headline for point in self.points for result in point.results.values()), "success")


def told(rate: RateModel) -> str:
    """`0.412 [0.370, 0.455]`"""
    return f"{rate.rate:.3f} [{rate.low:.3f}, {rate.high:.3f}]"


def home(store: str, run: str) -> Path:
    """Where a run's evaluation and report lie: with the run, or under `./runs` where the store is remote."""
    opened = open_store(store)
    return opened.at(run) if isinstance(opened, LocalStore) else Path("runs") / run


def read(directory: Path) -> Measured | None:
    """What was measured of the run that lives in `directory`; None where nothing was.

    Raises:
        DataError: the file is not what `write` leaves.
    """
    path = directory / FILE
    if not path.exists():
        return None
    try:
        return validated(Measured, json.loads(path.read_text()), source=str(path))
    except (ValueError, ConfigError) as error:
        raise DataError(f"{path}: not an evaluation file ({error}); `viter train` measures again") from None


def write(directory: Path, measured: Measured) -> Path:
    """Keep `measured` with its run, whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / FILE
    partial = path.with_suffix(".tmp")
    partial.write_text(measured.model_dump_json(indent=1))
    return partial.rename(path)
