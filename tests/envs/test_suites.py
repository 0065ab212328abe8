import pytest

import envs
from envs import suites
from envs.base import DataError

NAMES = suites.suite_names("general_points")
DIGESTS = {
    "general_points/id": "0d9643fa36877dbe",
    "general_points/ood-rule": "0793125e981dba09",
    "general_points/id-unseen": "93a4fbf9c5390607",
    "general_points/ood-unseen": "98c0129c3aa09a97",
}


def test_names_and_defaults():
    assert tuple(f"general_points/{name}" for name in ("id", "ood-rule", "id-unseen", "ood-unseen")) == NAMES
    assert suites.default_suites("general_points") == ("general_points/id", "general_points/ood-rule")
    assert {name: suites.load(name, 1).kind for name in NAMES} == {name: name[15:].split("-")[0] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_suites_are_frozen(name: str):
    """A changed digest is a changed suite: results would no longer compare with those of before."""
    assert suites.load(name, 1000).digest[:16] == DIGESTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_smaller_suite_is_the_start_of_a_larger_one(name: str):
    large, small = suites.load(name, 2000), suites.load(name, 300)
    assert len(large.tasks) == 2000
    assert large.tasks[:300] == small.tasks
    assert large.digest != small.digest
    assert len({task.id for task in large.tasks}) > 1950


def test_the_digest_reads_tasks_and_nothing_else():
    suite = suites.load("general_points/id", 50)
    assert suites.digest(suite.tasks) == suite.digest
    assert suites.digest(suite.tasks[::-1]) != suite.digest
    assert suites.digest(suites.with_viter(suite.tasks, 1)) != suite.digest


def test_unseen_suites_share_no_hand_with_training():
    training = {}
    for face_cards in ("ten", "rank"):
        game = envs.make("general_points", hands="train", face_cards=face_cards)
        training[face_cards] = [game.sample(0, index) for index in range(5000)]
    for name in ("general_points/id-unseen", "general_points/ood-unseen"):
        for tasks in training.values():
            assert suites.shared(suites.load(name, 2000).tasks, tasks) == frozenset()
    assert suites.shared(suites.load("general_points/id", 500).tasks, training["ten"])


def test_ood_tasks_have_a_face_card_and_the_other_rule():
    for task in suites.load("general_points/ood-rule", 500).tasks:
        assert task.options["face_cards"] == "rank"
        assert any(card[1] in "JQK" for card in task.data["cards"])


def test_viter_changes_nothing_but_viter():
    tasks = suites.load("general_points/ood-rule", 20).tasks
    changed = suites.with_viter(tasks, 10)
    assert [task.id for task in changed] == [task.id for task in tasks]
    assert all(dict(new.options) == {**old.options, "viter": 10} for new, old in zip(changed, tasks, strict=True))
    game = envs.make("general_points")
    assert game.start(changed[0]).attempts_left == 10


def test_an_unknown_suite_is_told_the_known_ones():
    with pytest.raises(DataError, match="suites of general_points are general_points/id, "):
        suites.load("general_points/odd", 10)
    with pytest.raises(DataError, match="at least one task"):
        suites.load("general_points/id", 0)
