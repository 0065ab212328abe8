"""Rates and intervals, against numbers worked out by hand or taken from the literature."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.evaluations.scoring import (
    Outcome,
    difference,
    first_answers,
    first_attempt,
    generalisation_gap,
    mcnemar,
    per_step_accuracy,
    recognition,
    regressions,
    success,
    success_by_iteration,
    wilson,
)


def episode(*correct: bool, recognised: bool | None = None) -> Outcome:
    """An episode of a task with one position."""
    read = () if recognised is None else (recognised,)
    return Outcome(is_success=bool(correct) and correct[-1], attempts=(correct,) if correct else (), recognised=read)


FOUR = [
    episode(True),                      # solved at once
    episode(False, True),               # solved on the second attempt
    episode(False, False, False),       # never
    episode(False, False, True),        # solved on the third
]  # fmt: skip


WALKS = [
    Outcome(is_success=True, attempts=((True,), (False, True), (True,)), recognised=(True, False, True)),
    Outcome(is_success=True, attempts=((True,), (True,)), recognised=(True, True)),
    Outcome(is_success=False, attempts=((True,), (False, False)), recognised=(False, False)),
    Outcome(is_success=True, attempts=((False, False, True), (False, True)), recognised=()),
]  # episodes of tasks with several positions: at most 2, 1, never, 3 attempts at each


def test_wilson_gives_the_interval_that_newcombe_1998_prints_for_81_of_263():
    rate = wilson(81, 263)
    assert (round(rate.low, 4), round(rate.high, 4)) == (0.2553, 0.3662)


def test_wilson_at_none_and_at_all():
    # centre ± half with p = 0 is [0, z²/(n + z²)]: 3.8415 / 13.8415
    assert (wilson(0, 10).low, round(wilson(0, 10).high, 4)) == (0.0, 0.2775)
    assert (round(wilson(10, 10).low, 4), wilson(10, 10).high) == (0.7225, 1.0)


def test_no_data_says_nothing():
    rate = wilson(0, 0)
    assert (rate.low, rate.high) == (0.0, 1.0)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_solves_its_own_equation(pair: tuple[int, int]):
    """A bound b is where |p − b| = z √(b(1−b)/n): the definition of a score interval."""
    k, n = pair
    rate, z = wilson(k, n), 1.959963984540054
    for bound in (rate.low, rate.high):
        if 0 < bound < 1:
            assert abs(k / n - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), rel=1e-6)
    assert rate.low <= rate.rate <= rate.high


def test_success_counts_episodes():
    assert (success(FOUR).k, success(FOUR).n) == (3, 4)


def test_success_by_iteration_adds_up_and_ends_at_success():
    assert [rate.k for rate in success_by_iteration(FOUR, 5)] == [1, 2, 3, 3, 3]
    assert success_by_iteration(FOUR, 5)[-1] == success(FOUR)


def test_first_attempts_and_single_answers():
    assert (first_attempt(FOUR).k, first_attempt(FOUR).n) == (1, 4)
    assert (per_step_accuracy(FOUR).k, per_step_accuracy(FOUR).n) == (3, 9)


def test_a_regression_is_a_right_answer_that_was_given_up():
    given_up = Outcome(is_success=False, attempts=((True, False),))
    assert regressions([*FOUR, *WALKS, given_up]) == wilson(1, 9)


def test_recognition_counts_only_where_there_is_something_to_read():
    assert recognition(FOUR) is None
    read = [episode(True, recognised=True), episode(False, recognised=False), episode(False)]
    assert recognition(read) == wilson(1, 2)
    assert recognition(WALKS) == wilson(4, 7)  # k of n positions


def test_several_positions_are_counted_by_hand():
    assert [rate.k for rate in success_by_iteration(WALKS, 4)] == [1, 2, 3, 3]
    assert success_by_iteration(WALKS, 4)[-1] == success(WALKS) == wilson(3, 4)
    assert first_attempt(WALKS) == wilson(1, 4)
    assert per_step_accuracy(WALKS) == wilson(8, 14)
    assert first_answers(WALKS) == wilson(5, 9)


def test_an_episode_without_an_answer_is_a_failure():
    nothing = [Outcome(is_success=False, attempts=())]
    assert success_by_iteration(nothing, 2) == [wilson(0, 1)] * 2
    assert first_attempt(nothing) == wilson(0, 1)
    assert per_step_accuracy(nothing) == first_answers(nothing) == wilson(0, 0)


def played_with(viter: int, steps: list[list[bool]]) -> Outcome:
    """A task of `len(steps)` positions, played turn by turn as the rules say; `steps[p][i]` is attempt i at p."""
    attempts = []
    for tape in steps:
        here = []
        for is_correct in tape[:viter]:
            here.append(is_correct)
            if is_correct:
                break
        attempts.append(tuple(here))
        if not here[-1]:
            return Outcome(is_success=False, attempts=tuple(attempts))
    return Outcome(is_success=True, attempts=tuple(attempts))


TAPES = st.lists(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=4), max_size=6)


@given(TAPES)
def test_success_within_k_attempts_is_what_playing_with_k_attempts_would_give(tapes: list[list[list[bool]]]):
    full = [played_with(4, steps) for steps in tapes]
    for k, rate in enumerate(success_by_iteration(full, 4), start=1):
        assert rate == success([played_with(k, steps) for steps in tapes])
    assert first_attempt(full) == success_by_iteration(full, 4)[0]
    assert regressions(full).k == 0


@given(TAPES)
def test_per_step_accuracy_counts_turn_by_turn(tapes: list[list[list[bool]]]):
    full = [played_with(4, steps) for steps in tapes]
    right = answers = firsts = positions = 0
    for outcome in full:
        for attempts in outcome.attempts:
            positions += 1
            for attempt, is_correct in enumerate(attempts):
                answers += 1
                right += is_correct
                firsts += is_correct and attempt == 0
    assert (per_step_accuracy(full).k, per_step_accuracy(full).n) == (right, answers)
    assert (first_answers(full).k, first_answers(full).n) == (firsts, positions)


def test_the_difference_is_newcombes_example():
    """56/70 − 48/80: method 10 of Newcombe 1998 gives 0.0524 to 0.3339."""
    found = difference(wilson(48, 80), wilson(56, 70))
    assert (round(found.value, 2), round(found.low, 4), round(found.high, 4)) == (0.2, 0.0524, 0.3339)
    assert found.is_significant


def test_equal_rates_do_not_differ():
    assert not difference(wilson(10, 20), wilson(10, 20)).is_significant


def test_the_gap_is_positive_where_ood_is_worse():
    assert generalisation_gap(wilson(9, 10), wilson(1, 10)).value == pytest.approx(0.8)


def test_mcnemar_is_a_coin_toss_over_the_disagreements():
    # 1 lost, 5 won of 6: 2·(C(6,0) + C(6,1)) / 2⁶ = 14/64
    first = [True] + [False] * 5 + [True, False]
    second = [False] + [True] * 5 + [True, False]
    found = mcnemar(first, second)
    assert (found.won, found.lost) == (5, 1)
    assert found.p_value == pytest.approx(14 / 64)


def test_mcnemar_without_disagreement_is_certain_of_nothing():
    assert mcnemar([True, False], [True, False]).p_value == 1.0
