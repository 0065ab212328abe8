import json

import pytest

from envs.verify import LineError, verify_line

GOOD = {
    "env": "general_points",
    "options": {"target": 24, "face_cards": "ten", "modality": "language", "rewards": "paper", "viter": 5},
    "state": {"cards": ["C7", "CK", "C7", "CA"]},
    "attempts_left": 5,
    "answer": '{"cards": ["7", "K", "7", "A"], "number": [7, 10, 7, 1], "formula": "7+7+10*1=24"}',
}


def line(**changes) -> str:
    return json.dumps({key: value for key, value in {**GOOD, **changes}.items() if value is not ...})


def test_a_line_gets_its_verdict():
    assert list(verify_line(line(), 1).items()) == [
        ("reward", 5.0),
        ("status", "correct"),
        ("feedback", "Correct solution."),
        ("terminated", True),
        ("truncated", False),
    ]
    assert json.dumps(verify_line(line(), 1)).startswith('{"reward": 5.0, "status": "correct"')


def test_the_last_attempt_is_truncated_at_once_in_paper_and_by_the_limit_call_in_reference():
    reference = {"rewards": "reference"}
    assert verify_line(line(answer="no", attempts_left=1), 1)["truncated"] is True
    assert verify_line(line(answer="no", attempts_left=1, options=reference), 1)["truncated"] is False
    for options in ({}, reference):
        limit = {
            "reward": -1.0,
            "status": "limit",
            "feedback": "step_limit_reached",
            "terminated": False,
            "truncated": True,
        }
        assert verify_line(line(attempts_left=0, options=options), 1) == limit


def test_rules_and_targets_are_those_of_the_line():
    answer = '"formula": "13+11*1/1"'
    state = {"cards": ["CK", "HJ", "CA", "CA"]}
    assert verify_line(line(state=state, answer=answer, options={"face_cards": "rank"}), 1)["status"] == "correct"
    assert verify_line(line(state=state, answer=answer), 1)["status"] == "wrong_numbers"
    assert verify_line(line(answer='"formula": "7+7+10+1"', options={"target": 25}), 1)["reward"] == 5.0


def test_cards_that_are_seen_must_be_recognised_first():
    options = {"modality": "vision", "rewards": "reference"}
    assert verify_line(line(options=options), 1)["status"] == "correct"
    misread = '{"cards": ["7", "Q", "7", "A"], "number": [7, 10, 7, 1], "formula": "7+7+10*1=24"}'
    verdict = verify_line(line(options=options, answer=misread), 1)
    assert list(verdict.values()) == [-1.5, "wrong_recognition", "you recognized wrong cards", False, False]


def test_unsolvable_hands_and_any_text_are_judged():
    verdict = verify_line(line(state={"cards": ["CA", "CA", "CA", "CA"]}, answer='"formula": "1+1+1+1"'), 1)
    assert verdict["feedback"] == "your formula does not match any solution."
    for answer in ("", "\ud800", "\0", "[" * 10**6, '{"formula": 7}'):
        assert verify_line(line(answer=answer), 1)["status"] == "illegal_formula"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"env": "chess"}, "line 7: env: environment 'chess' is unknown"),
        ({"env": 3}, "line 7: env: 3"),
        ({"env": ...}, "line 7: env: this key is required"),
        ({"options": ...}, "line 7: options: this key is required"),
        ({"options": None}, "line 7: options: None"),
        ({"options": {"targets": 24}}, "line 7: options.targets: unknown key; did you mean 'target'?"),
        ({"options": {"target": "24"}}, "line 7: options.target: '24'"),
        ({"options": {"face_cards": "eleven"}}, "line 7: options.face_cards: 'eleven'"),
        ({"options": {"name": "x"}}, "line 7: options.name: unknown key"),
        ({"options": {"modality": "vison"}}, "line 7: options.modality: 'vison'"),
        ({"options": {"modality": "vision", "resolution": 32}}, "line 7: options.resolution: 32"),
        ({"options": {"deck": "serif"}}, "line 7: options.deck: 'serif': nothing is drawn in modality 'language'"),
        ({"state": ...}, "line 7: state: this key is required"),
        ({"state": {}}, "line 7: state.cards: this key is required"),
        ({"state": {"cards": ["C7"]}}, "line 7: state.cards: "),
        ({"state": {"cards": ["C7", "C7", "C7", "C10"]}}, "line 7: state.cards: .*'C10' is no card"),
        ({"state": {"cards": ["7C", "C7", "C7", "C7"]}}, "line 7: state.cards: .*'7C' is no card"),
        ({"state": {"cards": ["C7", "C7", "C7", 7]}}, "line 7: state.cards.3: 7"),
        ({"state": {"cards": "C7C7C7C7"}}, "line 7: state.cards: "),
        ({"state": {"cards": ["C7"] * 4, "deck": 1}}, "line 7: state.deck: unknown key"),
        ({"attempts_left": ...}, "line 7: attempts_left: this key is required"),
        ({"attempts_left": "5"}, "line 7: attempts_left: '5'"),
        ({"attempts_left": 5.0}, "line 7: attempts_left: 5.0"),
        ({"attempts_left": True}, "line 7: attempts_left: True"),
        ({"attempts_left": -1}, "line 7: attempts_left: -1"),
        ({"answer": ...}, "line 7: answer: this key is required"),
        ({"answer": None}, "line 7: answer: None: expected a string"),
        ({"comment": "x"}, "line 7: comment: unknown key"),
    ],
)
def test_a_bad_line_is_told_its_number_and_field(changes: dict, problem: str):
    with pytest.raises(LineError, match=problem) as error:
        verify_line(line(**changes), 7)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "7", "[]", "null", "[" * 100_000, "9" * 10_000, '{"env": }'])
def test_a_line_that_is_no_object_is_told_so(text: str):
    with pytest.raises(LineError, match=r"^line 2: \(whole line\): "):
        verify_line(text, 2)


# ---------------------------------------------------------------- positions of a walk
WRONG = "make incorrect action. Please avoid this action and try again in the same format:\n{"
NOT_AT = "you are not at any intersection. Please avoid this observation and try again in the same format:\n{"
AT = "you are at an intersection. Please avoid this observation and try again in the same format:\n{"
STREET = {
    "action": "forward()",
    "landmark": "No landmarks nearby",
    "intersection": "",
    "instruction": "Move forward until you reach next intersection where Red Raven Cafe is on your left.",
}
CROSSING = {
    "action": "turn_direction(north)",
    "landmark": "Red Raven Cafe is on your left",
    "intersection": "You observe an intersection",
    "instruction": "Turn left to face north.",
}
WALK = {"actions": "absolute", "modality": "language", "viter": 2, "rewards": "paper"}


def step(state: dict, action: str = "forward()", observed: str = "", attempts_left: int = 2, **options) -> dict:
    """The verdict on an answer at a position of a walk."""
    answer = json.dumps({"current observation": observed, "current instruction": "x", "action": action})
    return verify_line(
        line(env="virl", options={**WALK, **options}, state=state, attempts_left=attempts_left, answer=answer), 1
    )


def test_a_step_gets_its_verdict():
    correct = {
        "reward": 1.0,
        "status": "correct",
        "feedback": "Correct action.",
        "terminated": False,
        "truncated": False,
    }
    assert step(STREET) == correct
    assert step(CROSSING, "turn_direction(north)") == correct
    assert step({**STREET, "action": "stop()"}, "stop()") == {**correct, "terminated": True}
    assert step({**STREET, "action": "turn_direction(slightly left)"}, "turn_direction(slightly left)",
                actions="relative") == correct  # fmt: skip
    for answer in (
        '\n{\n  "current observation": "",\n  "action": "forward()",\n}',
        'So:\n```json\n{"action": "forward()"}\n```',
    ):
        order = line(env="virl", options=WALK, state=STREET, attempts_left=2, answer=answer)
        assert verify_line(order, 1) == correct


@pytest.mark.parametrize("modality", ["language", "vision"])
@pytest.mark.parametrize(
    ("state", "observed", "reward", "status", "told"),
    [
        (STREET, "No landmarks nearby; ", -1.0, "wrong_action", WRONG),
        (STREET, "No landmarks nearby; You observe an intersection", -1.5, "wrong_recognition", NOT_AT),
        (CROSSING, "Red Raven Cafe is on your left; You observe an intersection", -1.0, "wrong_action", WRONG),
        (CROSSING, "Red Raven Cafe is on your left; ", -1.5, "wrong_recognition", AT),
        (CROSSING, "You observe an Intersection", -1.5, "wrong_recognition", AT),  # upper and lower case differ
    ],
)
def test_a_wrong_step_is_told_what_is_wrong(
    state: dict, observed: str, reward: float, status: str, told: str, modality: str
):
    for action in ("turn_direction(south)", "forward", "Forward()", " forward()", "None", ""):
        verdict = step(state, action, observed, modality=modality)
        assert (verdict["reward"], verdict["status"]) == (reward, status)
        assert told in verdict["feedback"]
        assert verdict["feedback"].endswith("}.")
        assert not verdict["terminated"]
        assert not verdict["truncated"]


def test_the_last_wrong_step_is_truncated_as_a_hand_is():
    paper, reference = (step(STREET, "stop()", attempts_left=1, rewards=rewards) for rewards in ("paper", "reference"))
    assert (paper["truncated"], reference["truncated"]) == (True, False)
    assert "{{" in reference["feedback"]
    assert "{{" not in paper["feedback"]
    for rewards in ("paper", "reference"):
        assert step(STREET, "forward()", attempts_left=0, rewards=rewards) == {
            "reward": -1.0, "status": "limit", "feedback": "Exceed maximum verify steps", "terminated": False,
            "truncated": True,
        }  # fmt: skip


def test_the_originals_claims_of_intersections_are_read_off_the_landmark_by_one_option():
    seen = "Red Raven Cafe is on your left; You observe an intersection"
    legacy = step(CROSSING, "stop()", seen, legacy_intersections=True)
    assert (legacy["reward"], legacy["status"]) == (-1.5, "wrong_recognition")
    assert NOT_AT in legacy["feedback"]
    named = {**STREET, "landmark": "The intersection Bar is on your left"}
    assert AT in step(named, "stop()", "nothing", legacy_intersections=True)["feedback"]
    assert step(named, "stop()", "nothing")["status"] == "wrong_action"


def test_any_answer_to_a_step_is_judged():
    for answer in ("", "\ud800", "\0", "[" * 10**6, '{"action": 7}', '{"current observation": null, "action": null}',
                   '{"current observation": 3, "action": "stop()"}', '{"current observation": ["intersection"]}'):  # fmt: skip
        order = line(env="virl", options=WALK, state=STREET, attempts_left=2, answer=answer)
        assert verify_line(order, 1)["status"] == "wrong_action"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"state": {}}, "line 7: state.action: this key is required"),
        ({"state": {**STREET, "action": "fly()"}}, r"line 7: state.action: 'fly\(\)': no action; write forward\(\), stop\(\) or"),
        ({"state": {**STREET, "action": "turn_direction(up)"}}, "line 7: state.action: "),
        ({"state": {**STREET, "landmark": 7}}, "line 7: state.landmark: 7"),
        ({"state": {**STREET, "intersection": False}}, "line 7: state.intersection: False"),
        ({"state": {**STREET, "instruction": None}}, "line 7: state.instruction: None"),
        ({"state": {**STREET, "landmarks": ""}}, "line 7: state.landmarks: unknown key; did you mean 'landmark'?"),
        ({"options": {"actions": "compass"}}, "line 7: options.actions: 'compass'"),
        ({"options": {"viter": 0}}, "line 7: options.viter: 0"),
        ({"options": {"legacy_heading": True}}, "line 7: options.legacy_heading: unknown key; did you mean 'legacy_headings'?"),
    ],
)  # fmt: skip
def test_a_bad_position_is_told_its_field(changes: dict, problem: str):
    with pytest.raises(LineError, match=problem) as error:
        verify_line(line(**{"env": "virl", "options": WALK, "state": STREET, **changes}), 7)
    assert "\n" not in str(error.value)
