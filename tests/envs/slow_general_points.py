"""GeneralPoints by definition, as slowly as it reads. Shares no line with the package."""

import ast
import re
from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import combinations, permutations, product

OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


@cache
def reachable(numbers: tuple[Fraction, ...]) -> set[Fraction]:
    """Every value that some formula over all the numbers has: join any two, and go on with what is left."""
    if len(numbers) == 1:
        return set(numbers)
    values: set[Fraction] = set()
    for i, j in combinations(range(len(numbers)), 2):
        rest = tuple(numbers[k] for k in range(len(numbers)) if k not in (i, j))
        for joined in joins(numbers[i], numbers[j]):
            values |= reachable(tuple(sorted((*rest, joined))))
    return values


def joins(a: Fraction, b: Fraction) -> list[Fraction]:
    return [a + b, a - b, b - a, a * b] + ([a / b] if b else []) + ([b / a] if a else [])


def value(formula: str) -> Fraction | None:
    """What Python makes of the text as an expression, in fractions; None where it makes nothing of it."""
    try:
        return walk(ast.parse(formula, mode="eval").body)
    except (SyntaxError, ZeroDivisionError, MemoryError, RecursionError):
        return None


def is_formula(text: str) -> bool:
    """Whether Python reads the text as + - * / of plain integers and nothing else."""
    if set(text) - set("0123456789+-*/()") or re.search(r"(?<![0-9])0[0-9]", text):
        return False
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval").body))
    except SyntaxError:
        return False
    return all(isinstance(node, (ast.BinOp, ast.Constant, *OPERATORS)) for node in nodes)


def walk(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    assert isinstance(node, ast.BinOp)
    left, right = walk(node.left), walk(node.right)
    sign = OPERATORS[type(node.op)]
    return left / right if sign == "/" else {"+": left + right, "-": left - right, "*": left * right}[sign]


def strings(numbers: list[int], target: int) -> set[str]:
    """All solution strings: seven bracketings of every order with every three operators."""
    forms = ("%s%s%s%s%s%s%s", "(%s%s%s)%s%s%s%s", "(%s%s%s%s%s)%s%s", "%s%s(%s%s%s)%s%s", "%s%s(%s%s%s%s%s)")
    forms += ("%s%s%s%s(%s%s%s)", "(%s%s%s)%s(%s%s%s)")
    found = set()
    for (a, b, c, d), (x, y, z), form in product(set(permutations(numbers)), product("+-*/", repeat=3), forms):
        formula = form % (a, x, b, y, c, z, d)
        if value(formula) == target:
            found.add(formula)
    return found


def summed(formula: str, numbers: list[int], solutions: set[str], target: int) -> tuple[int, str]:
    """Reward and message of the `reference` profile, step by step as the specification lists them."""
    formula = formula.split("=")[0]
    tokens = re.findall(r"[0-9]+|[-+*/()]", formula)
    if "".join(tokens) != formula:
        return -3, "illegal characters."
    messages = sequence_messages(tokens)
    reward = -3 * len(messages)
    used, dealt = Counter(int(t) for t in tokens if t.isdigit()), Counter(numbers)
    numbers_wrong = []
    if foreign := [n for n in used if n not in dealt]:
        numbers_wrong.append(f"you used invalid numbers: {foreign}")
    elif over := [n for n in used if used[n] > dealt[n]]:
        numbers_wrong.append(f"you used numbers: {over} too many times")
    if unused := [n for n in dealt if used[n] < dealt[n]]:
        numbers_wrong.append(f"you didn't use numbers: {unused}")
    reward -= 2 * len(numbers_wrong)
    messages += numbers_wrong
    if reward == 0:
        if value(formula) == target:
            return 5, "Correct solution."
        if value(formula) is None and any(s.startswith(formula) for s in solutions):
            return 1, "partial solution."
        for k in range(1, len(tokens) + 1):
            if not any(s.startswith("".join(tokens[:k])) for s in solutions):
                start = "".join(tokens[: k - 1])
                partly = f"{start} is partially correct but the full formula does not match any solution"
                messages.append(partly if start else "your formula does not match any solution")
                reward -= 1
                break
    return reward, ", ".join(messages) + "."


def sequence_messages(tokens: list[str]) -> list[str]:
    messages, open_ones = [], []
    for before, token in zip(["start", *tokens], tokens, strict=False):
        ends_a_value = before.isdigit() or before == ")"
        if token.isdigit() and ends_a_value:
            messages.append("invalid sequence after number")
        if token in "+-*/" and not ends_a_value:
            messages.append("invalid sequence after operator")
        if token == "(":
            open_ones.append(token)
            if ends_a_value:
                messages.append("invalid sequence before '('")
        if token == ")":
            if not ends_a_value:
                messages.append("invalid sequence after ')'")
            if not open_ones:
                messages.append("unmatched closing parenthesis")
            else:
                open_ones.pop()
    return messages
