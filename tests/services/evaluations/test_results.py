"""What an evaluation says of a suite, against the same counted by hand."""

import pytest

from envs import suites
from services.evaluations.orders import EvaluationOrder, Item, ItemTurn
from services.evaluations.results import generalisation_gap, results_of
from services.evaluations.scoring import wilson
from tests.services.conftest import answered

ID, OOD = "general_points/id", "general_points/ood-rule"


def turn(status: str, position: int, *, recognised: bool | None = None) -> ItemTurn:
    return ItemTurn(
        answer="a", feedback="f", reward=0.0, status=status, tokens=2, finish_reason="stop", position=position,
        recognised=recognised,
    )  # fmt: skip


def walked(index: int, *turns: ItemTurn, success: bool) -> Item:
    made = answered(ID, index, solved_at=1, viter=3)
    return made.model_copy(update={"turns": list(turns), "success": success, "decoded_tokens": 2 * len(turns)})


ITEMS = [
    # solved at once, read rightly
    walked(0, turn("correct", 0, recognised=True), success=True),
    # two positions: first at the second attempt, second at once; one reading of two is right
    walked(
        1, turn("wrong_value", 0, recognised=False), turn("correct", 0), turn("correct", 1, recognised=True),
        success=True,
    ),
    # never
    walked(2, turn("wrong_value", 0, recognised=False), turn("illegal_formula", 0), turn("limit", 0), success=False),
    # a right answer that was taken back
    walked(3, turn("correct", 0), turn("wrong_value", 0), success=False),
    # could not be judged: in no rate, but its tokens were spent
    answered(ID, 4, solved_at=1, viter=3).model_copy(update={"error": "crashed: gone", "success": False, "turns": []}),
]  # fmt: skip


def order(**changes) -> EvaluationOrder:
    return EvaluationOrder(checkpoint="a@latest", **{"suites": (ID,), "n": 5, "viter": 3, **changes})


def test_every_rate_is_the_one_counted_by_hand():
    (found,) = results_of(order(), ITEMS, parameters=10)
    counted = {
        "success": (2, 4),
        "first_attempt": (1, 4),
        "per_step_accuracy": (4, 9),  # 1 + 2 + 0 + 1 of 1 + 3 + 3 + 2 answers
        "first_answers": (3, 5),
        "recognition": (2, 4),
        "regressions": (1, 4),
    }
    for name, (k, n) in counted.items():
        rate, expected = getattr(found, name), wilson(k, n)
        assert (rate.k, rate.n, rate.low, rate.high) == (k, n, expected.low, expected.high), name
    assert [(rate.k, rate.n) for rate in found.by_iteration] == [(1, 4), (2, 4), (2, 4)]
    assert (found.n, found.failed) == (4, 1)


def test_tokens_and_flops_count_what_was_spent_on_every_item():
    (found,) = results_of(order(), ITEMS, parameters=10)
    decoded = 2 * (1 + 3 + 3 + 2) + 3
    assert (found.tokens.prefill, found.tokens.cached, found.tokens.decoded) == (5 * 4, 0, decoded)
    assert found.flops == 2 * 10 * (5 * 4 + decoded)
    assert results_of(order(), ITEMS, parameters=None)[0].flops is None


def test_a_result_names_its_tasks():
    (found,) = results_of(order(), ITEMS, parameters=None)
    assert (found.suite, found.kind, found.digest) == (ID, "id", suites.load(ID, 5).digest)
    assert found.headline == "success"


def test_where_nothing_is_to_be_read_there_is_no_recognition():
    items = [answered(ID, i, solved_at=1, viter=3) for i in range(5)]
    assert results_of(order(), items, parameters=None)[0].recognition is None


def test_the_gap_is_id_less_ood():
    items = [
        answered(suite, i, solved_at=int(i < solved), viter=1)
        for suite, solved in ((ID, 4), (OOD, 1))
        for i in range(5)
    ]
    found = results_of(order(suites=(ID, OOD), viter=1), items, parameters=None)
    gap = generalisation_gap(found)
    assert gap is not None
    assert gap.value == pytest.approx(0.6)
    assert generalisation_gap(found[:1]) is None
