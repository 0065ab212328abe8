import json
import time
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs.task import State, Status, Verdict
from envs.virl import prompts
from envs.virl.routes import COMPASS
from envs.virl.verifier import Verifier

NOT_AT = "you are not at any intersection. Please avoid this observation and try again in the same format:\n"
AT = "you are at an intersection. Please avoid this observation and try again in the same format:\n"
WRONG = "you make incorrect action. Please avoid this action and try again in the same format:\n"

NONE, SEEN = "No landmarks nearby", "Blue Lantern Cafe is on your left"
NAMED = "The intersection bar is on your left"  # a name that says it
THERE = "You observe an intersection"


verifier = cache(lambda rewards, legacy: Verifier(rewards=rewards, legacy_intersections=legacy))


def judged(
    answer: str, *, landmark: str = NONE, is_intersection: bool = False, action: str = "forward()", left: int = 2,
    rewards: str = "paper", legacy: bool = False,
) -> Verdict:  # fmt: skip
    return verifier(rewards, legacy).judge(action, landmark, is_intersection, left, answer)


def said(observed: str, action: str) -> str:
    return f'\n{{\n  "current observation": "{observed}",\n  "current instruction": "x",\n  "action": "{action}",\n}}'


def by_the_book(observed: str, action: str, right: str, landmark: str, is_intersection: bool, *, legacy: bool):
    """Reward, status and what the message begins with, as slowly as it is told."""
    if action == right:
        return 1, Status.CORRECT, "Correct action."
    if legacy:
        says, is_there = "intersection" in observed, "intersection" in landmark
    else:
        says, is_there = "intersection" in observed.replace(landmark, "…"), is_intersection
    if says and not is_there:
        return -1.5, Status.WRONG_RECOGNITION, NOT_AT
    if is_there and not says:
        return -1.5, Status.WRONG_RECOGNITION, AT
    return -1, Status.WRONG_ACTION, WRONG


ACTIONS = ("forward()", "stop()", *(f"turn_direction({word})" for word in (*COMPASS, *prompts.RELATIVE)))
OBSERVED = st.sampled_from(
    [f"{seen}; {there}" for seen in (NONE, SEEN, NAMED) for there in ("", THERE)]
    + ["", "None", "You observe an Intersection", "intersection", "an image of 4 views; You observe an intersection"]
)


@settings(max_examples=120, deadline=None)
@given(
    observed=OBSERVED, action=st.sampled_from([*ACTIONS, "dance()", "", "forward() ", "Forward()"]),
    right=st.sampled_from(ACTIONS), landmark=st.sampled_from([NONE, SEEN, NAMED]), is_intersection=st.booleans(),
    legacy=st.booleans(), rewards=st.sampled_from(["paper", "reference"]), left=st.integers(1, 3), as_json=st.booleans(),
)  # fmt: skip
def test_verdicts_are_those_of_the_book(
    observed: str, action: str, right: str, landmark: str, is_intersection: bool, legacy: bool, rewards: str,
    left: int, as_json: bool,
):  # fmt: skip
    fields = {"current observation": observed, "current instruction": "x", "action": action}
    answer = json.dumps(fields, indent=1) if as_json else said(observed, action)
    verdict = judged(
        answer, landmark=landmark, is_intersection=is_intersection, action=right, left=left, rewards=rewards,
        legacy=legacy,
    )  # fmt: skip
    reward, status, words = by_the_book(observed, action, right, landmark, is_intersection, legacy=legacy)
    assert (verdict.reward, verdict.status) == (reward, status)
    assert verdict.feedback.startswith(words)
    assert verdict.terminated == (action == right == "stop()")
    assert verdict.truncated == (action != right and left == 1 and rewards == "paper")


@pytest.mark.parametrize(
    ("landmark", "is_intersection", "observed", "corrected", "legacy"),
    [
        (SEEN, True, f"{SEEN}; {THERE}", -1, -1.5),             # the original: "you are not at any intersection"
        (SEEN, True, f"{SEEN}; ", -1.5, -1),
        (SEEN, False, f"{SEEN}; {THERE}", -1.5, -1.5),
        (SEEN, False, f"{SEEN}; ", -1, -1),
        (NAMED, False, f"{NAMED}; ", -1, -1),
        (NAMED, False, f"{NAMED}; {THERE}", -1.5, -1),
        (NAMED, False, f"{NONE}; ", -1, -1.5),                  # the original: "you are at an intersection"
        (NAMED, True, f"{NAMED}; ", -1.5, -1),
        (NAMED, True, f"{NAMED}; {THERE}", -1, -1),
        (NONE, True, "You observe an Intersection", -1.5, -1),  # capitals are other letters
    ],
)  # fmt: skip
def test_a_claim_is_held_against_the_street_and_only_of_old_against_the_landmarks_name(
    landmark: str, is_intersection: bool, observed: str, corrected: float, legacy: float
):
    for old, reward in ((False, corrected), (True, legacy)):
        verdict = judged(said(observed, "stop()"), landmark=landmark, is_intersection=is_intersection, legacy=old)
        assert verdict.reward == reward


def test_the_message_repeats_the_format_that_the_question_asked_for():
    walk = envs.make("virl")
    task = walk.sample(0)
    asked = walk.prompt(task, walk.start(task))[0].text.partition("[Output]\n")[2].partition("\n")[2]
    assert asked.startswith("{\n")
    for observed, words in ((NONE, WRONG), (THERE, NOT_AT)):
        assert judged(said(observed, "stop()")).feedback == f"{words}{asked}."
        twice = asked.replace("{", "{{").replace("}", "}}")
        assert judged(said(observed, "stop()"), rewards="reference").feedback == f"{words}{twice}."
    assert judged(said(NONE, "stop()"), is_intersection=True).feedback == f"{AT}{asked}."


@pytest.mark.parametrize("rewards", ["paper", "reference"])
def test_with_no_attempts_left_nothing_is_judged(rewards: str):
    for answer in ("", said(NONE, "forward()")):
        limit = judged(answer, left=0, rewards=rewards)
        assert (limit.reward, limit.status, limit.feedback) == (-1, Status.LIMIT, "Exceed maximum verify steps")
        assert (limit.terminated, limit.truncated) == (False, True)


@pytest.mark.parametrize(
    "value", ["null", "3", "-1.5", "true", "[]", '["forward()"]', "{}", '{"action": "stop()"}', "NaN"]
)
def test_fields_that_are_no_text_are_wrong_and_raise_nothing(value: str):
    assert judged(f'{{"current observation": {value}, "action": "stop()"}}').reward == -1
    assert judged(f'{{"current observation": {value}, "action": "stop()"}}', is_intersection=True).reward == -1.5
    assert judged(f'{{"current observation": {value}, "action": "forward()"}}').reward == 1
    assert judged(f'{{"current observation": "{NONE}; ", "action": {value}}}').reward == -1
    assert judged(f'{{"action": {value}}}', is_intersection=True).reward == -1.5


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ('{"action":"forward()"}', True),
        ('```json\n{"action": "forward()"}\n```', True),
        ('I go ahead. "action": "forward()"', True),
        ('"action": "forward()', False),
        ('"action":"forward()"', False),
        ('"action": forward()', False),
        ("forward()", False),
        ('{"Action": "forward()"}', False),
        ('{"action": "forward()", "action": "stop()"}', False),
        ('{"action": "forward\\u0028)"}', True),
        ('"action": "stop()" "action": "forward()"', False),
        ('["forward()"]', False),
    ],
)
def test_an_action_is_read_from_json_or_the_loose_layout_and_compared_exactly(answer: str, is_right: bool):
    assert (judged(answer).status is Status.CORRECT) == is_right


HOSTILE = {
    "letters": "A" * 10**6,
    "brackets": "[" * 10**6,
    "braces": '{"action":' * 100_000,
    "openings": '"action": "\n' * 80_000,
    "observations": '"current observation": "\n' * 40_000,
    "long integer": '{"action": ' + "9" * 10**5 + "}",
    "long observation": '"current observation": "' + "intersection " * 80_000 + '"',
    "valid, all read": '{"current observation": "' + "intersectio" * 1_400 + '", "action": "x"}',
    "nul": '{"action": "forward()\\u0000"}',
    "surrogate": '"action": "\ud800"',
    "commas": "{" + "," * 16_000 + "}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_get_a_quick_verdict(name: str):
    def judge() -> float:
        start = time.perf_counter()
        verdict = judged(HOSTILE[name])
        took = time.perf_counter() - start
        assert verdict.status in (Status.WRONG_ACTION, Status.WRONG_RECOGNITION)
        assert len(verdict.feedback) < 500
        return took

    assert min(judge() for _ in range(7)) < 0.005


@settings(max_examples=120, deadline=None)
@given(
    st.text() | st.text('"action: {}[]()forwd\n\\,', max_size=60), st.sampled_from([NONE, NAMED, "", "{", '"']),
    st.booleans(), st.booleans(), st.integers(-1, 2),
)  # fmt: skip
def test_no_text_raises(answer: str, landmark: str, is_intersection: bool, legacy: bool, left: int):
    verdict = judged(answer, landmark=landmark, is_intersection=is_intersection, legacy=legacy, left=left)
    assert verdict.status.is_judgement
    assert verdict.reward in (1, -1, -1.5)


def test_verdicts_do_not_depend_on_what_was_judged_before():
    walk = envs.make("virl")
    asked = [(task, state) for task in map(walk.sample, range(20)) for state in walk.states(task)]
    once = [walk.verify(task, state, walk.mistake(task, state)) for task, state in asked]
    again = [walk.verify(task, state, walk.mistake(task, state)) for task, state in reversed(asked)]
    assert again[::-1] == once
    assert {verdict.status for verdict, _ in once} == {Status.WRONG_ACTION, Status.WRONG_RECOGNITION}
    assert all(
        after == State(attempts_left=1, position=state.position)
        for (_, after), (_, state) in zip(once, asked, strict=True)
    )
