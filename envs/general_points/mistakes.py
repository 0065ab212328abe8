"""Plausible wrong formulas and misread cards, for teaching how to go on after a verdict."""

import random

from envs.general_points import arithmetic, verifier
from envs.general_points.hands import RANKS
from envs.general_points.solver import BRACKETINGS, OPERATORS


def wrong_formula(hand: verifier.Hand, target: int, seed: int) -> str:
    """Half the time the dealt numbers with another value; half the time one number replaced by one of 1 to 10.

    Numbers above 10 are never put in: under the rule `ten`, they would show what face cards count as under `rank`.
    """
    draw = random.Random(seed)
    while True:
        numbers = list(hand.numbers)
        draw.shuffle(numbers)
        if seed % 2:
            numbers[draw.randrange(4)] = str(draw.randint(1, 10))
        operators = [draw.choice(OPERATORS) for _ in range(3)]
        a, b, c, d = numbers
        formula = draw.choice(BRACKETINGS).format(a, operators[0], b, operators[1], c, operators[2], d)
        if seed % 2:
            tokens = arithmetic.tokens_of(formula) or []
            if verifier.number_faults(tokens, hand):
                return formula
        elif verifier.paper(formula, hand, target).reward == -1.0:
            return formula


def misread(ranks: str, seed: int) -> str:
    """The hand with one card taken for another: `"7K7A"` as `"7K9A"`."""
    draw = random.Random(seed)
    place = draw.randrange(len(ranks))
    taken_for = draw.choice(RANKS.replace(ranks[place], ""))
    return ranks[:place] + taken_for + ranks[place + 1 :]
