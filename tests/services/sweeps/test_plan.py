"""What `--over` means: the runs it makes, what they share, and what it refuses before anything starts."""

from pathlib import Path

import pytest

from cluster.config import RunConfig
from envs.base import ConfigError
from services.sweeps.plan import Sweep, differences, planned

NANO = Path(__file__).parents[3] / "deploy" / "runs" / "nano-gp-l.yaml"


def sweep(over: str, *overrides: str) -> Sweep:
    return planned(NANO, overrides, over)


def test_each_value_is_a_run_named_after_file_key_and_value():
    found = sweep("ppo.max_staleness=0,1,4", "ppo.steps=10")
    assert found.name == "nano-gp-l-ppo.max_staleness"
    assert [value.config.name for value in found.values] == [f"nano-gp-l-ppo.max_staleness-{n}" for n in (0, 1, 4)]
    settings = [value.config.ppo for value in found.values]
    assert [(ppo.max_staleness, ppo.steps) for ppo in settings if ppo] == [(0, 10), (1, 10), (4, 10)]


def test_sft_is_trained_once_where_the_key_cannot_change_it():
    found = sweep("rollout.workers=1,2")
    assert found.init is not None
    assert (found.init.name, found.init.stages, found.init.evaluation) == ("nano-gp-l-init", ("sft",), None)
    for value in found.values:
        assert value.config.stages == ("ppo",)
        assert value.config.model.source == "nano-gp-l-init-sft@step-000004"
    assert found.runs == (found.init, *(value.config for value in found.values))


@pytest.mark.parametrize("over", ["sft.steps=2,4", "learner.max_grad_norm=0.5,1.0", "model.freeze=[],[language]"])
def test_sft_is_each_values_own_where_the_key_may_change_it(over: str):
    found = sweep(over)
    assert found.init is None
    assert {value.config.stages for value in found.values} == {("sft", "ppo")}
    assert {value.config.model.source for value in found.values} == {"deploy/models/nano-gp-base"}


def test_a_run_without_sft_starts_from_its_own_source():
    found = sweep("ppo.viter=1,3", "sft=null")
    assert found.init is None
    assert {value.config.model.source for value in found.values} == {"deploy/models/nano-gp-base"}


def test_values_are_yaml_so_commas_within_brackets_part_nothing():
    numbers, changing = sweep("ppo.viter=5,[[0, 1], [6, 3]]").values
    assert (numbers.told, numbers.config.name) == ("5", "nano-gp-l-ppo.viter-5")
    assert (changing.told, changing.config.name) == ("[[0, 1], [6, 3]]", "nano-gp-l-ppo.viter-0-1-6-3")
    assert changing.config.ppo is not None
    assert changing.config.ppo.viter == ((0, 1), (6, 3))


def test_a_name_that_would_be_too_long_ends_in_a_digest():
    pairs = [[step, 1 + step % 2] for step in range(15)]
    one, other = (sweep(f"ppo.viter={value}").values[0].config.name for value in (pairs, [*pairs, [15, 5]]))
    assert one != other
    assert max(len(one), len(other)) <= 63
    assert one.startswith("nano-gp-l-ppo.viter-0-1-1-2-")


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ("ppo.viter", "write it as section.key=VALUE,VALUE"),
        ("ppo=1,2", "write it as section.key=VALUE,VALUE"),
        ("ppo.viter=", "name at least one value"),
        ("ppo.viter=1]", "not valid YAML"),
        ("ppo.vitr=1,2", "ppo.vitr: unknown key; did you mean 'viter'?"),
        ("ppo.viter=1,0", "ppo.viter: 0: at least 1"),
        ("ppo.viter=1,many", "ppo.viter: 'many': allowed are"),
        ("ppo.max_staleness=0,-1", "ppo.max_staleness: -1"),
        ("ppo.viter=3,3", "3 and 3 would both be kept as nano-gp-l-ppo.viter-3"),
        ("store.uri=a,b", "sweep another key"),
        ("sft_branch.steps=1,2", "leaves out sft_branch"),
        ("store.uri.x=1", "sweep another key"),
        ("learner.row_tokens=512,64", "learner.row_tokens=64 is less than"),
    ],
)
def test_a_wrong_key_or_value_is_one_sentence(over: str, says: str):
    with pytest.raises(ConfigError) as refused:
        sweep(over)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_run_file_without_ppo_is_refused():
    with pytest.raises(ConfigError, match="a sweep compares runs of PPO"):
        planned(NANO.with_name("nano-base.yaml"), (), "sft.steps=1,2")


def test_other_settings_are_told_but_not_where_a_run_lies():
    was, now = (
        RunConfig.load(NANO, sets).model_dump(mode="json")
        for sets in (("ppo.steps=12", "store.uri=there", "placement.wait_s=5"), ("name=other",))
    )
    assert differences(was, now) == ["ppo.steps is 12 there and 16 here"]
    assert differences(now, now) == []
