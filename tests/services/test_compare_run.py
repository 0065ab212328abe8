"""Two checkpoints side by side: both ordered alike, and told in a table and in words."""

from typing import Any

import pytest

from services import compare_run
from services.evaluations.compare import Comparison, compare
from services.evaluations.orders import Evaluation, EvaluationOrder
from tests.services.evaluations.test_compare import SUITE, played

SOLVED = {"a@latest": [0] * 10 + [1, 2], "b@latest": [1] * 10 + [1, 0]}


class Service:
    """A service that has played everything the moment it is ordered."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.played: dict[str, tuple[Evaluation, list]] = {}

    def evaluate(self, checkpoint: str, **order: Any) -> Evaluation:
        self.orders.append((checkpoint, order))
        settled = EvaluationOrder(checkpoint=checkpoint, **{"suites": (SUITE,), "options": {"target": 24}, **order})
        evaluation, items = played(checkpoint[0], SOLVED[checkpoint], viter=settled.viter)
        self.played[evaluation.id] = evaluation.model_copy(update={"order": settled}), items
        return self.played[evaluation.id][0]

    def compare(self, first: str, second: str) -> Comparison:
        (one, items), (two, others) = self.played[first], self.played[second]
        return compare(one, two, items, others)


def test_both_are_played_with_one_order_and_the_first_named_is_set_against_the_other():
    service = Service()
    found = compare_run.against(service, "b@latest", "a@latest", lambda _: None, n=12, viter=2)
    (checkpoint, asked), (baseline, alike) = service.orders
    assert (checkpoint, baseline) == ("b@latest", "a@latest")
    assert asked == {"n": 12, "viter": 2}
    assert (alike["n"], alike["viter"], alike["suites"], alike["options"]) == (12, 2, [SUITE], {"target": 24})
    assert found.models == ("a@step-000001", "b@step-000001")
    assert found.differences == []


def test_a_table_has_the_rates_the_difference_and_the_verdict():
    service = Service()
    told = compare_run.table(compare_run.against(service, "b@latest", "a@latest", lambda _: None, n=12, viter=2))
    lines = told.splitlines()
    assert lines[0].split() == ["suite", "rate", "a@step-000001", "b@step-000001", "difference", "won", "lost", "p"]
    assert lines[1].split()[-3:] == ["10", "1", "0.012"]  # 2·(C(11,0) + C(11,1)) / 2¹¹
    assert lines[-1].endswith("beyond chance")


def test_an_interrupt_cancels_both(monkeypatch: pytest.MonkeyPatch):
    service, canceled = Service(), []

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compare_run, "wait_all", interrupt)
    service.cancel = canceled.append
    with pytest.raises(KeyboardInterrupt):
        compare_run.against(service, "b@latest", "a@latest", lambda _: None, n=12, viter=2)
    assert sorted(canceled) == ["eval-a", "eval-b"]


def test_what_cannot_be_compared_is_a_sentence_without_a_table():
    first, items = played("a", [1, 0])
    second, others = played("b", [1, 0, 1])
    assert compare_run.table(compare(first, second, items, others)).count("\n") == 0
