"""What an item keeps of an episode: positions, readings, pictures, and enough to look at them again."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest

import envs
from cluster.rollout import Quarantined
from envs import suites
from envs.task import Status
from services.evaluations.items import by_position, item_of, positions_of
from services.evaluations.orders import EvaluationOrder, Item, PlayOrder
from services.evaluations.scoring import Outcome
from tests.services.conftest import commit
from tests.services.reports.walks import Walks, played, registered


@pytest.fixture(autouse=True)
def walks() -> Iterator[None]:
    with registered():
        yield


def item(tmp_path: Path, suite: str, answers: list[list[str]], **options: int) -> Item:
    checkpoint = commit(tmp_path, "a", 1)
    order = PlayOrder(
        checkpoint=checkpoint, suite=suite, indices=(0,), order=EvaluationOrder(checkpoint="a@latest", options=options)
    )
    task = suites.presented(suites.load(suite, 1).tasks, viter=2, **options)[0]
    environment = envs.make("walks", **task.options)
    return item_of(order, environment, task, 0, played(environment, task, answers))


def test_turns_know_their_position_and_only_first_answers_are_asked_what_they_read(tmp_path: Path):
    found = item(tmp_path, "walks/vision-id", [["sign left: left"], ["sign up: up", "sign right: right"], ["no", "no"]])
    assert [(t.position, t.recognised) for t in found.turns] == [
        (0, True), (1, False), (1, None), (2, False), (2, None),
    ]  # fmt: skip
    assert found.outcome == Outcome(
        is_success=False, attempts=((True,), (False, True), (False, False)), recognised=(True, False, False)
    )
    assert [len(turns) for turns in by_position(found.turns)] == [1, 2, 2]


def test_without_pictures_there_is_nothing_to_recognise(tmp_path: Path):
    found = item(tmp_path, "walks/id", [["left"], ["right"], ["ahead"], ["back"]])
    assert (found.success, found.outcome.recognised) == (True, ())
    assert found.outcome.attempts == ((True,),) * 4
    assert all(position.images == [] for position in found.positions)


def test_a_position_tells_what_its_prompt_says_that_the_one_before_did_not(tmp_path: Path):
    found = item(tmp_path, "walks/vision-id", [["left"], ["right"], ["no", "no"]])
    assert found.prompt.startswith("Walk past the signs.\nO_1: You observe an image")
    assert [position.news for position in found.positions] == [
        "",
        "O_1: a sign left\nA_1: left\nO_2: You observe an image",
        "O_2: a sign right\nA_2: right\nO_3: You observe an image",
    ]
    assert [position.images for position in found.positions] == [["here.0.left"], ["here.1.right"], ["here.2.ahead"]]


def test_a_prompt_that_carries_its_pictures_along_shows_the_last_one_as_news():
    walks = Walks(modality="vision")
    episode = played(walks, walks.sample(0), [["left"], ["right"], ["no", "no"]])
    so_far = accumulate(segment.images for segment in episode.segments)
    carried = tuple(replace(s, images=images) for s, images in zip(episode.segments, so_far, strict=True))
    shown = positions_of(walks, replace(episode, segments=carried))
    assert [p.images for p in shown] == [["here.0.left"], ["here.1.right"], ["here.2.ahead"]]


def test_an_item_is_enough_to_see_its_task_again_as_it_was_shown(tmp_path: Path):
    found = item(tmp_path, "walks/vision-ood-rule", [["no", "no"]], resolution=32)
    again = envs.make(found.suite.partition("/")[0], **found.options)
    assert again.image(found.positions[0].images[0]).shape == (32, 32, 3)
    assert Item.model_validate_json(found.model_dump_json()) == found


def test_general_points_asks_of_its_one_first_answer(tmp_path: Path):
    game, suite = envs.make("general_points"), "general_points/id"
    task = suites.load(suite, 1).tasks[0]
    order = PlayOrder(
        checkpoint=commit(tmp_path, "a", 1), suite=suite, indices=(0,), order=EvaluationOrder(checkpoint="a@latest")
    )
    silent = Quarantined(task=task, status=Status.TIMEOUT, reason="slow", state=game.start(task), answer="24")
    lost = item_of(order, game, task, 0, silent)
    assert (lost.error, lost.turns, lost.outcome.recognised) == ("timeout: slow", [], ())
    right = game.expert(task, game.start(task))
    answered = played(Walks(), Walks().sample(0), [["no", right]])
    found = item_of(order, game, task, 0, replace(answered, task=task))
    assert [turn.recognised for turn in found.turns] == [False, None]
    assert [position.news for position in found.positions] == [""]
