from itertools import pairwise
from pathlib import Path

import pytest

from cluster.bubble import EngineSpeed, Load
from cluster.config import RunConfig
from cluster.forecast import CARDS, Rates, card_named, card_rates, forecast, parameters_in, table
from envs.base import ConfigError

LLAMA = RunConfig.load(Path(__file__).parents[2] / "deploy" / "runs" / "llama-3.1-8b-gp-l.yaml")
LOAD = Load(prompt=400, answer=200, feedback=60, hazards=(0.15,))
RATES = Rates(
    engine=EngineSpeed(fixed_s=0.01, sequence_s=1e-5, prefill_s=1e-6), learner_token_s=1e-4, sync_s=0.5, fixed_s=2.0
)


def test_rates_of_a_card_are_the_formulas_by_hand():
    rates = card_rates(LLAMA, 8_000_000_000, CARDS["h100"], LOAD)
    assert rates.engine.fixed_s == pytest.approx(16e9 / (3.35e12 * 0.7))  # bf16 weights over the bandwidth
    assert rates.engine.prefill_s == pytest.approx(16e9 / (989e12 * 0.5))
    flops = 8e9 * ((6 + 2) * 4 + 2)  # four epochs with checkpointing, one scoring
    assert rates.learner_token_s == pytest.approx(flops / (8 * 989e12 * 0.4))
    assert rates.sync_s == pytest.approx(0.1 + 16e9 / 50e9)


def test_a_synchronous_step_is_the_sum_of_its_parts_and_an_overlapped_one_the_slower():
    found = forecast(LLAMA, LOAD, RATES, viter=5)
    assert found.synchronous_s == pytest.approx(found.rollout_s + found.learn_s + 0.5 + 2.0)
    assert found.overlapped_s == pytest.approx(found.learn_s + 2.0 + 0.5)  # this learner is slower than its rollouts
    assert 0 < found.slots_idle < 1


def test_more_verification_iterations_cost_more_and_solve_more():
    rows = [forecast(LLAMA, LOAD, RATES, viter=viter) for viter in (1, 3, 5, 10)]
    for few, many in pairwise(rows):
        assert few.success < many.success
        assert few.rollout_s < many.rollout_s
        assert few.learn_s < many.learn_s
    assert len(table(rows).splitlines()) == 5


def test_scale_multiplies_the_work_and_who_does_it():
    one, many = (forecast(LLAMA, LOAD, RATES, viter=5, scale=scale) for scale in (1, 16))
    assert many.workers == 16 * one.workers
    assert many.tokens == pytest.approx(16 * one.tokens, rel=0.05)
    assert many.learn_s == pytest.approx(one.learn_s, rel=0.05)
    assert many.sync_s == 5 * one.sync_s  # 16 nodes: five rounds of handing on


@pytest.mark.parametrize(
    ("name", "count"),
    [("meta-llama/Llama-3.1-8B-Instruct", 8e9), ("Qwen/Qwen2.5-VL-7B-Instruct", 7e9), ("x-0.5b", 5e8), ("nano", None)],
)
def test_a_name_may_tell_the_size(name, count):
    assert parameters_in(name) == count


def test_an_unknown_card_is_one_sentence():
    with pytest.raises(ConfigError, match=r"--card tpu: known are a100, h100, h200"):
        card_named("tpu")
