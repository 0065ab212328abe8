"""Formulas of + - * / and parentheses: tokens, faults of their sequence, exact value. Nothing is ever executed."""

import re

_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_OPERATORS = frozenset("+-*/")
_OPENING = frozenset(("", "(", "+", "-", "*", "/"))  # what may stand before a number or '('; "" is the start
_PRECEDENCE = {"(": 0, "+": 1, "-": 1, "*": 2, "/": 2}

AFTER_NUMBER = "invalid sequence after number"
AFTER_OPERATOR = "invalid sequence after operator"
BEFORE_OPENING = "invalid sequence before '('"
AFTER_CLOSING = "invalid sequence after ')'"
UNMATCHED_CLOSING = "unmatched closing parenthesis"
UNMATCHED_OPENING = "unmatched opening parenthesis"
UNKNOWN_TOKEN = "unknown token"


def tokens_of(formula: str) -> list[str] | None:
    """`"(12+3)*4"` -> `["(", "12", "+", "3", ")", "*", "4"]`; None where a character is neither. Digits are ASCII."""
    tokens = _TOKEN.findall(formula)
    return tokens if "".join(tokens) == formula else None


def sequence_faults(tokens: list[str]) -> list[str]:
    """What stands where it may not, one message per fault in order. Unclosed ends are `ending_faults`."""
    faults = []
    depth = 0
    before = ""
    for token in tokens:
        if token in _OPERATORS:
            if before in _OPENING:
                faults.append(AFTER_OPERATOR)
        elif token == "(":
            if before not in _OPENING:
                faults.append(BEFORE_OPENING)
            depth += 1
        elif token == ")":
            if before in _OPENING:
                faults.append(AFTER_CLOSING)
            if depth:
                depth -= 1
            else:
                faults.append(UNMATCHED_CLOSING)
        elif before not in _OPENING:
            faults.append(AFTER_NUMBER)
        before = token
    return faults


def ending_faults(tokens: list[str]) -> list[str]:
    """What `sequence_faults` lets pass: a trailing operator, an unclosed '(', a number with leading zeros."""
    faults = []
    if tokens and tokens[-1] in _OPERATORS:
        faults.append(AFTER_OPERATOR)
    if tokens.count("(") > tokens.count(")"):
        faults.append(UNMATCHED_OPENING)
    if any(token[0] == "0" and len(token) > 1 for token in tokens):
        faults.append(UNKNOWN_TOKEN)
    return faults


def value_of(tokens: list[str]) -> tuple[int, int] | None:
    """Exact value as (numerator, denominator), not reduced, of tokens without `sequence_faults`.

    None where there is no value: division by zero, or one of the `ending_faults`. The cost grows with the digits of
    all intermediate values, so callers first check that the numbers are few and small.
    """
    values: list[tuple[int, int]] = []
    pending: list[str] = []
    for token in tokens:
        if token == "(":
            pending.append(token)
        elif token == ")":
            while pending[-1] != "(":
                if not _apply(pending.pop(), values):
                    return None
            pending.pop()
        elif token in _OPERATORS:
            rank = _PRECEDENCE[token]
            while pending and _PRECEDENCE[pending[-1]] >= rank:
                if not _apply(pending.pop(), values):
                    return None
            pending.append(token)
        elif token[0] == "0" and len(token) > 1:
            return None
        else:
            values.append((int(token), 1))
    while pending:
        if not _apply(pending.pop(), values):
            return None
    return values[0] if values else None


def _apply(operator: str, values: list[tuple[int, int]]) -> bool:
    """Replace the last two values by their result; False where there is none."""
    if operator == "(" or len(values) < 2:
        return False
    right, right_den = values.pop()
    left, left_den = values[-1]
    if operator == "*":
        values[-1] = (left * right, left_den * right_den)
    elif operator == "+":
        values[-1] = (left * right_den + right * left_den, left_den * right_den)
    elif operator == "-":
        values[-1] = (left * right_den - right * left_den, left_den * right_den)
    elif right:
        values[-1] = (left * right_den, left_den * right)
    else:
        return False
    return True
