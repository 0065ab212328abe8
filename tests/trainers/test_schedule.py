import math

import pytest

from trainers.config import ScheduleConfig
from trainers.schedule import learning_rate


def rates(total, **settings):
    schedule = ScheduleConfig(learning_rate=1.0, **settings)
    return [learning_rate(schedule, update, total) for update in range(total + 1)]


def test_warm_up_plateau_and_linear_decay_to_the_floor():
    got = rates(10, warmup_updates=2, plateau=0.4, decay="linear", floor=0.1)
    assert got[:4] == [0.5, 1.0, 1.0, 1.0]
    assert got[4:] == pytest.approx([1 - 0.9 * k / 6 for k in range(7)])


def test_cosine_decay():
    assert rates(4, decay="cosine") == pytest.approx([(1 + math.cos(math.pi * k / 4)) / 2 for k in range(5)])


def test_a_constant_rate_stays_whatever_the_floor():
    assert rates(5, floor=0.0) == [1.0] * 6


def test_past_the_end_the_rate_stays_at_the_floor():
    schedule = ScheduleConfig(learning_rate=1.0, decay="linear", floor=0.25)
    assert learning_rate(schedule, 1000, 10) == 0.25
