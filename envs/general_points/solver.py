"""Every formula over four numbers that has a given value, exactly and at once with NumPy.

A formula is an order of the numbers, three operators, and one of seven ways to set at most one level of parentheses.
For four numbers these reach every value that any parentheses reach. Precedence makes each formula one of five binary
trees, so all 24 × 64 × 5 trees are evaluated and each of the 24 × 64 × 7 formulas looks its own tree up.
"""

from bisect import bisect_left
from functools import cache, lru_cache
from itertools import permutations, product

import numpy as np

OPERATORS = "+-*/"
BRACKETINGS = (
    "{}{}{}{}{}{}{}", "({}{}{}){}{}{}{}", "({}{}{}{}{}){}{}", "{}{}({}{}{}){}{}",
    "{}{}({}{}{}{}{})", "{}{}{}{}({}{}{})", "({}{}{}){}({}{}{})",
)  # fmt: skip
_ORDERS = np.array(list(permutations(range(4))))  # [24, 4]
_TRIPLES = tuple(product(OPERATORS, repeat=3))  # 64

Rational = tuple[np.ndarray, np.ndarray]  # numerators and denominators; 0 below: no value


@lru_cache(maxsize=2048)
def solutions(values: tuple[int, ...], target: int) -> tuple[str, ...]:
    """All solution strings of the four numbers, sorted, each once."""
    return tuple(sorted(text for text, _ in _solved(values, target)))


def longest_start(solved: tuple[str, ...], tokens: list[str]) -> str:
    """The longest start of the joined tokens that also starts a solution; "" where the first token already does not."""
    start = ""
    for token in tokens:
        if not starts_one(solved, start + token):
            break
        start += token
    return start


def starts_one(solved: tuple[str, ...], start: str) -> bool:
    """Whether any of the sorted solutions begins with `start`."""
    place = bisect_left(solved, start)
    return place < len(solved) and solved[place].startswith(start)


def plainest(values: tuple[int, ...], target: int, count: int) -> tuple[str, ...]:
    """The first `count` solutions by: no fraction on the way, few divisions, few parentheses, then the alphabet."""
    ranked = sorted((fraction, text.count("/"), text.count("("), text) for text, fraction in _solved(values, target))
    return tuple(text for *_, text in ranked[:count])


def _solved(values: tuple[int, ...], target: int) -> set[tuple[str, bool]]:
    """(solution string, whether a fraction appears on the way) of every solution."""
    numbers = np.array(values, dtype=np.int64)[_ORDERS]  # [24, 4]
    num, den, fraction = _all_trees(numbers)  # [24, 5, 64] each
    order, tree, triple = np.nonzero((num == target * den) & (den != 0))
    forms = _forms()
    found = set()
    for o, t, k in zip(order.tolist(), tree.tolist(), triple.tolist(), strict=True):
        first, second, third, fourth = numbers[o].tolist()
        op1, op2, op3 = _TRIPLES[k]
        for form in forms[t][k]:
            text = form.format(first, op1, second, op2, third, op3, fourth)
            found.add((text, bool(fraction[o, t, k])))
    return found


def _all_trees(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numerator, denominator and "a step had a fraction" of each order, tree of `_TREES` and operator triple.

    Arrays carry axes [order, op1, op2, op3]; an operator that is not yet applied has length 1.
    """
    a, b, c, d = ((numbers[:, i].reshape(-1, 1, 1, 1), np.ones((1, 1, 1, 1), dtype=np.int64)) for i in range(4))
    ab, bc, cd = _join(a, b, 1), _join(b, c, 2), _join(c, d, 3)
    ab_c, a_bc = _join(ab, c, 2), _join(a, bc, 1)
    bc_d, b_cd = _join(bc, d, 3), _join(b, cd, 2)
    trees = (
        (_join(ab_c, d, 3), ab, ab_c),
        (_join(a_bc, d, 3), bc, a_bc),
        (_join(ab, cd, 2), ab, cd),
        (_join(a, bc_d, 1), bc, bc_d),
        (_join(a, b_cd, 1), cd, b_cd),
    )
    shape = (len(numbers), 4, 4, 4)
    flat = (len(numbers), 64)
    num = np.stack([np.broadcast_to(whole[0], shape).reshape(flat) for whole, _, _ in trees], axis=1)
    den = np.stack([np.broadcast_to(whole[1], shape).reshape(flat) for whole, _, _ in trees], axis=1)
    broken = [np.broadcast_to(_is_fraction(x) | _is_fraction(y), shape).reshape(flat) for _, x, y in trees]
    return num, den, np.stack(broken, axis=1)


def _join(left: Rational, right: Rational, axis: int) -> Rational:
    """All four operators between two arrays of rationals, along `axis`. Division by zero leaves denominator 0."""
    (n, d), (m, e) = left, right
    down = d * e
    over = d * m * (e != 0)
    parts = np.broadcast_arrays(n * e + m * d, n * e - m * d, n * m, n * e)
    downs = np.broadcast_arrays(down, down, down, over, parts[0])[:4]
    return np.concatenate(parts, axis=axis), np.concatenate(downs, axis=axis)


def _is_fraction(value: Rational) -> np.ndarray:
    num, den = value
    return (num % np.where(den == 0, 1, den)) != 0


@cache
def _forms() -> tuple[tuple[tuple[str, ...], ...], ...]:
    """[tree][operator triple] -> the bracketings that mean this tree."""
    forms: list[list[list[str]]] = [[[] for _ in _TRIPLES] for _ in _TREES]
    for k, (op1, op2, op3) in enumerate(_TRIPLES):
        for bracketing in BRACKETINGS:
            tree = _tree_of(bracketing.format("a", op1, "b", op2, "c", op3, "d"))
            forms[_TREES.index(tree)][k].append(bracketing)
    return tuple(tuple(tuple(form) for form in row) for row in forms)


_TREES = ("((ab)c)d", "(a(bc))d", "(ab)(cd)", "a((bc)d)", "a(b(cd))")


def _tree_of(formula: str) -> str:
    """The binary tree of a formula over a, b, c, d by precedence and parentheses: `a+b*c+d` is "(a(bc))d"."""
    stack: list[str] = []
    pending: list[str] = []

    def join() -> None:
        pending.pop()
        right, left = stack.pop(), stack.pop()
        stack.append(f"({left}{right})")

    for token in formula:
        if token == "(":
            pending.append(token)
        elif token == ")":
            while pending[-1] != "(":
                join()
            pending.pop()
        elif token in OPERATORS:
            while pending and pending[-1] != "(" and (token in "+-" or pending[-1] in "*/"):
                join()
            pending.append(token)
        else:
            stack.append(token)
    while pending:
        join()
    return stack[0][1:-1]
