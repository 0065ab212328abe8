"""Hands of four cards: what they count, every formula that solves them, and which are dealt.

A *card* is suit then rank, `"HT"`; a *rank* is 1 to 13; a *number* is what a card counts as; `values` are the four
numbers of a hand, sorted. A hand of ranks and the rule for face cards give its values, so that one table of the 1,820
multisets of 1 to 13 serves both rules. The table of target 24 is shipped; `build_table` makes it.
"""

import gzip
import hashlib
import json
from functools import cache, lru_cache
from itertools import combinations_with_replacement, permutations, product
from pathlib import Path

from envs.general_points import solver

RANKS = "A23456789TJQK"
RANK_OF = {name: rank for rank, name in enumerate(RANKS, start=1)}
WRITTEN = {name: "10" if name == "T" else name for name in RANKS}  # a card as the model reads and writes it
SUITS = {"mixed": "SHDC", "black": "SC", "red": "HD"}
FACE = 11  # the lowest rank that is a face card
PREFERRED = 3  # expert solutions kept per hand

SHIPPED_TARGET = 24
SHIPPED = Path(__file__).with_name("solutions_24.json.gz")


def number_of(rank: int, face_cards: str) -> int:
    """What a rank counts as under the rule `ten` or `rank`."""
    return min(rank, 10) if face_cards == "ten" else rank


def values_of(ranks: tuple[int, ...], face_cards: str) -> tuple[int, ...]:
    """The sorted numbers of a hand: `(1, 13, 7, 7)` under `ten` is (1, 7, 7, 10)."""
    return tuple(sorted(number_of(rank, face_cards) for rank in ranks))


def preferred(values: tuple[int, ...], target: int) -> tuple[str, ...]:
    """Up to three solutions, the plainest first: no fractions, then few divisions, then few parentheses."""
    if target == SHIPPED_TARGET and values[0] >= 1 and values[-1] <= len(RANKS):
        return _shipped().get(values, ())
    return _computed(values, target)


def is_held_out(ranks: tuple[int, ...]) -> bool:
    """Whether a hand belongs to the fixed tenth that `hands="train"` never deals. Face cards are one card here."""
    name = "-".join(map(str, values_of(ranks, "ten")))
    return hashlib.sha256(f"general_points/{name}".encode()).digest()[0] < 26  # 26/256 of the names


@cache
def dealt(target: int, face_cards: str, hands: str, min_face_cards: int) -> tuple[tuple[int, ...], ...]:
    """Every ordered hand of ranks that these options deal, all equally likely; () where none is solvable.

    Ranks are drawn independently and unsolvable hands thrown away, which is the same as one uniform draw from this
    table. For target 24 and no other condition it has 20,876 rows (`ten`) or 22,615 (`rank`).
    """
    chosen = []
    for ranks in combinations_with_replacement(range(1, len(RANKS) + 1), 4):
        if sum(rank >= FACE for rank in ranks) < min_face_cards:
            continue
        if hands != "all" and is_held_out(ranks) != (hands == "held_out"):
            continue
        if preferred(values_of(ranks, face_cards), target):
            chosen.append(ranks)
    return tuple(sorted({order for ranks in chosen for order in permutations(ranks)}))


@cache
def suits_of(suits: str) -> tuple[str, ...]:
    """Every way to give four cards their suits: "SSSS", "SSSC", … for black."""
    return tuple("".join(four) for four in product(SUITS[suits], repeat=4))


@cache
def _shipped() -> dict[tuple[int, ...], tuple[str, ...]]:
    table = json.loads(gzip.decompress(SHIPPED.read_bytes()))
    return {tuple(map(int, name.split(","))): tuple(solutions) for name, solutions in table.items()}


@lru_cache(maxsize=4096)
def _computed(values: tuple[int, ...], target: int) -> tuple[str, ...]:
    return solver.plainest(values, target, PREFERRED)
