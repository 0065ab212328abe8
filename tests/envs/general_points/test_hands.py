import random
from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement, product

import pytest

from envs.general_points import build_table, hands, solver
from envs.general_points.arithmetic import tokens_of, value_of
from tests.envs import slow_general_points as slow

MULTISETS = list(combinations_with_replacement(range(1, 14), 4))


@cache
def slowly_solvable() -> frozenset[tuple[int, ...]]:
    return frozenset(v for v in MULTISETS if Fraction(24) in slow.reachable(tuple(map(Fraction, v))))


@pytest.mark.parametrize(("face_cards", "count"), [("ten", 1236), ("rank", 1362)])
def test_solvable_hands_are_those_of_an_independent_solver(face_cards: str, count: int):
    values = {ranks: hands.values_of(ranks, face_cards) for ranks in MULTISETS}
    solvable = {ranks for ranks in MULTISETS if hands.preferred(values[ranks], 24)}
    assert len(MULTISETS) == 1820
    assert len(solvable) == count
    assert solvable == {ranks for ranks in MULTISETS if values[ranks] in slowly_solvable()}


def test_the_shipped_table_is_what_its_generator_makes():
    assert build_table.packed(build_table.build(24)) == hands.SHIPPED.read_bytes()


@pytest.mark.parametrize("values", [(3, 3, 8, 8), (1, 7, 7, 10), (1, 1, 1, 1), (6, 6, 6, 6), (2, 5, 11, 13)])
def test_solution_strings_are_those_of_the_definition(values: tuple[int, ...]):
    assert solver.solutions(values, 24) == tuple(sorted(slow.strings(list(values), 24)))


@pytest.mark.parametrize("target", [-5, 0, 1, 36, 200])
def test_any_target_has_the_solutions_of_the_independent_solver(target: int):
    draw = random.Random(target)
    for values in draw.sample(MULTISETS, 40):
        reachable = slow.reachable(tuple(map(Fraction, values)))
        assert bool(hands.preferred(values, target)) == (Fraction(target) in reachable)


def test_preferred_solutions_are_exact_and_plain():
    for values in MULTISETS:
        for formula in hands.preferred(values, 24):
            tokens = tokens_of(formula)
            num, den = value_of(tokens)
            assert num == 24 * den
            assert sorted(int(token) for token in tokens if token.isdigit()) == list(values)
    assert all("/" not in formula for formula in hands.preferred((1, 2, 3, 4), 24))
    assert hands.preferred((3, 3, 8, 8), 24) == ("8/(3-8/3)",)


@pytest.mark.parametrize(("face_cards", "rows"), [("ten", 20_876), ("rank", 22_615)])
def test_deals_are_every_solvable_order_of_ranks_once(face_cards: str, rows: int):
    table = hands.dealt(24, face_cards, "all", 0)
    solvable = {r for r in product(range(1, 14), repeat=4) if hands.values_of(r, face_cards) in slowly_solvable()}
    assert len(table) == rows
    assert set(table) == solvable


def test_held_out_hands_share_no_number_hand_with_training_under_either_rule():
    for face_cards in ("ten", "rank"):
        train = hands.dealt(24, face_cards, "train", 0)
        held_out = hands.dealt(24, face_cards, "held_out", 0)
        assert len(train) + len(held_out) == len(hands.dealt(24, face_cards, "all", 0))
        assert 0.08 < len(held_out) / (len(train) + len(held_out)) < 0.13
        for rule in ("ten", "rank"):
            assert not {hands.values_of(r, rule) for r in train} & {hands.values_of(r, rule) for r in held_out}
    classes = {hands.values_of(ranks, "ten") for ranks in MULTISETS}
    assert 0.08 < sum(hands.is_held_out(values) for values in classes) / len(classes) < 0.12


def test_face_cards_can_be_required():
    assert all(sum(rank >= 11 for rank in ranks) >= 2 for ranks in hands.dealt(24, "rank", "all", 2))


def test_suits_are_those_of_the_colour():
    assert Counter(map(len, hands.suits_of("mixed"))) == {4: 256}
    assert set("".join(hands.suits_of("black"))) == {"S", "C"}
    assert set("".join(hands.suits_of("red"))) == {"H", "D"}
