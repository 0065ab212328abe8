"""What the evaluation manager tells of its work: numbers to Prometheus, and a line in the log where one starts or ends."""

import logging
import time
from collections.abc import Iterable, Sequence

from cluster import metrics
from cluster.metrics import DIGEST_CHARACTERS, Meters
from services.evaluations.orders import ENDED, Evaluation, Item

logger = logging.getLogger("viter.evaluations")


class EvaluationAccount:
    """The account of one manager. `show` is called again and again, the others once for what happens."""

    def __init__(self, meters: Meters):
        self._meters = meters
        for state in ENDED:
            meters.add(metrics.EVALUATIONS_ENDED, 0, state=state)
        for outcome in ("solved", "unsolved", "quarantined"):
            meters.add(metrics.EVALUATION_ITEMS, 0, outcome=outcome)

    def show(self, known: Iterable[Evaluation]) -> None:
        states = [evaluation.status for evaluation in known]
        for state in ("queued", "in_progress"):
            self._meters.set(metrics.EVALUATIONS, states.count(state), state=state)

    def items(self, finished: Sequence[Item]) -> None:
        for item in finished:
            outcome = "quarantined" if item.error else "solved" if item.success else "unsolved"
            self._meters.add(metrics.EVALUATION_ITEMS, outcome=outcome)

    def queued(self, evaluation: Evaluation) -> None:
        _log(evaluation)

    def ended(self, evaluation: Evaluation) -> None:
        self._meters.add(metrics.EVALUATIONS_ENDED, state=evaluation.status)
        _log(evaluation)


def _log(evaluation: Evaluation) -> None:
    digest, seconds = evaluation.digest[:DIGEST_CHARACTERS], time.time() - evaluation.created_at
    told = {"evaluation": evaluation.id, "digest": digest, "seconds": round(seconds, 3)}
    counts = {"items_done": evaluation.counts.done, "items_failed": evaluation.counts.failed}
    logger.info("%s is %s", evaluation.id, evaluation.status, extra={**told, **counts})
