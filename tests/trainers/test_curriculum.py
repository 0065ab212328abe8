"""Verification iterations over steps: what is read, what is refused, and which step has how many."""

import warnings

import pytest

from envs.base import ConfigError, validated
from trainers import curriculum
from trainers.config import PpoConfig

CHANGING = ((0, 1), (6, 3), (12, 5))


def ppo(**settings) -> PpoConfig:
    return validated(PpoConfig, settings, source="run.yaml")


def test_a_step_alone_says_how_many_iterations_it_has():
    assert [curriculum.at(CHANGING, step) for step in range(16)] == [1] * 6 + [3] * 6 + [5] * 4
    assert {curriculum.at(5, step) for step in range(16)} == {5}


def test_room_is_made_for_the_largest_wherever_it_stands():
    assert curriculum.most(CHANGING) == 5
    assert curriculum.most(((0, 10), (4, 2))) == 10
    assert curriculum.most(7) == 7


def test_spans_cover_every_step_once():
    assert curriculum.spans(CHANGING, 16) == [(1, 6), (3, 6), (5, 4)]
    assert curriculum.spans(5, 16) == [(5, 16)]


def test_a_curriculum_is_told_in_words():
    assert curriculum.in_words(CHANGING) == "1 at first, 3 after 6 steps, 5 after 12 steps"
    assert curriculum.in_words(5) == "5"


@pytest.mark.parametrize("viter", [5, [[0, 1], [6, 3]]])
def test_settings_are_the_same_once_written_and_read_again(viter):
    config = ppo(viter=viter)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = config.model_dump(mode="json")
    assert written["viter"] == viter
    assert ppo(**written) == ppo(**config.model_dump()) == config


def test_a_curriculum_that_never_changes_is_its_number():
    assert ppo(viter=[[0, 3]]) == ppo(viter=3)


@pytest.mark.parametrize(
    ("viter", "says"),
    [
        ([], "at least one pair"),
        ([[3, 1]], "starts at step 0, this one at 3"),
        ([[0, 1], [6, 3], [4, 5]], "step 4 stands behind one that is not before it"),
        ([[0, 1], [6, 3], [6, 5]], "step 6 stands behind"),
        ([[0, 1], [20, 3]], "step 20 is never reached: ppo.steps=20, so 19 is the last"),
        ([[0, 1], [6, 0]], "0 iterations cannot be; at least 1"),
        ([[0, 1, 2]], "allowed are a whole number from 1 on, or pairs"),
        ({0: 1}, "allowed are a whole number from 1 on, or pairs"),
        (0, "at least 1 verification iteration"),
        (True, "allowed are a whole number"),
        (2.5, "allowed are a whole number"),
    ],
)
def test_what_cannot_be_is_one_sentence_with_the_key_and_the_value(viter, says):
    with pytest.raises(ConfigError) as refused:
        ppo(steps=20, viter=viter)
    assert str(refused.value).startswith(f"run.yaml: viter: {viter!r}: ")
    assert says in str(refused.value)
    assert "more)" not in str(refused.value)
