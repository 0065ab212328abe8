from typing import ClassVar, Literal

import pytest
from pydantic import Field

import envs
from envs import suites
from envs.base import Config, ConfigError, DataError, validated
from envs.suites import SuiteSpec
from envs.task import Task

NAMES = tuple(name for name in suites.suite_names("general_points") if "/vision-" not in name)
DIGESTS = {
    "general_points/id": "0d9643fa36877dbe",
    "general_points/ood-rule": "0793125e981dba09",
    "general_points/id-unseen": "93a4fbf9c5390607",
    "general_points/ood-unseen": "98c0129c3aa09a97",
}


class Signs:
    """Tasks in both modalities: shown at any size, dealt of three kinds."""

    name = "signs"
    presentation = ("viter", "resolution")
    headline = "per_step_accuracy"
    tasks_word = "walks"
    suites: ClassVar = {
        "id": SuiteSpec("id", {}),
        "ood-rule": SuiteSpec("ood", {"kind": "b"}),
        "vision-id": SuiteSpec("id", {"modality": "vision"}),
        "vision-ood-rule": SuiteSpec("ood", {"modality": "vision", "kind": "b"}),
        "vision-ood-visual": SuiteSpec("ood", {"modality": "vision", "kind": "c"}),
    }

    class Options(Config):
        modality: Literal["language", "vision"] = "language"
        kind: Literal["a", "b", "c"] = "a"
        viter: int = 5
        resolution: int = Field(64, ge=8)

    def __init__(self, **options):
        self.options = validated(self.Options, options, source="signs options")

    def sample(self, *counters):
        return Task(environment="signs", options=self.options.model_dump(), id=repr(counters), data={})


@pytest.fixture
def signs():
    envs.register("signs", Signs)
    yield
    del envs._registered["signs"]
    envs._made.cache_clear()
    suites.load.cache_clear()


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
    assert suites.digest(suites.presented(suite.tasks, viter=1)) != suite.digest


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
    changed = suites.presented(tasks, viter=10)
    assert [task.id for task in changed] == [task.id for task in tasks]
    assert all(dict(new.options) == {**old.options, "viter": 10} for new, old in zip(changed, tasks, strict=True))
    game = envs.make("general_points")
    assert game.start(changed[0]).attempts_left == 10


def test_an_unknown_suite_is_told_the_known_ones():
    with pytest.raises(DataError, match="suites of general_points are general_points/id, "):
        suites.load("general_points/odd", 10)
    with pytest.raises(DataError, match="at least one task"):
        suites.load("general_points/id", 0)


@pytest.mark.usefixtures("signs")
def test_each_modality_has_its_own_default_suites():
    assert suites.default_suites("signs") == ("signs/id", "signs/ood-rule")
    assert suites.default_suites("signs", "vision") == ("signs/vision-id", "signs/vision-ood-rule")
    with pytest.raises(DataError, match="environment signs has no suites in smell"):
        suites.default_suites("signs", "smell")


@pytest.mark.usefixtures("signs")
def test_presentation_shows_the_same_tasks_and_nothing_else_may_be_set():
    tasks = suites.load("signs/vision-ood-visual", 3).tasks
    small = suites.presented(tasks, viter=2, resolution=32)
    assert [task.id for task in small] == [task.id for task in tasks]
    assert all(task.options == {"modality": "vision", "kind": "c", "viter": 2, "resolution": 32} for task in small)
    with pytest.raises(ConfigError, match=r"^signs options: kind: a suite fixes it.* is viter, resolution$"):
        suites.presented(tasks, kind="a")
    with pytest.raises(ConfigError, match=r"^signs options: resolution: 7: "):
        suites.presented(tasks, resolution=7)
    with pytest.raises(ConfigError, match=r"^general_points options: target: a suite fixes it"):
        suites.presented(suites.load("general_points/id", 1).tasks, target=25)


@pytest.mark.usefixtures("signs")
def test_an_environment_says_how_it_is_measured():
    assert (suites.headline("signs"), suites.tasks_word("signs")) == ("per_step_accuracy", "walks")
    assert suites.headline("general_points") == "success"
