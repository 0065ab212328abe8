from dataclasses import replace

import pytest

from cluster.bubble import EngineSpeed, Load, play_step

LOAD = Load(prompt=100, answer=50, feedback=20, hazards=(0.15,))
THROUGHPUT = EngineSpeed(fixed_s=0.0, sequence_s=0.001, prefill_s=0.0)
BANDWIDTH = EngineSpeed(fixed_s=0.01, sequence_s=0.0, prefill_s=0.0)


def test_mean_attempts_and_success_are_those_of_the_geometric_distribution():
    p, n = 0.15, 10
    assert LOAD.attempts(n) == pytest.approx((1 - (1 - p) ** n) / p)
    assert LOAD.success(n) == pytest.approx(1 - (1 - p) ** n)
    falling = replace(LOAD, hazards=(0.5, 0.1))
    assert falling.attempts(3) == pytest.approx(1 + 0.5 + 0.45)
    assert falling.success(3) == pytest.approx(1 - 0.5 * 0.9 * 0.9)


def test_an_engine_bound_by_bandwidth_waits_for_its_longest_episode():
    """Every attempt takes 50 steps of 10 ms whatever the company, so the time is that of ten attempts."""
    played = play_step(workers=1, slots=64, episodes=64, viter=10, load=LOAD, engine=BANDWIDTH)
    assert played.seconds == pytest.approx(10 * 50 * 0.01)
    assert played.slots_idle == pytest.approx(1 - played.turns / (64 * 10))


def test_an_engine_bound_by_throughput_takes_as_long_as_its_tokens():
    played = play_step(workers=1, slots=64, episodes=64, viter=10, load=LOAD, engine=THROUGHPUT)
    assert played.tokens == 50 * played.turns
    assert played.seconds == pytest.approx(played.tokens * 0.001)


def test_refilling_slots_shrinks_the_bubble():
    few = play_step(workers=1, slots=64, episodes=64, viter=10, load=LOAD, engine=BANDWIDTH)
    many = play_step(workers=1, slots=64, episodes=64 * 20, viter=10, load=LOAD, engine=BANDWIDTH)
    assert many.slots_idle < few.slots_idle / 3
    assert many.seconds < 20 * few.seconds * 0.7


def test_more_workers_share_the_episodes():
    one = play_step(workers=1, slots=16, episodes=256, viter=5, load=LOAD, engine=THROUGHPUT)
    four = play_step(workers=4, slots=16, episodes=256, viter=5, load=LOAD, engine=THROUGHPUT)
    assert four.seconds == pytest.approx(one.seconds / 4, rel=0.15)


def test_the_same_seed_gives_the_same_step_and_the_lot_of_each_slot_is_drawn():
    def seconds(seed):
        return play_step(workers=2, slots=8, episodes=40, viter=5, load=LOAD, engine=THROUGHPUT, seed=seed).seconds

    assert seconds(1) == seconds(1)
    assert len({seconds(seed) for seed in range(5)}) > 1


def test_company_slows_tokens_down_only_where_sequences_cost_something():
    first, last = play_step(workers=1, slots=64, episodes=64, viter=5, load=LOAD, engine=BANDWIDTH).token_s
    assert first == pytest.approx(last)
    first, last = play_step(workers=1, slots=64, episodes=64, viter=5, load=LOAD, engine=THROUGHPUT).token_s
    assert last < first * 0.9
