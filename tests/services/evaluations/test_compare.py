"""Two evaluations of the same tasks: tests and intervals against published numbers, definitions and enumeration."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.evaluations.compare import compare
from services.evaluations.orders import Counts, Evaluation, EvaluationOrder, Item
from services.evaluations.results import results_of
from services.evaluations.scoring import Outcome, difference, mcnemar, paired_difference, paired_per_step, wilson
from tests.services.conftest import answered

SUITE, OTHER = "general_points/id", "general_points/ood-rule"


def pairs(both: int, first_alone: int, second_alone: int, none: int) -> tuple[list[bool], list[bool]]:
    first = [True] * (both + first_alone) + [False] * (second_alone + none)
    second = [True] * both + [False] * first_alone + [True] * second_alone + [False] * none
    return first, second


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((20, 2, 12, 16), 0.0562, 0.3292),  # Newcombe 1998, Statistics in Medicine 17, 2635, method 10
        ((1, 7, 1, 12), -0.507, -0.026),  # Fagerland, Lydersen and Laake 2014, airway responsiveness
    ],
)
def test_the_paired_interval_is_the_published_one(table: tuple[int, int, int, int], low: float, high: float):
    found = paired_difference(*pairs(*table))
    digits = len(str(abs(low)).partition(".")[2])
    assert (round(found.low, digits), round(found.high, digits)) == (low, high)


TABLES = st.tuples(*[st.integers(0, 30)] * 4).filter(any)


@given(TABLES)
def test_exchanging_the_two_turns_the_sign(table):
    first, second = pairs(*table)
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert -1 <= one.low <= one.value <= one.high <= 1


@given(TABLES)
def test_tasks_that_agree_more_narrow_the_interval_of_independent_samples(table):
    first, second = pairs(*table)
    found = paired_difference(first, second)
    apart = difference(wilson(sum(first), len(first)), wilson(sum(second), len(second)))
    a, c, b, d = table
    if a * d >= b * c:
        assert found.high - found.low <= apart.high - apart.low + 1e-12


def test_it_covers_the_true_difference_as_often_as_it_says():
    """By enumeration of every table of 20 tasks, for policies that share three quarters of what they solve."""
    n, chances = 20, (0.45, 0.10, 0.20, 0.25)
    covered = 0.0
    for a, c, b in product(range(n + 1), repeat=3):
        d = n - a - b - c
        if d < 0:
            continue
        ways = math.factorial(n) // math.prod(map(math.factorial, (a, c, b, d)))
        chance = ways * math.prod(p**k for p, k in zip(chances, (a, c, b, d), strict=True))
        found = paired_difference(*pairs(a, c, b, d))
        covered += chance * (found.low <= chances[2] - chances[1] <= found.high)
    assert 0.94 < covered < 0.98


def test_without_tasks_nothing_is_known():
    assert (paired_difference([], []).low, paired_difference([], []).high) == (-1.0, 1.0)
    assert paired_per_step([], []) is None


def test_per_step_is_the_textbooks_ratio_estimate():
    """One answer each: the paired normal interval. mean(d) ± z·sd(d)/√n with d in {1, 0, 0, -1, 1}."""
    right, wrong = Outcome(is_success=True, attempts=((True,),)), Outcome(is_success=False, attempts=((False,),))
    first = [wrong, right, wrong, right, wrong]
    second = [right, right, wrong, wrong, right]
    found = paired_per_step(first, second)
    assert found is not None
    deltas = [1, 0, 0, -1, 1]
    mean = sum(deltas) / 5
    half = 1.959963984540054 * math.sqrt(sum((d - mean) ** 2 for d in deltas) / 4 / 5)
    assert (found.value, found.high - found.value) == pytest.approx((mean, half))


def test_per_step_of_a_policy_against_itself_is_nothing_for_certain():
    walks = [
        Outcome(is_success=False, attempts=((True,), (False, False))),
        Outcome(is_success=True, attempts=((True,),)),
    ]
    found = paired_per_step(walks, walks)
    assert found is not None
    assert (found.value, found.low, found.high) == (0, 0, 0)


def played(name: str, attempts: list[int], **order) -> tuple[Evaluation, list[Item]]:
    """An evaluation whose tasks were solved at these attempts; 0 is never."""
    asked = EvaluationOrder(
        checkpoint=f"{name}@latest", **{"suites": (SUITE,), "n": len(attempts), "viter": 3, **order}
    )
    items = [answered(SUITE, i, solved_at=k, viter=asked.viter) for i, k in enumerate(attempts)]
    evaluation = Evaluation(
        id=f"eval-{name}", status="completed", created_at=0.0, model=f"{name}@step-000001", digest="d", order=asked,
        counts=Counts(total=len(items)), results=results_of(asked, items, None),
    )  # fmt: skip
    return evaluation, items


def test_two_policies_on_the_same_tasks():
    first, items = played("a", [1, 0, 0, 2, 0, 0, 0, 3])
    second, others = played("b", [1, 1, 2, 0, 1, 3, 2, 1])
    found = compare(first, second, items, others).suites[0]
    assert found.success is not None
    assert (found.n, found.success.won, found.success.lost) == (8, 5, 1)
    assert found.success.p_value == pytest.approx(2 * (1 + 6) / 2**6)
    assert found.won == [f"{SUITE}/{i:06d}" for i in (1, 2, 4, 5, 6)]
    assert found.lost == [f"{SUITE}/000003"]
    assert [(each.first.k, each.second.k) for each in found.by_iteration] == [(1, 4), (2, 6), (3, 7)]
    assert found.by_iteration[-1] == found.success
    assert "+50.0 points" in found.in_words
    assert found.in_words.endswith("within chance")


def test_a_difference_beyond_chance_says_so():
    first, items = played("a", [0] * 12)
    second, others = played("b", [1] * 12)
    (found,) = compare(first, second, items, others).suites
    assert found.in_words.endswith("beyond chance")
    assert found.success is not None
    assert found.success.p_value == pytest.approx(2 / 2**12)
    assert found.success.difference.low > 0


def test_items_that_could_not_be_judged_are_left_out_of_both():
    first, items = played("a", [1, 1, 0])
    second, others = played("b", [0, 1, 1])
    items[2] = items[2].model_copy(update={"error": "crashed", "turns": []})
    (found,) = compare(first, second, items, others).suites
    assert (found.n, found.unjudged, found.won) == (2, 1, [])


def test_what_cannot_be_compared_is_one_sentence_each():
    first, items = played("a", [1, 0])
    second, others = played("b", [1, 0, 1], suites=(SUITE,))
    assert "order the same n" in str(compare(first, second, items, others).suites[0].problem)
    elsewhere = second.model_copy(update={"order": second.order.model_copy(update={"suites": (OTHER,)})})
    assert [each.problem for each in compare(first, elsewhere, items, []).suites] == [
        f"eval-b did not play {SUITE}", f"eval-a did not play {OTHER}",
    ]  # fmt: skip
    stopped = first.model_copy(update={"status": "in_progress", "results": None})
    assert "in progress" in str(compare(stopped, first, items, items).suites[0].problem)
    assert first.results is not None
    renamed = first.model_copy(update={"results": [first.results[0].model_copy(update={"digest": "f" * 64})]})
    assert "other tasks" in str(compare(first, renamed, items, items).suites[0].problem)


def test_what_else_the_orders_differ_in_is_told():
    first, items = played("a", [1, 0])
    second, others = played("b", [1, 0], viter=2, decoding={"temperature": 0.0})
    found = compare(first, second, items, others)
    assert found.differences == [
        "viter is 3 in the first and 2 in the second", "temperature is 1.0 in the first and 0.0 in the second",
    ]  # fmt: skip
    assert len(found.suites[0].by_iteration) == 2


def test_mcnemar_needs_no_order_of_tasks():
    first, second = pairs(3, 1, 6, 2)
    assert mcnemar(first, second) == mcnemar(first[::-1], second[::-1])
