"""Whose turn it is: nobody waits for ever, and automatic evaluations only for those of people."""

import asyncio
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.evaluations.line import Line

TURN = 16


async def served(sizes: dict[str, int], automatic: frozenset[str] = frozenset()) -> list[tuple[str, int]]:
    """Turns in order, of evaluations that all wait from the beginning: whose, and how many items."""
    line, left, turns = Line(TURN), dict(sizes), []
    for name in sizes:
        line.join(name, is_automatic=name in automatic)
    while any(left.values()):
        name = await line.next()
        quota, is_over = line.turn_of(is_automatic=name in automatic)
        played = 0
        while played < left[name] and not is_over(played) and played != quota:
            played += 1
        left[name] -= played
        turns.append((name, played))
        if left[name]:
            line.join(name, is_automatic=name in automatic)
    return turns


async def test_a_small_one_waits_for_one_turn_of_a_large_one_and_not_for_all_of_it():
    assert await served({"large": 100, "small": 16}) == [("large", 16), ("small", 16), ("large", 84)]


async def test_alone_there_are_no_turns():
    assert await served({"large": 1000}) == [("large", 1000)]


async def test_those_the_service_ordered_wait_until_nobody_else_does():
    turns = await served({"new": 20, "a": 20, "b": 20}, frozenset({"new"}))
    assert turns == [("a", 16), ("b", 16), ("a", 4), ("b", 4), ("new", 20)]


async def test_an_order_that_comes_interrupts_an_automatic_one_at_once_and_a_clients_after_its_turn():
    line = Line(TURN)
    _, automatic_is_over = line.turn_of(is_automatic=True)
    _, clients_is_over = line.turn_of(is_automatic=False)
    assert not automatic_is_over(1000)
    line.join("late", is_automatic=False)
    assert automatic_is_over(0)
    assert (clients_is_over(TURN - 1), clients_is_over(TURN)) == (False, True)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=6))
def test_nobody_waits_for_more_than_one_turn_of_each_other(sizes: list[int]):
    turns = asyncio.run(served({str(i): n for i, n in enumerate(sizes)}))
    assert {str(i): n for i, n in enumerate(sizes)} == {
        name: sum(n for other, n in turns if other == name) for name, _ in turns
    }
    for name in {name for name, _ in turns}:
        places = [-1, *(place for place, (other, _) in enumerate(turns) if other == name)]
        for before, after in pairwise(places):
            between = [other for other, _ in turns[before + 1 : after]]
            assert len(between) == len(set(between))
