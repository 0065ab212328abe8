from hypothesis import given
from hypothesis import strategies as st

from trainers.compute import Compute

counts = st.integers(0, 10**12)
computes = st.builds(
    Compute,
    parameters=st.integers(1, 10**11),
    trained_tokens=counts,
    scored_tokens=counts,
    prefill_tokens=counts,
    decoded_tokens=counts,
)


def test_training_costs_three_times_a_forward_pass():
    assert Compute(parameters=1000, trained_tokens=7).flops == 6 * 1000 * 7
    for kind in ("scored_tokens", "prefill_tokens", "decoded_tokens"):
        assert Compute(parameters=1000, **{kind: 7}).flops == 2 * 1000 * 7


@given(computes, computes, computes)
def test_flops_and_tokens_add_up_exactly_over_models_of_any_size(a: Compute, b: Compute, c: Compute):
    total = (a + b) + c
    assert total.flops == a.flops + b.flops + c.flops
    assert total.trained_tokens == a.trained_tokens + b.trained_tokens + c.trained_tokens
    assert total == a + (b + c)
    assert total.parameters == c.parameters


@given(computes, computes)
def test_compute_survives_its_dict(a: Compute, b: Compute):
    assert Compute.from_dict((a + b).to_dict()) == a + b


def test_a_run_without_ancestors_starts_at_nothing():
    mine = Compute(parameters=5, trained_tokens=3)
    assert Compute.from_dict({}) + mine == mine
