import random
import time
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs.general_points.verifier import hand_of, paper, reference
from envs.task import State, Status
from tests.envs import slow_general_points as slow

HANDS = ("7K7A", "3388", "TJQK", "AAAA", "2468", "A5K9", "3K3T")
HAND = hand_of("7K7A", "ten")  # 7, 10, 7, 1
ALPHABET = "0123456789+-*/()"


@cache
def strings(ranks: str, face_cards: str) -> frozenset[str]:
    return frozenset(slow.strings(list(map(int, hand_of(ranks, face_cards).numbers)), 24))


@st.composite
def near_formulas(draw, ranks: str, face_cards: str) -> str:
    """A formula of the hand's own numbers with a few characters changed, dropped or put in."""
    numbers = draw(st.permutations(hand_of(ranks, face_cards).numbers))
    form = draw(
        st.sampled_from(
            ["{}%s{}%s{}%s{}", "({}%s{})%s{}%s{}", "({}%s{}%s{})%s{}", "{}%s({}%s{}%s{})", "(({}%s{})%s{})%s{}"]
        )
    )
    text = form.format(*numbers) % tuple(draw(st.lists(st.sampled_from("+-*/"), min_size=3, max_size=3)))
    if solutions := sorted(strings(ranks, face_cards)):
        text = draw(st.sampled_from([text, draw(st.sampled_from(solutions))]))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(["", *ALPHABET])) + text[at + draw(st.integers(0, 1)) :]
    return text


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_reference_sums_as_specified(data: st.DataObject):
    ranks, face_cards = data.draw(st.sampled_from(HANDS)), data.draw(st.sampled_from(["ten", "rank"]))
    hand = hand_of(ranks, face_cards)
    formula = data.draw(near_formulas(ranks, face_cards) | st.text(ALPHABET, max_size=14))
    expected = slow.summed(formula, list(map(int, hand.numbers)), set(strings(ranks, face_cards)), 24)
    grade = reference(formula, hand, 24)
    assert (grade.reward, grade.feedback) == expected


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_paper_gives_the_first_thing_wrong(data: st.DataObject):
    ranks = data.draw(st.sampled_from(HANDS))
    hand = hand_of(ranks, "ten")
    formula = data.draw(near_formulas(ranks, "ten") | st.text(ALPHABET, max_size=14))
    tokens = slow.re.findall("[0-9]+", formula)
    if formula and not slow.is_formula(formula):
        expected = (-3, Status.ILLEGAL_FORMULA)
    elif sorted(tokens) != sorted(hand.numbers):
        expected = (-2, Status.WRONG_NUMBERS)
    elif slow.value(formula) == 24:
        expected = (5, Status.CORRECT)
    else:
        expected = (-1, Status.WRONG_VALUE)
    grade = paper(formula, hand, 24)
    assert (grade.reward, grade.status) == expected
    if grade.reward in (-1, -2):
        assert grade.feedback == reference(formula, hand, 24).feedback


def test_every_solution_string_is_correct_in_both_profiles():
    for ranks in HANDS:
        for face_cards in ("ten", "rank"):
            for formula in strings(ranks, face_cards):
                for grade in (paper, reference):
                    assert grade(formula, hand_of(ranks, face_cards), 24).status is Status.CORRECT


@pytest.mark.parametrize(
    ("formula", "reward", "feedback"),
    [
        ("7+7+10*1", 5, "Correct solution."),
        ("((7+7)+10)*1", 5, "Correct solution."),
        ("7*7-10*1", -1, "7 is partially correct but the full formula does not match any solution."),
        ("10*7*7*1", -1, "10* is partially correct but the full formula does not match any solution."),
        ("7+7+10", -2, "you didn't use numbers: [1]."),
        ("7+7+13*1", -2, "you used invalid numbers: [13], you didn't use numbers: [10]."),
        ("7+7+7+10*1", -2, "you used numbers: [7] too many times."),
        ("7+7+7*1", -2, "you used numbers: [7] too many times, you didn't use numbers: [10]."),
        ("7+7+10*1 ", -3, "illegal characters."),
        ("None", -3, "illegal characters."),
        ("7++7+10*1", -3, "invalid sequence after operator."),
        ("7+7+10*1)", -3, "unmatched closing parenthesis."),
        ("(7+7+10*1", -3, "unmatched opening parenthesis."),
        ("7+7+10*1+", -3, "invalid sequence after operator."),
        ("7+7+10*01", -3, "unknown token."),
        ("-7+7+10*1", -3, "invalid sequence after operator."),
        ("+" * 1000, -3, "invalid sequence after operator."),
        ("", -2, "you didn't use numbers: [7, 10, 1]."),
    ],
)
def test_paper_by_example(formula: str, reward: float, feedback: str):
    grade = paper(formula, HAND, 24)
    assert grade.reward == reward
    if "partially" not in feedback:
        assert grade.feedback == feedback
    else:
        assert grade.feedback.endswith("is partially correct but the full formula does not match any solution.")


def test_reference_adds_up():
    assert reference("7+7+13*1", HAND, 24)[::2] == (-4, "you used invalid numbers: [13], you didn't use numbers: [10].")
    assert reference("+*", HAND, 24).reward == -8
    assert reference("(7+7+10)*1"[:-3] + "*1", HAND, 24).reward == -1  # unclosed: legal but wrong
    assert reference("(10+7+7)/1"[:-1], HAND, 24).reward == -2
    assert reference("(7-1)*(7-10", HAND, 24).status is Status.WRONG_VALUE
    partial = reference("10*1+(7+7", HAND, 24)
    assert partial == (1, Status.PARTIAL, "partial solution.")


def test_exact_where_floats_fail():
    hand = hand_of("3388", "ten")
    assert 8 / (3 - 8 / 3) != 24
    for grade in (paper, reference):
        assert grade("8/(3-8/3)", hand, 24).status is Status.CORRECT


def test_a_hand_without_solutions_is_judged_too():
    hand = hand_of("AAAA", "ten")
    assert paper("1+1+1+1", hand, 24).feedback == "your formula does not match any solution."
    assert reference("1+1+1+1", hand, 4).reward == 5


def test_junk_has_bounded_rewards_and_words():
    for junk in ("+" * 4000, ")" * 4000, "1(" * 2000, "9" * 4000, "+".join(map(str, range(900))), "7*" + "9" * 4000):
        for grade in (paper, reference):
            found = grade(junk, HAND, 24)
            assert found.reward >= -400
            assert len(found.feedback) <= 4500
        assert len(paper(junk, HAND, 24).feedback) <= 600


HOSTILE = {
    "letters": "A" * 10**6,
    "brackets": "[" * 10**6,
    "braces": '{"a":' * 200_000,
    "parentheses": '"formula": "' + "(" * 10**6 + '"',
    "parentheses, all read": '"formula": "' + "(" * 4090 + '"',
    "pairs, all read": '"formula": "' + "(" * 2000 + "7+7+10*1" + ")" * 2000 + '"',
    "operators": '"formula": "' + "+" * 10**6 + '"',
    "closing": '"formula": "' + ")" * 4090 + '"',
    "distinct numbers": '"formula": "' + "+".join(map(str, range(1000))) + '"',
    "power": '{"formula": "9**9**9"}',
    "power of digits": '"formula": "9**9**9**9**9"',
    "import": "{\"formula\": \"__import__('os').system('true')\"}",
    "nul": '{"formula": "7+7\\u0000+10*1"}',
    "raw nul": '"formula": "7+7\0+10*1"',
    "surrogate": '"formula": "\ud800"',
    "arabic digits": '"formula": "٧+٧+١٠*١"',
    "full-width digits": '{"formula": "７+７+１０*１"}',
    "long integer": '{"formula": ' + "9" * 10**5 + "}",
    "long integer in a formula": '"formula": "' + "9" * 10**5 + '"',
    "long integer, all read": '"formula": "7*' + "9" * 4000 + '"',
    "not a number": '{"formula": NaN, "number": [Infinity, -Infinity]}',
    "equal keys": '{"formula": "1", "formula": 2, "formula": null}',
    "a list": '{"formula": ["7", "+"]}',
    "an object": '{"formula": {"formula": {}}}',
    "a truth": '{"formula": true}',
    "unclosed strings": '"formula": "\n' * 80_000,
    "openings": '"formula": ' * 90_000,
    "valid but long": "[" + "1," * 400_000 + "1]",
    "valid, all read": '{"a": [' + "1," * 8_000 + "1]}",
    "escapes": '{"formula": "' + "\\u0031" * 2_600 + '"}',
    "zeros": '"formula": "' + "0" * 4000 + '"',
}  # fmt: skip


@pytest.mark.parametrize("rewards", ["paper", "reference"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_get_a_quick_verdict(name: str, rewards: str):
    game = envs.make("general_points", rewards=rewards)
    task = game.task_of({"cards": ["C7", "CK", "C7", "CA"]})
    state = State(attempts_left=5)

    def judge() -> float:
        start = time.perf_counter()
        verdict, after = game.verify(task, state, HOSTILE[name])
        took = time.perf_counter() - start
        assert verdict.status in (Status.ILLEGAL_FORMULA, Status.WRONG_NUMBERS, Status.CORRECT)
        assert (verdict.status is Status.CORRECT) == (name == "pairs, all read")
        assert after.attempts_left == 4
        assert len(verdict.feedback) < 5000
        return took

    judge()
    assert min(judge() for _ in range(7)) < 0.005


@settings(max_examples=300)
@given(st.text() | st.text('"formula": {}[]()+-*/0123456789\n\\', max_size=60))
def test_no_text_raises(answer: str):
    for rewards in ("paper", "reference"):
        game = envs.make("general_points", rewards=rewards)
        verdict, _ = game.verify(game.sample(1), State(attempts_left=1), answer)
        assert verdict.status.is_judgement


def test_verdicts_do_not_depend_on_what_was_judged_before():
    game = envs.make("general_points")
    tasks = [game.sample("order", index) for index in range(50)]
    pairs = [(task, game.mistake(task, game.start(task), index)) for index, task in enumerate(tasks)]
    once = {task.id: game.verify(task, game.start(task), answer) for task, answer in pairs}
    random.Random(0).shuffle(pairs)
    assert {task.id: game.verify(task, game.start(task), answer) for task, answer in pairs} == once
