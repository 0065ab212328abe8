import pytest

from envs import suites
from envs.virl import Virl, cities

DIGESTS = {
    "virl/id": "2d1b4895e73f463e",
    "virl/ood-rule": "482acb9b06677143",
    "virl/id-unseen": "1ea6259efa98e033",
    "virl/ood-oldtown": "178f21be498821e0",
    "virl/ood-ringhaven": "d40935e3ba5a2aa2",
    "virl/ood-hillcrest": "5b1136a41211a459",
    "virl/vision-id": "60d29101dd094eb6",
    "virl/vision-ood-rule": "9746a464bce3c922",
    "virl/vision-id-unseen": "88b60d5187bbaf99",
    "virl/vision-ood-oldtown": "f04736f8350966b8",
    "virl/vision-ood-ringhaven": "68aaec0284e304a3",
    "virl/vision-ood-hillcrest": "949fb8e1cd24dd1a",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_suites_are_frozen(name: str):
    """A changed digest is a changed suite: results would no longer compare with those of before."""
    assert suites.load(name, 200).digest[:16] == DIGESTS[name]


def test_suites_are_what_their_names_say():
    assert suites.default_suites("virl") == ("virl/id", "virl/ood-rule")
    assert suites.default_suites("virl", "vision") == ("virl/vision-id", "virl/vision-ood-rule")
    for name in suites.suite_names("virl"):
        suite = suites.load(name, 40)
        short = name.partition("/")[2].removeprefix("vision-")
        assert suite.kind == short.partition("-")[0]
        options = suite.tasks[0].options
        assert options["modality"] == ("vision" if "vision" in name else "language")
        assert options["actions"] == ("relative" if short == "ood-rule" else "absolute")
        city = short.removeprefix("ood-") if short[4:] in cities.NAMES else "gridport"
        assert options["city"] == city
        assert all(task.id.startswith(f"{city}-0-") for task in suite.tasks)
    train = Virl(split="train")
    seen = [train.sample(0, index) for index in range(3000)]
    assert suites.shared(suites.load("virl/id-unseen", 200).tasks, seen) == frozenset()
    assert suites.shared(suites.load("virl/id", 200).tasks, seen)


def test_what_is_measured_is_steps_of_routes():
    assert (suites.headline("virl"), suites.tasks_word("virl")) == ("per_step_accuracy", "routes")
    assert suites.suite_names("virl") == tuple(DIGESTS)
