from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.general_points.arithmetic import ending_faults, sequence_faults, tokens_of, value_of
from tests.envs import slow_general_points as slow

formulas = st.recursive(
    st.integers(0, 30).map(str),
    lambda parts: st.builds("{}{}{}".format, parts, st.sampled_from("+-*/"), parts) | parts.map("({})".format),
    max_leaves=12,
)


def test_tokens_are_numbers_operators_and_parentheses():
    assert tokens_of("(12+3)*4/56-7") == ["(", "12", "+", "3", ")", "*", "4", "/", "56", "-", "7"]
    assert tokens_of("") == []


@pytest.mark.parametrize(
    "text", ["1 + 2", "1+2 ", "1.5", "x", "1+٣", "1²", "１+2", "__import__", "1\n", "None", "1,2", "\0", "−1"]
)
def test_other_characters_are_illegal(text: str):
    assert tokens_of(text) is None


@given(formulas)
def test_a_formula_has_the_value_that_fractions_give(formula: str):
    tokens = tokens_of(formula)
    assert tokens is not None
    assert sequence_faults(tokens) == ending_faults(tokens) == []
    expected, found = slow.value(formula), value_of(tokens)
    assert (None if found is None else Fraction(*found)) == expected


@given(st.text("0123456789+-*/()", max_size=24))
def test_what_is_without_faults_is_exactly_what_python_parses(text: str):
    tokens = tokens_of(text)
    assert tokens is not None
    assert sequence_faults(tokens) == slow.sequence_messages(tokens)
    if tokens and not sequence_faults(tokens) and not ending_faults(tokens):
        compile(text, "formula", "eval")
    if not sequence_faults(tokens) and ending_faults(tokens):
        assert value_of(tokens) is None


def test_each_fault_is_named_where_it_stands():
    assert sequence_faults(tokens_of("+*1")) == ["invalid sequence after operator"] * 2
    assert sequence_faults(tokens_of("(1)2(3)")) == ["invalid sequence after number", "invalid sequence before '('"]
    assert sequence_faults(tokens_of("(1+)")) == ["invalid sequence after ')'"]
    assert sequence_faults(tokens_of("1)")) == ["unmatched closing parenthesis"]
    assert ending_faults(tokens_of("((1+02")) == ["unmatched opening parenthesis", "unknown token"]


def test_depth_and_division_by_zero_are_no_trouble():
    assert value_of(["("] * 10_000 + ["7"] + [")"] * 10_000) == (7, 1)
    assert value_of(tokens_of("1/(2-2)")) is None
    assert value_of(tokens_of("1/(1/(2-2))")) is None
    assert value_of([]) is None
