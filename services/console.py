"""What a person sees while a run goes on: one live line per stage on a terminal, one plain line per step elsewhere.

Only progress is shown. What Ray, vLLM and DeepSpeed have to say goes to the run's log files.
"""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from cluster.stage_log import Progress

SHOWN = (
    ("loss", "loss"),
    ("reward_mean", "reward"),
    ("success_rate", "success"),
    ("kl", "kl"),
    ("entropy", "entropy"),
    ("staleness_mean", "stale"),
    ("step_s", "s/step"),
)
"""Metrics worth a place on one line, and their short names. Everything else is in metrics.jsonl."""
QUIET_S = 30.0  # a plain log gets a sign of life at least this often, and a line per step no more often than steps end


ROUTINE = ("learner_started", "checkpoint")
"""Events that come with every run: they stand in events.jsonl and need no line."""
QUIET_S = 15.0  # in a plain log, a step that says nothing else waits this long


class Console:
    """Shows reports. `with Console() as console: launch.run(config, progress=console.show)`."""

    def __init__(self, terminal: Terminal | None = None):
        self._terminal = terminal or Terminal(highlight=False, soft_wrap=True)
        self._live = self._terminal.is_terminal
        self._bars = _bars(self._terminal) if self._live else None
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, tuple[int, str, float]] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def show(self, report: Progress) -> None:
        """Brings a stage's line up to date. An event (a report of step -1) stays in sight as a line of its own."""
        is_event = report.step < 0
        if is_event and report.message.startswith(ROUTINE):
            return
        if self._bars and is_event:
            self.tell(f"{report.stage}: {report.message}")
        elif self._bars:
            self._draw(report)
        else:
            self._print(report)

    def tell(self, text: str = "") -> None:
        """Prints lines that stay, above what is live. Never read as markup: model text and file names hold brackets."""
        self._terminal.print(text, markup=False, highlight=False)

    def _is_news(self, report: Progress) -> bool:
        """Whether a plain log wants this line: numbers, another message, the end, or a sign of life now and then."""
        step, message, at = self._said.get(report.stage, (-1, "", 0.0))
        now = time.monotonic()
        if (report.step, report.message) == (step, message):
            return False
        is_due = report.metrics or report.message != message or report.step == report.steps or now - at > QUIET_S
        if is_due:
            self._said[report.stage] = (report.step, report.message, now)
        return bool(is_due)

    def _draw(self, report: Progress) -> None:
        assert self._bars is not None
        if report.stage not in self._tasks:
            self._tasks[report.stage] = self._bars.add_task(report.stage, total=report.steps or None, told="")
        task, told = self._tasks[report.stage], one_line(report.metrics) or report.message
        self._bars.update(task, completed=report.step, total=report.steps or None, told=told)

    def _print(self, report: Progress) -> None:
        if not self._is_news(report):
            return
        elapsed = f"{time.monotonic() - self._started:6.0f}s"
        count = f"{report.step}/{report.steps}" if report.steps and report.step >= 0 else ""
        parts = (elapsed, report.stage, count, one_line(report.metrics), report.message)
        self._terminal.print("  ".join(part for part in parts if part), markup=False, highlight=False)


def one_line(metrics: Mapping[str, float]) -> str:
    """The metrics of `SHOWN` that are there: `reward -0.41  success 0.52  kl 0.006`."""
    return "  ".join(f"{label} {_short(metrics[key])}" for key, label in SHOWN if key in metrics)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _bars(terminal: Terminal) -> Bars:
    return Bars(
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        console=terminal,
        refresh_per_second=4,
    )
