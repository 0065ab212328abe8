"""The gap between learner and engines, by hand."""

import math

import pytest

from cluster.probe import mean_gap


def test_the_gap_is_the_mean_over_all_tokens():
    assert mean_gap([[-1.0, -2.0], [-3.0]], [[-1.0, -2.5], [-3.25]]) == pytest.approx(0.25)


def test_a_missing_number_is_no_small_gap():
    assert math.isnan(mean_gap([[-1.0, math.nan]], [[-1.0, -2.0]]))
