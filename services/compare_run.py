"""Two checkpoints side by side through a running service: ordered alike, waited for, and told in a paired table."""

from typing import Any

from services.client import Client
from services.evaluate_run import Show, aligned, wait_all
from services.evaluations.compare import Comparison, PairedModel, PerStepModel, SuiteComparison
from services.evaluations.orders import DifferenceModel
from services.reports.measured import told

SAME = ("environment", "modality", "suites", "options", "n", "viter", "decoding")
"""What of a settled order makes another one that is played alike."""


def against(client: Client, checkpoint: str, baseline: str, show: Show, **order: Any) -> Comparison:
    """Measure both with the same order, and compare. An interrupt cancels what has not ended.

    What the order leaves open is settled for `checkpoint`, and `baseline` is played with that. `order` are fields of
    `EvaluationOrder`.
    """
    measured = client.evaluate(checkpoint, **order)
    ordered = [measured]
    try:
        alike = measured.order.model_dump(mode="json", include=set(SAME))
        ordered.insert(0, client.evaluate(baseline, **alike))
        first, second = wait_all(client, ordered, show)
    except KeyboardInterrupt:
        for each in ordered:
            client.cancel(each.id)
        raise
    return client.compare(first.id, second.id)


def table(comparison: Comparison) -> str:
    """Rates of both with their difference on the same tasks, one line for each; then what it comes to, in sentences."""
    head = ("suite", "rate", *comparison.models, "difference", "won", "lost", "p")
    rows = [row for suite in comparison.suites if suite.problem is None for row in _rows(suite)]
    sentences = [suite.problem or suite.in_words for suite in comparison.suites]
    beside = [f"beside the weights: {words}" for words in comparison.differences]
    return "\n".join([*([aligned([head, *rows]), ""] if rows else []), *beside, *sentences])


def _rows(suite: SuiteComparison) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    if suite.headline == "per_step_accuracy" and suite.per_step is not None:
        found.append(_per_step_row(suite.suite, suite.per_step))
    if suite.success is not None:
        found.append(_row(suite.suite, "success", suite.success))
    if len(suite.by_iteration) > 1:
        found.append(_row(suite.suite, "first attempt", suite.by_iteration[0]))
    return found


def _row(suite: str, rate: str, pair: PairedModel) -> tuple[str, ...]:
    return (
        suite, rate, told(pair.first), told(pair.second), _difference(pair.difference),
        str(pair.won), str(pair.lost), f"{pair.p_value:.2g}",
    )  # fmt: skip


def _per_step_row(suite: str, pair: PerStepModel) -> tuple[str, ...]:
    return (suite, "per step", told(pair.first), told(pair.second), _difference(pair.difference), "-", "-", "-")


def _difference(difference: DifferenceModel | None) -> str:
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]" if difference else "-"
