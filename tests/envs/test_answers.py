import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from envs.answers import MAX_ANSWER_CHARS, _json_object, list_field, text_field

LOOSE = "\n{\n  \"cards\": ['A', '3', 'K', '6'],\n  \"number\": [1, 3, 10, 6],\n  \"formula\": \"1+3=24\",\n}"


def test_the_taught_layout_and_real_json_read_alike():
    real = json.dumps({"cards": ["A", "3", "K", "6"], "number": [1, 3, 10, 6], "formula": "1+3=24"})
    for answer in (LOOSE, real, f"Let me think.\n```json\n{real}\n```", f"  {real}\n"):
        assert text_field(answer, "formula") == "1+3=24"
        assert list_field(answer, "cards", 4) == ("A", "3", "K", "6")
        assert list_field(answer, "number", 4) == ("1", "3", "10", "6")


@pytest.mark.parametrize(
    ("answer", "formula"),
    [
        ("", "None"),
        ("I do not know", "None"),
        ('"formula": "1+2', "None"),                            # never closed
        ('"formula":"1+2"', "None"),                            # the loose layout has one space after the colon
        ('{"formula":"1+2"}', "1+2"),                           # JSON may have any spacing
        ('"formula": "1\n+2" "formula": "3"', "3"),             # a loose formula stands on one line
        ('"formula": "1" "formula": "2"', "1"),
        ('{"formula": "1", "formula": "2"}', "2"),
        ('{"formula": ""}', ""),
        ('{"formula": null}', "None"),
        ('{"formula": 24}', "None"),
        ('{"formula": NaN}', "None"),
        ('{"formula": ["1"]}', "None"),
        ('{"answer": {"formula": "1+2"}}', "1+2"),
        ('[{"formula": "1+2"}]', "1+2"),
        ('{"formula": "1\\u002b2"}', "1+2"),
    ],
)  # fmt: skip
def test_a_formula_is_read_or_none(answer: str, formula: str):
    assert text_field(answer, "formula") == formula


@pytest.mark.parametrize("items", ["[1, 2, 3]", "[[1], 2, 3, 4]", '"A234"', "[]", "[1.5, 2, 3, 4]", "[true, 2, 3, 4]"])
def test_lists_of_another_length_or_kind_are_empty(items: str):
    assert list_field(f'{{"cards": {items}}}', "cards", 4) == ()


def test_loose_lists_of_another_length_are_empty():
    for answer in ('"cards": [1, 2, 3]', '"cards": []', '"cards": [1, 2', "no"):
        assert list_field(answer, "cards", 4) == ()


def test_nothing_beyond_the_limit_is_read():
    assert text_field("x" * MAX_ANSWER_CHARS + LOOSE, "formula") == "None"
    assert text_field(LOOSE + "x" * MAX_ANSWER_CHARS, "formula") == "1+3=24"


@given(st.text())
def test_any_text_reads_as_something(answer: str):
    assert isinstance(text_field(answer, "formula"), str)
    assert isinstance(list_field(answer, "cards", 4), tuple)


@given(
    st.dictionaries(
        st.sampled_from(["formula", "cards", "number", "x"]),
        st.recursive(st.none() | st.text() | st.integers() | st.floats(), st.lists),
    )
)
def test_any_json_reads_as_something(value: dict):
    answer = json.dumps(value)
    expected = value.get("formula") if isinstance(value.get("formula"), str) else "None"
    assert text_field(answer, "formula") == expected
    assert isinstance(list_field(answer, "cards", 4), tuple)


@given(st.text(alphabet='{}",: \n\t\xa0\x0b\\1[]af', max_size=30), st.sampled_from(["", ",", ', "x": 1', ' "x": ","']))
@example('"a": ",}"', "")
def test_a_text_is_read_as_json_exactly_where_it_is_json(inner: str, end: str):
    answer = f"{{{inner}{end}}}"
    try:
        value = json.loads(answer)
    except ValueError:
        value = None
    assert _json_object(answer) == value


@pytest.mark.parametrize(
    "unit",
    ['"formula": "\n', '"cards": [', "[", "{", '{"a":', "(", " ", '"', "\\", "9", '"formula": "1', '{"formula": "'],
)
def test_time_grows_no_faster_than_the_answer(unit: str):
    answer = unit * (1_000_000 // len(unit))
    best = min(timed(answer) for _ in range(5))
    assert best < 0.05  # microseconds to 1 ms in fact; a quadratic reader takes minutes


def timed(answer: str) -> float:
    start = time.perf_counter()
    text_field(answer, "formula")
    list_field(answer, "cards", 4)
    return time.perf_counter() - start
