"""Judges a formula: (hand, target, text) -> Grade, under one of two reward profiles. Pure, exact, bounded.

| what is found          | `paper`         | `reference`: the original's sums               |
|------------------------|-----------------|------------------------------------------------|
| cards misread (vision) | -1.5, no more   | -1.5, no more                                  |
| correct                | +5              | +5                                             |
| wrong value            | -1              | -1                                             |
| numbers not as dealt   | -2              | -2 for each of: foreign or overused; unused    |
| illegal formula        | -3              | -3 for each fault, added to those of numbers   |
| a solution without its last ")" | -3     | +1, repeatable                                 |
| unclosed "(", trailing operator, leading zero | -3 | -1                                    |
| step limit             | -1              | -1, in a call of its own                       |

`reference` differs from the original where that one fails: values are exact instead of floats, nothing crashes, and
both the sum and the message are bounded.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from envs.general_points import hands, solver
from envs.general_points.arithmetic import UNKNOWN_TOKEN, ending_faults, sequence_faults, tokens_of, value_of
from envs.general_points.prompts import (
    CORRECT,
    ILLEGAL_CHARACTERS,
    INVALID_NUMBERS,
    NO_SOLUTION,
    OVERUSED_NUMBERS,
    PARTIAL,
    PARTLY,
    TOO_MANY_TIMES,
    UNUSED_NUMBERS,
    WRONG_CARDS,
    number_list,
    sentence,
)
from envs.task import Status

MAX_FORMULA_CHARS = 4096  # no formula over four numbers needs more; longer ones are illegal unread
MAX_FAULTS = 64  # `reference` adds up and names no more than these


class Grade(NamedTuple):
    """Reward, status and words for one formula."""

    reward: float
    status: Status
    feedback: str


class Hand(NamedTuple):
    """A hand as the verifier sees it. Numbers are strings, as they stand in formulas."""

    values: tuple[int, ...]  # sorted
    numbers: tuple[str, ...]  # in order of the cards
    counts: dict[str, int]  # number -> how often, in order of first appearance


MISREAD = Grade(-1.5, Status.WRONG_RECOGNITION, WRONG_CARDS)
_CORRECT = Grade(5.0, Status.CORRECT, sentence([CORRECT]))
_PARTIAL = Grade(1.0, Status.PARTIAL, sentence([PARTIAL]))
_ILLEGAL_CHARACTERS = Grade(-3.0, Status.ILLEGAL_FORMULA, sentence([ILLEGAL_CHARACTERS]))
_TOO_LONG = Grade(-3.0, Status.ILLEGAL_FORMULA, sentence([UNKNOWN_TOKEN]))


@lru_cache(maxsize=8192)
def hand_of(ranks: str, face_cards: str) -> Hand:
    """The hand of ranks as in `"7K7A"`."""
    numbers = tuple(hands.number_of(hands.RANK_OF[rank], face_cards) for rank in ranks)
    written = tuple(map(str, numbers))
    return Hand(tuple(sorted(numbers)), written, {number: written.count(number) for number in written})


def paper(formula: str, hand: Hand, target: int) -> Grade:
    """One reward for the first thing wrong: form, then numbers, then value."""
    if len(formula) > MAX_FORMULA_CHARS:
        return _TOO_LONG
    tokens = tokens_of(formula)
    if tokens is None:
        return _ILLEGAL_CHARACTERS
    if faults := sequence_faults(tokens) + ending_faults(tokens):
        return Grade(-3.0, Status.ILLEGAL_FORMULA, sentence(list(dict.fromkeys(faults))))
    if faults := number_faults(tokens, hand):
        return Grade(-2.0, Status.WRONG_NUMBERS, sentence(faults))
    if _hits(value_of(tokens), target):
        return _CORRECT
    return _wrong_value(tokens, hand, target)


def reference(formula: str, hand: Hand, target: int) -> Grade:
    """The original's sum over everything wrong, and its bonus for a solution without its last parenthesis."""
    if len(formula) > MAX_FORMULA_CHARS:
        return _TOO_LONG
    tokens = tokens_of(formula)
    if tokens is None:
        return _ILLEGAL_CHARACTERS
    illegal, numbers = sequence_faults(tokens)[:MAX_FAULTS], number_faults(tokens, hand)
    if illegal or numbers:
        status = Status.ILLEGAL_FORMULA if illegal else Status.WRONG_NUMBERS
        return Grade(-3.0 * len(illegal) - 2.0 * len(numbers), status, sentence(illegal + numbers))
    value = value_of(tokens)
    if _hits(value, target):
        return _CORRECT
    if value is None and solver.starts_one(solver.solutions(hand.values, target), formula):
        return _PARTIAL
    return _wrong_value(tokens, hand, target)


PROFILES: dict[str, Callable[[str, Hand, int], Grade]] = {"paper": paper, "reference": reference}


def number_faults(tokens: list[str], hand: Hand) -> list[str]:
    """How the numbers differ from the hand: foreign ones, else overused ones; and those left over."""
    used: dict[str, int] = {}
    for token in tokens:
        if token[0] in "0123456789":
            number = token if token[0] != "0" else token.lstrip("0") or "0"
            used[number] = used.get(number, 0) + 1
    dealt = hand.counts
    if used == dealt:
        return []
    faults = []
    if foreign := [number for number in used if number not in dealt]:
        faults.append(f"{INVALID_NUMBERS}{number_list(foreign)}]")
    elif overused := [number for number in used if used[number] > dealt[number]]:
        faults.append(f"{OVERUSED_NUMBERS}{number_list(overused)}{TOO_MANY_TIMES}")
    if unused := [number for number in dealt if used.get(number, 0) < dealt[number]]:
        faults.append(f"{UNUSED_NUMBERS}{number_list(unused)}]")
    return faults


def _hits(value: tuple[int, int] | None, target: int) -> bool:
    return value is not None and value[0] == target * value[1]


def _wrong_value(tokens: list[str], hand: Hand, target: int) -> Grade:
    """How far the formula went along some solution."""
    start = solver.longest_start(solver.solutions(hand.values, target), tokens)
    return Grade(-1.0, Status.WRONG_VALUE, sentence([start + PARTLY if start else NO_SOLUTION]))
