import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles
from trainers import losses

logp = st.floats(-6, 0, width=32)
number = st.floats(-3, 3, width=32)
tokens = st.lists(st.tuples(logp, logp, number, st.booleans()), min_size=1, max_size=12)


def columns(rows):
    return [torch.tensor(column) for column in zip(*rows, strict=True)]


@given(tokens, st.floats(0.05, 0.5))
def test_the_policy_loss_is_the_definition(rows, clip):
    new, old, advantages, mask = columns(rows)
    got = losses.policy_loss(losses.log_ratio(new, old, mask), advantages, mask, clip=clip, count=mask.sum().item())
    expected = oracles.policy_loss(*(c.tolist() for c in (new, old, advantages, mask)), clip)
    assert got.item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@given(tokens, st.floats(1, 4))
def test_stale_tokens_weigh_by_their_capped_importance(rows, cap):
    new, old, engine, mask = columns(rows)
    engine = -engine.abs()
    weights = losses.importance_weights(old, engine, mask, cap=cap)
    expected = [
        min(math.exp(o - e), cap) if m else 1.0
        for o, e, m in zip(old.tolist(), engine.tolist(), mask.tolist(), strict=True)
    ]
    assert weights.tolist() == pytest.approx(expected, rel=1e-4)
    ones = torch.ones_like(new)
    got = losses.policy_loss(
        losses.log_ratio(new, old, mask), ones, mask, clip=0.2, count=mask.sum().item(), weights=weights
    )
    by_hand = oracles.policy_loss(new.tolist(), old.tolist(), ones.tolist(), mask.tolist(), 0.2, weights.tolist())
    assert got.item() == pytest.approx(by_hand, rel=1e-4, abs=1e-4)


@given(st.lists(st.tuples(logp, logp, st.integers(-1, 3)), min_size=1, max_size=16), st.floats(1.01, 8))
def test_a_response_is_masked_whole_by_its_mean_ratio(rows, bound):
    old, engine, turn_ids = columns(rows)
    mask = turn_ids >= 0
    weights = losses.response_weights(old, engine, mask, turn_ids, 4, bound=bound)
    for turn in range(4):
        gaps = [o - e for o, e, t in zip(old.tolist(), engine.tolist(), turn_ids.tolist(), strict=True) if t == turn]
        mean = sum(gaps) / len(gaps) if gaps else 0.0
        if abs(abs(mean) - math.log(bound)) > 1e-5:  # at the bound itself the rounding decides
            assert weights[turn_ids == turn].tolist() == [float(abs(mean) <= math.log(bound))] * len(gaps)
    assert (weights[~mask] == 1).all()


@given(
    st.lists(st.tuples(number, number, number, st.booleans()), min_size=1, max_size=12),
    st.sampled_from([None, 0.1, 0.5]),
)
def test_the_value_loss_is_the_definition(rows, clip):
    values, old, returns, mask = columns(rows)
    got = losses.value_loss(values, old, returns, mask, clip=clip, count=mask.sum().item())
    expected = oracles.value_loss(*(c.tolist() for c in (values, old, returns, mask)), clip)
    assert got.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@given(tokens)
def test_the_kl_penalty_is_the_definition_and_never_negative(rows):
    new, reference, _, mask = columns(rows)
    got = losses.kl_penalty(new, reference, mask, count=mask.sum().item())
    assert got.item() == pytest.approx(
        oracles.kl_k3(new.tolist(), reference.tolist(), mask.tolist()), rel=1e-3, abs=1e-4
    )
    assert got.item() >= -1e-6


@given(st.lists(st.tuples(st.lists(st.tuples(st.floats(0, 1, width=32), logp, logp), min_size=1, max_size=4), number),
                min_size=1, max_size=5))  # fmt: skip
def test_the_reference_loss_is_the_definition(responses):
    plain, ids, weights, ratios, advantages = [], [], [], [], []
    for turn, (response, advantage) in enumerate(responses):
        response_weights, new, old = zip(*response, strict=True)
        plain.append((response_weights, new, old, advantage))
        advantages.append(advantage)
        ids += [turn] * len(response) + [-1]  # a feedback token after each, which must not count
        weights += [*response_weights, 1.0]
        ratios += [n - o for n, o in zip(new, old, strict=True)] + [50.0]
    sums = losses.sum_by_turn(torch.tensor(weights) * torch.tensor(ratios), torch.tensor(ids), len(responses))
    mask = torch.ones(len(responses), dtype=torch.bool)
    got = losses.reference_policy_loss(sums, torch.tensor(advantages), mask, clip=0.1, count=len(responses))
    expected = oracles.reference_loss(plain, 0.1)
    assert got.item() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_at_unchanged_weights_the_loss_is_minus_the_mean_advantage():
    old, advantages = torch.tensor([-1.0, -2.0]), torch.tensor([3.0, -1.0])
    mask = torch.tensor([True, True])
    assert losses.policy_loss(losses.log_ratio(old, old, mask), advantages, mask, clip=0.2, count=2).item() == -1.0


def test_a_ratio_outside_the_region_stops_pushing_further_but_not_back():
    old, mask = torch.zeros(2), torch.ones(2, dtype=torch.bool)
    new = torch.tensor([0.5, 0.5], requires_grad=True)  # ratio 1.65, clip at 1.2
    loss = losses.policy_loss(losses.log_ratio(new, old, mask), torch.tensor([1.0, -1.0]), mask, clip=0.2, count=2)
    (gradient,) = torch.autograd.grad(loss, new)
    assert gradient.tolist() == pytest.approx([0.0, math.exp(0.5) / 2])


def test_above_a_ratio_of_ten_the_reference_keeps_the_clipped_term_alone():
    mask, bad = torch.tensor([True]), torch.tensor([-1.0])

    def loss(ratio):
        return losses.reference_policy_loss(torch.tensor([math.log(ratio)]), bad, mask, clip=0.1, count=1).item()

    assert loss(9.9) == pytest.approx(9.9, rel=1e-5)
    assert loss(10.1) == pytest.approx(1.1, rel=1e-5)


@pytest.mark.parametrize("poison", [float("inf"), float("-inf"), float("nan"), 1e30])
def test_what_stands_outside_the_mask_reaches_neither_loss_nor_gradient(poison):
    mask = torch.tensor([True, False])
    new = torch.tensor([-1.0, poison], requires_grad=True)
    old = torch.tensor([-1.5, 0.0])
    junk = torch.tensor([1.0, poison])
    ratios = losses.log_ratio(new, old, mask)
    weights = losses.importance_weights(old, junk, mask, cap=2.0)
    weights = weights * losses.response_weights(old, junk, mask, torch.tensor([0, -1]), 1, bound=20.0)
    assert weights[0] > 0
    total = (
        losses.policy_loss(ratios, junk, mask, clip=0.2, count=1, weights=weights)
        + losses.kl_penalty(new, old, mask, count=1)
        + losses.nll_loss(new, mask, count=1)
        + losses.value_loss(new, junk, junk, mask, clip=0.2, count=1)
        + losses.entropy_bonus(new, mask, count=1)
    )
    (gradient,) = torch.autograd.grad(total, new)
    assert total.isfinite()
    assert gradient.isfinite().all()
    assert gradient[1] == 0


@given(tokens, st.integers(1, 11))
def test_parts_of_a_minibatch_add_up_to_the_whole(rows, cut):
    new, old, advantages, mask = columns(rows)
    count = mask.sum().item()

    def loss(part):
        ratios = losses.log_ratio(new[part], old[part], mask[part])
        return losses.policy_loss(ratios, advantages[part], mask[part], clip=0.2, count=count).item()

    assert loss(slice(0, cut)) + loss(slice(cut, None)) == pytest.approx(loss(slice(None)), rel=1e-4, abs=1e-5)


def test_diagnostics_by_hand():
    old, mask = torch.zeros(3), torch.tensor([True, True, False])
    new = torch.tensor([math.log(1.5), 0.0, 9.0])
    watched = losses.policy_diagnostics(new, old, mask, clip=0.2, count=2)
    assert watched["clip_fraction"].item() == 0.5
    assert watched["kl"].item() == pytest.approx((0.5 - math.log(1.5)) / 2)


def test_explained_variance_of_a_perfect_a_constant_and_a_harmful_critic():
    assert losses.explained_variance(0.0, 2.0) == 1.0
    assert losses.explained_variance(2.0, 2.0) == 0.0
    assert losses.explained_variance(4.0, 2.0) == -3.0
    assert losses.explained_variance(1.0, 0.0) == 0.0
