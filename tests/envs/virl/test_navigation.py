import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs import suites
from envs.task import State, Status, Task, Verdict
from envs.virl import Virl, cities, prompts

WALK = Virl()
TASK = WALK.sample(0)


def played(walk: Virl, task: Task) -> list[State]:
    """The states of an episode that an expert plays."""
    states = [walk.start(task)]
    while not states[-1].is_over:
        verdict, state = walk.verify(task, states[-1], walk.expert(task, states[-1]))
        assert verdict.status is Status.CORRECT
        states.append(state)
    return states


# ---------------------------------------------------------------- the question
def test_the_question_is_one_user_turn_whose_sections_stand_in_order():
    for actions, modality in product(("absolute", "relative"), ("language", "vision")):
        walk = Virl(actions=actions, modality=modality)
        task = walk.sample(0)
        (turn,) = walk.prompt(task, walk.start(task))
        headings = re.findall(r"^\[(.*)\]$", turn.text, re.MULTILINE)
        seen = ["Observation format", "front, right\n back, left"] if modality == "vision" else []
        assert headings == [
            "Task Description", "Instruction", *seen[:1], "Action space", "Observations and actions sequence", "Output",
        ]  # fmt: skip
        assert all(part in turn.text for part in seen)
        assert turn.role == "user"
        assert len(turn.images) == (modality == "vision")
        words = re.search(r"one of \d directions: (.*)", turn.text)[1].split(", ")
        assert words == list(prompts.RELATIVE if actions == "relative" else prompts.COMPASS)
        lines = [f"{n}. {line}" for n, line in enumerate(task.data["instructions"], start=1)]
        assert "\n".join(["[Instruction]", *lines, ""]) in turn.text


def test_what_was_observed_and_done_grows_by_a_position_at_a_time():
    told = [
        (f"{seen}; {'You observe an intersection' if there else ''}", action)
        for action, seen, there, *_ in TASK.data["rail"]
    ]
    for n, state in enumerate(WALK.states(TASK), start=1):
        past = [f"O_{i}: {o}\nA_{i}: {a}\n" for i, (o, a) in enumerate(told[: n - 1], start=1)]
        expected = "".join(past) + f"O_{n}: {told[n - 1][0]}\nA_{n}: \n"
        text = WALK.prompt(TASK, state)[0].text
        assert text.partition("sequence]\n")[2].partition("\n[Output]")[0] == expected


def test_where_it_sees_only_the_present_is_a_picture():
    walk = Virl(modality="vision")
    task = walk.sample(0)
    text = walk.prompt(task, walk.states(task)[-2])[0].text
    n = len(task.data["rail"]) - 1
    assert f"O_{n}: You observe an image of 4 views; " in text
    assert text.count("an image of 4 views") == 1
    assert task.data == TASK.data


def test_the_present_is_told_to_be_an_intersection_where_it_is_one():
    walk = Virl(modality="vision")
    task = walk.sample(0)
    for state in walk.states(task):
        present = re.findall(r"^O_\d+: (.*)$", walk.prompt(task, state)[0].text, re.MULTILINE)[-1]
        at_one = task.data["rail"][state.position][2]
        assert present == f"You observe an image of 4 views; {'You observe an intersection' if at_one else ''}"


# ---------------------------------------------------------------- the episode
@pytest.mark.parametrize("rewards", ["paper", "reference"])
def test_an_expert_goes_from_position_to_position_and_ends_with_stop(rewards: str):
    walk = Virl(rewards=rewards, viter=3)
    task = walk.sample(0)
    states = played(walk, task)
    assert tuple(states[:-1]) == walk.states(task)
    assert states[-1] == State(attempts_left=3, position=len(task.data["rail"]), is_over=True)
    actions = [action for action, *_ in task.data["rail"]]
    assert actions.count("stop()") == 1
    assert actions[-1] == "stop()"


def test_attempts_are_those_of_a_position_and_come_back_with_the_next():
    walk = Virl(viter=2)
    wrong, right = walk.mistake(TASK, walk.start(TASK)), walk.expert(TASK, walk.start(TASK))
    _, state = walk.verify(TASK, walk.start(TASK), wrong)
    assert state == State(attempts_left=1)
    verdict, state = walk.verify(TASK, state, right)
    assert verdict == Verdict(reward=1.0, status=Status.CORRECT, feedback="Correct action.")
    assert state == State(attempts_left=2, position=1)


def test_the_last_wrong_answer_ends_a_paper_episode():
    state = State(attempts_left=1, position=2)
    verdict, after = WALK.verify(TASK, state, "no")
    assert (verdict.terminated, verdict.truncated) == (False, True)
    assert after == State(attempts_left=0, position=2, is_over=True)
    assert verdict.reward in (-1, -1.5)


def test_a_reference_episode_ends_with_a_limit_call_that_judges_nothing():
    walk = Virl(rewards="reference")
    verdict, state = walk.verify(TASK, State(attempts_left=1, position=2), "no")
    assert (verdict.truncated, state) == (True, State(attempts_left=0, position=2, is_over=True))  # dealt as `paper`
    task = walk.sample(0)
    verdict, state = walk.verify(task, State(attempts_left=1, position=2), "no")
    assert (verdict.truncated, state) == (False, State(attempts_left=0, position=2))
    verdict, state = walk.verify(task, state, walk.expert(task, state))
    assert (verdict.reward, verdict.status, verdict.feedback) == (-1, Status.LIMIT, "Exceed maximum verify steps")
    assert (verdict.terminated, verdict.truncated) == (False, True)
    assert state == State(attempts_left=0, position=2, is_over=True)


def test_feedback_is_told_as_a_user_turn():
    verdict, _ = WALK.verify(TASK, WALK.start(TASK), '"action": "stop()"')
    message = WALK.feedback(verdict)
    assert message.role == "user"
    assert message.text == f"You failed this trial because {prompts.wrong_action(doubled=False)}"


@pytest.mark.parametrize(("actions", "city"), product(("absolute", "relative"), cities.NAMES))
def test_experts_are_right_and_mistakes_wrong_at_every_position_of_every_city(actions: str, city: str):
    walk = Virl(actions=actions, city=city)
    kinds: Counter[Status] = Counter()
    for index in range(25):
        task = walk.sample("everywhere", index)
        assert len(played(walk, task)) == len(task.data["rail"]) + 1
        for state in walk.states(task):
            right = walk.expert(task, state)
            assert walk.observes(task, state.position, right)
            observed, instruction = (
                json.loads(f"{right[:-3]}}}")[f"current {key}"] for key in ("observation", "instruction")
            )
            assert observed.startswith(task.data["rail"][state.position][1])
            assert instruction in task.data["instructions"]
            verdict, _ = walk.verify(task, state, walk.mistake(task, state, index))
            kinds[verdict.status] += 1
            action = re.search('"action": "(.*)"', walk.mistake(task, state, index))[1]
            assert action in walk.prompt(task, state)[0].text or action.startswith("turn_direction(")
    assert set(kinds) == {Status.WRONG_ACTION, Status.WRONG_RECOGNITION}
    assert 0.25 < kinds[Status.WRONG_RECOGNITION] / kinds.total() < 0.42


def test_turns_are_named_by_the_action_space_and_all_else_is_the_same_under_both_rules():
    absolute, relative = (Virl(actions=actions).sample(3) for actions in ("absolute", "relative"))
    assert absolute.id == relative.id
    assert absolute.data["instructions"] == relative.data["instructions"]
    pairs = list(zip(absolute.data["rail"], relative.data["rail"], strict=True))
    assert [one[1:] for one, _ in pairs] == [other[1:] for _, other in pairs]
    turns = [(one[0], other[0]) for one, other in pairs if one[0] != other[0]]
    assert len(turns) == len(absolute.data["instructions"]) // 2
    for (one, other), line in zip(turns, absolute.data["instructions"][::2], strict=True):
        assert line.endswith(f"urn {other[15:-1]} to face {one[15:-1]}.")


def test_an_observation_counts_by_the_landmark_it_names():
    position = next(n for n, entry in enumerate(TASK.data["rail"]) if entry[2])
    seen = TASK.data["rail"][position][1]
    for said, is_right in (
        (seen, True),
        (f"{seen}; ", True),
        (f"{seen}; whatever", True),
        (f"{seen} too", False),
        ("", False),
    ):
        assert WALK.observes(TASK, position, json.dumps({"current observation": said})) == is_right
    assert not WALK.observes(TASK, position, "no")


@settings(max_examples=60, deadline=None)
@given(
    st.text() | st.text('"action: {}[]()forwd\n\\,', max_size=60),
    st.integers(0, len(TASK.data["rail"]) - 1),
    st.integers(0, 2),
)
def test_no_text_raises(answer: str, position: int, left: int):
    for rewards in ("paper", "reference"):
        task = replace(TASK, options={**TASK.options, "rewards": rewards})
        verdict, state = WALK.verify(task, State(attempts_left=left, position=position), answer)
        assert verdict.status.is_judgement
        assert state.is_over == verdict.truncated or verdict.status is Status.CORRECT


# ---------------------------------------------------------------- tasks travel
def test_a_task_is_all_that_is_needed_to_play_and_judge_it():
    relative = Virl(actions="relative", city="hillcrest", rewards="reference", viter=4)
    task = relative.sample(0)
    row = json.loads(
        json.dumps({"environment": task.environment, "options": task.options, "id": task.id, "data": task.data})
    )
    travelled = Task(**row)
    assert travelled == task
    for reader in (WALK, envs.make("virl", **travelled.options)):
        assert reader.start(travelled) == State(attempts_left=4)
        for state in relative.states(task):
            assert reader.prompt(travelled, state) == relative.prompt(task, state)
            assert reader.mistake(travelled, state) == relative.mistake(task, state)
            wrong = relative.mistake(task, state)
            assert reader.verify(travelled, state, wrong) == relative.verify(task, state, wrong)


def test_tasks_that_are_shown_otherwise_are_judged_as_they_say():
    (shown,) = suites.presented([TASK], viter=7)
    assert WALK.start(shown).attempts_left == 7
    assert WALK.prompt(shown, WALK.start(shown)) == WALK.prompt(TASK, WALK.start(TASK))
    seen = Virl(modality="vision").sample(0)
    (small,) = suites.presented([seen], resolution=96, legacy_grid=True)
    assert dict(small.options) == {**seen.options, "resolution": 96, "legacy_grid": True}
    assert small.data == seen.data


def test_a_position_that_people_write_down_is_judged():
    spot = {
        "action": "stop()",
        "landmark": "The destination X is on your left",
        "intersection": "",
        "instruction": "Go.",
    }
    task = WALK.task_of(spot)
    assert WALK.verify(task, State(attempts_left=1), WALK.expert(task, State(attempts_left=1)))[0].terminated
    assert "1. Go.\n" in WALK.prompt(task, WALK.start(task))[0].text
    turn = WALK.task_of({**spot, "action": "turn_direction(left)", "intersection": "You observe an intersection"})
    verdict, state = WALK.verify(turn, State(attempts_left=1), '"action": "turn_direction(left)"')
    assert (verdict.reward, verdict.terminated, verdict.truncated, state.is_over) == (1, False, False, True)


def test_a_walk_that_was_dealt_can_be_given_back():
    dealt = WALK.sample("given", 1)
    given = WALK.task_of(dealt.data)
    assert given.data == dealt.data
    for state in WALK.states(dealt):
        assert WALK.prompt(given, state) == WALK.prompt(dealt, state)
        assert WALK.verify(given, state, WALK.expert(dealt, state))[0].status is Status.CORRECT


# ---------------------------------------------------------------- words
def test_all_words_are_listed_phrases_and_small_holes():
    phrases = sorted([*Virl.phrases, *Virl.vision_phrases], key=len, reverse=True)
    token = re.compile("|".join([*map(re.escape, phrases), "[0-9]"]))
    for actions, modality in product(("absolute", "relative"), ("language", "vision")):
        for city in cities.NAMES:
            walk = Virl(actions=actions, modality=modality, city=city)
            for index in range(12):
                task = walk.sample(index)
                for state in walk.states(task):
                    wrong, _ = walk.verify(task, state, walk.mistake(task, state, index))
                    texts = [walk.prompt(task, state)[0].text, walk.expert(task, state), walk.feedback(wrong).text]
                    for text in texts:
                        assert "".join(token.findall(text)) == text
                    legs = len(task.data["instructions"]) // 2
                    assert len(token.findall(texts[0])) <= 12 + 19 * legs + 9 * state.position
                    assert len(token.findall(texts[1])) <= 20


def test_names_of_other_cities_are_made_of_known_words_and_were_never_read_whole():
    trained, others = set(), set()
    for city in cities.NAMES:
        walk = Virl(city=city)
        names = {
            entry[1].partition(" is on your ")[0] for index in range(150) for entry in walk.sample(index).data["rail"]
        }
        (trained if city == cities.TRAINED else others).update(name.removeprefix("The destination ") for name in names)
    trained, others = ({name for name in names if not name.startswith("No land")} for names in (trained, others))
    assert trained
    assert others
    assert not trained & others
    words = {word for name in trained for word in name.split()}
    assert {word for name in others for word in name.split()} <= words


def test_walks_in_language_load_no_imaging_library():
    code = (
        "import sys, envs, envs.suites, envs.verify, envs.corpus\n"
        "walk = envs.make('virl'); task = walk.sample(0)\n"
        "walk.verify(task, walk.start(task), walk.mistake(task, walk.start(task)))\n"
        "envs.suites.load('virl/ood-hillcrest', 5); envs.corpus.expert_document(walk, 1)\n"
        "print({'PIL', 'torch', 'ray', 'gymnasium'} & {*sys.modules})"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "set()\n"
