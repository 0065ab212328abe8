import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import envs
from envs import suites
from envs.base import ConfigError, DataError
from envs.general_points import GeneralPoints
from envs.task import State, Status

GAME = GeneralPoints(modality="vision", suits="black", resolution=128)
TASK = GAME.task_of({"cards": ["C7", "SK", "CT", "CA"]})
STATE = GAME.start(TASK)
RIGHT = "7+10+10-1"  # 26: wrong in value, right in numbers
NUMBERS = '"number": [7, 10, 10, 1]'
MISREAD = (-1.5, Status.WRONG_RECOGNITION, "you recognized wrong cards")


def graded(answer: str, game: GeneralPoints = GAME) -> tuple[float, Status, str]:
    verdict, _ = game.verify(game.task_of({"cards": TASK.data["cards"]}), STATE, answer)
    return verdict.reward, verdict.status, verdict.feedback


def test_the_prompt_is_one_user_turn_with_the_picture_and_without_the_cards():
    for face_cards, says in (("ten", "count as '10'."), ("rank", "count as '11', '12', and '13' respectively.")):
        game = GeneralPoints(modality="vision", face_cards=face_cards, target=36)
        task = game.task_of({"cards": ["C7", "SK", "CT", "CA"]})
        (turn,) = game.prompt(task, game.start(task))
        assert (turn.role, turn.images) == ("user", ("C7-SK-CT-CA",))
        assert turn.text.index("[Task Description]") < turn.text.index("[Output]")
        assert "[Input]" not in turn.text
        assert "a valid json file" in turn.text
        assert says in turn.text
        assert "an expert 36 points player" in turn.text
        assert "'an equation that equals 36'" in turn.text
        assert turn.text == game.prompt(game.sample(1), State(attempts_left=5))[0].text  # the same for every hand
    language = GeneralPoints()
    assert "json" not in language.prompt(language.sample(1), STATE)[0].text


def test_the_picture_of_a_prompt_is_that_of_its_hand():
    (turn,) = GAME.prompt(TASK, STATE)
    picture = GAME.image(turn.images[0])
    assert (picture.shape, picture.dtype) == ((128, 128, 3), np.uint8)
    assert GAME.image(turn.images[0]) is picture
    assert not picture.flags.writeable
    other = envs.make("general_points", **{**TASK.options, "resolution": 64})
    assert other.image(turn.images[0]).shape == (64, 64, 3)
    same_look = GeneralPoints(modality="vision", resolution=128, face_cards="rank", viter=1)
    assert same_look.image(turn.images[0]) is picture
    with pytest.raises(DataError, match="image 'CK-C7': no hand"):
        GAME.image("CK-C7")


@pytest.mark.parametrize("rewards", ["paper", "reference"])
@pytest.mark.parametrize(
    "cards",
    ["['7', 'K', '10', 'A']", '["7", "K", "10", "A"]', "[7, K, 10, A]", "['A', '10', 'K', '7']", '["A","K",10,7]'],
)
def test_the_right_cards_are_read_in_any_order_and_layout(cards: str, rewards: str):
    game = GeneralPoints(modality="vision", rewards=rewards)
    for answer in (
        f'"cards": {cards}, {NUMBERS}, "formula": "{RIGHT}=24"',
        f'{{"cards": {cards}, "formula": "{RIGHT}"}}',
    ):
        assert graded(answer, game)[1] is Status.WRONG_VALUE
        assert game.recognises(game.task_of({"cards": TASK.data["cards"]}), answer)


@pytest.mark.parametrize("rewards", ["paper", "reference"])
@pytest.mark.parametrize(
    "cards",
    [
        "['7', 'Q', '10', 'A']",
        "['7', '10', '10', 'A']",        # what the cards count as is not what they are
        "['7', 'K', 'T', 'A']",
        "['C7', 'SK', 'CT', 'CA']",
        "['7', 'K', '10']",
        "['7', 'K', '10', 'A', 'A']",
        "['7', '7', 'K', '10']",
        "[]",
        "7, K, 10, A",
        '["7", "K", "10", null]',
        '["7", "K", "10", {"A": 1}]',
        "[7, 13, 10, 1]",
    ],
)  # fmt: skip
def test_wrong_cards_are_all_that_is_told(cards: str, rewards: str):
    game = GeneralPoints(modality="vision", rewards=rewards)
    for formula in (RIGHT, "++", "9", ""):
        for answer in (f'"cards": {cards}, "formula": "{formula}"', f'{{"cards": {cards}, "formula": "{formula}"}}'):
            assert graded(answer, game) == MISREAD
            assert not game.recognises(game.task_of({"cards": TASK.data["cards"]}), answer)


def test_recognised_cards_leave_the_formula_to_be_graded_as_in_language():
    language = GeneralPoints()
    task = language.task_of({"cards": ["C7", "CK", "C7", "CA"]})
    seen = GeneralPoints(modality="vision")
    for formula in ("7+7+10*1", "7+7+10+1", "7+7+13*1", "7+7", "7++7", "(7+7", "", "None"):
        answer = json.dumps({"cards": ["7", "7", "K", "A"], "formula": formula})
        expected = language.verify(task, STATE, answer)
        assert seen.verify(seen.task_of({"cards": ["C7", "CK", "C7", "CA"]}), STATE, answer) == expected
    assert graded(json.dumps({"cards": ["7", "K", "10", "A"]}))[1] is Status.ILLEGAL_FORMULA


def test_attempts_count_down_on_misread_cards_as_on_any_wrong_answer():
    game = GeneralPoints(modality="vision", viter=2)
    task = game.sample(0)
    first, state = game.verify(task, game.start(task), "no")
    assert (first.terminated, first.truncated, state) == (False, False, State(attempts_left=1))
    last, state = game.verify(task, state, "no")
    assert (last.terminated, last.truncated, state.is_over) == (False, True, True)
    assert game.feedback(last).text == "You failed this trial because you recognized wrong cards"
    assert game.feedback(last).images == ()


@given(st.text() | st.text('"cards": {}[]\'7KTA10,\n\\', max_size=60))
def test_no_text_raises(answer: str):
    assert graded(answer)[1].is_judgement


def test_experts_are_right_and_mistakes_wrong_some_of_them_in_a_card():
    kinds: Counter[Status] = Counter()
    for face_cards in ("ten", "rank"):
        game = GeneralPoints(modality="vision", face_cards=face_cards)
        for index in range(300):
            task = game.sample(index)
            state = game.start(task)
            expert = game.expert(task, state, index)
            assert game.recognises(task, expert)
            assert game.verify(task, state, expert)[0].status is Status.CORRECT
            verdict, _ = game.verify(task, state, game.mistake(task, state, index))
            kinds[verdict.status] += 1
    assert set(kinds) == {Status.WRONG_RECOGNITION, Status.WRONG_VALUE, Status.WRONG_NUMBERS}
    assert 150 < kinds[Status.WRONG_RECOGNITION] < 250


def test_a_misread_hand_is_answered_as_if_it_lay_there():
    """One card is another; the formula goes with what was seen."""
    right_for_what_was_seen = 0
    tasks = [GAME.sample("misread", index) for index in range(300)]
    answers = [(task, GAME.mistake(task, STATE, 1)) for task in tasks]
    misread = [(task, answer) for task, answer in answers if not GAME.recognises(task, answer)]
    for task, answer in misread:
        seen = answer.partition("['")[2].partition("']")[0].split("', '")
        dealt = ["10" if card[1] == "T" else card[1] for card in task.data["cards"]]
        assert sum(a != b for a, b in zip(seen, dealt, strict=True)) == 1
        as_seen = GAME.task_of({"cards": ["C" + card.replace("10", "T") for card in seen]})
        verdict, _ = GAME.verify(as_seen, STATE, answer)
        assert verdict.status in (Status.CORRECT, Status.WRONG_VALUE, Status.WRONG_NUMBERS)
        right_for_what_was_seen += verdict.status is Status.CORRECT
    assert right_for_what_was_seen > len(misread) / 3


def test_language_games_know_nothing_of_looks():
    plain, sized = GeneralPoints(), GeneralPoints(resolution=64)
    assert plain.options.model_dump().keys().isdisjoint({"resolution", "deck", "scene"})
    assert sized.sample(3) == plain.sample(3)
    with pytest.raises(ConfigError, match="general_points options: scene: 'noisy': nothing is drawn in modality"):
        GeneralPoints(scene="noisy")
    with pytest.raises(ConfigError, match="general_points options: resolution: 63"):
        GeneralPoints(modality="vision", resolution=63)
    assert GAME.options.model_dump()["resolution"] == 128
    assert envs.make("general_points", **GAME.options.model_dump()).options == GAME.options


def test_each_suite_of_another_look_changes_one_thing():
    base = dict(suites.load("general_points/vision-id", 1).options)
    changed = {
        name.removeprefix("general_points/vision-"): {
            key: value for key, value in suites.load(name, 1).options.items() if value != base[key]
        }
        for name in suites.suite_names("general_points")
        if "/vision-" in name
    }
    assert changed == {
        "id": {},
        "ood-rule": {"face_cards": "rank", "min_face_cards": 1},
        "ood-visual": {"suits": "red"},
        "id-unseen": {"hands": "held_out"},
        "ood-font": {"deck": "serif"},
        "ood-four-colour": {"suits": "mixed", "deck": "four_colour"},
        "ood-rotated": {"scene": "rotated"},
        "ood-noisy": {"scene": "noisy"},
    }
    assert (base["modality"], base["suits"], base["face_cards"]) == ("vision", "black", "ten")


DIGESTS = {
    "vision-id": "88725a9bac16d183",
    "vision-ood-rule": "56d627ab79c8d59c",
    "vision-ood-visual": "63c321a60d689ec5",
    "vision-id-unseen": "dba003ef64cc02e5",
    "vision-ood-font": "f32bd16c6a0ba577",
    "vision-ood-four-colour": "92388e9182b54c46",
    "vision-ood-rotated": "33865f1190bcff52",
    "vision-ood-noisy": "e9c6efdf24c3e327",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_suites_are_frozen_and_may_be_shown_at_any_size(name: str):
    suite = suites.load(f"general_points/{name}", 1000)
    assert suite.digest[:16] == DIGESTS[name]
    assert suite.kind == name.split("-")[1]
    small = suites.presented(suite.tasks[:2], resolution=64)
    assert [task.id for task in small] == [task.id for task in suite.tasks[:2]]
    shown = envs.make("general_points", **small[0].options)
    assert shown.image(small[0].id).shape == (64, 64, 3)


def test_vision_has_suites_of_its_own_by_default():
    found = suites.default_suites("general_points", "vision")
    assert found == ("general_points/vision-id", "general_points/vision-ood-rule")
    assert suites.default_suites("general_points") == ("general_points/id", "general_points/ood-rule")


def test_games_in_language_load_no_imaging_library():
    code = """import sys, envs
game = envs.make("general_points", modality="vision")
game.verify(game.sample(1), game.start(game.sample(1)), "no")
print({"PIL", "matplotlib"} & {*sys.modules})
game.image("CK-C7-HT-CA")
print({"PIL", "matplotlib"} & {*sys.modules})"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "set()\n{'PIL'}\n"
