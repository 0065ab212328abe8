"""What is minimised, and what is watched. Pure functions of tensors.   Shapes: B rows, L tokens, T turns.

Every loss is a sum over its own elements divided by a count that the caller gives: the count of the global minibatch.
So the sum over micro-batches and ranks is the mean over the minibatch, however it was cut. Masks come before `exp`,
products and squares: what stands in the padding is anything, and the gradient of a mask applied after is `0 * inf`.
"""

import math

import torch
from torch import Tensor

REFERENCE_RATIO_LIMIT = 10.0  # above it the original code keeps the clipped term alone


def masked_mean(values: Tensor, mask: Tensor, count: float) -> Tensor:
    """Σ values where mask, ÷ count."""
    return torch.where(mask, values, 0.0).sum() / max(count, 1.0)


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0)


def log_ratio(logp: Tensor, old_logp: Tensor, mask: Tensor) -> Tensor:
    """log π/π_old where sampled, 0 elsewhere."""
    return torch.where(mask, logp - old_logp, 0.0)


def policy_loss(
    log_ratios: Tensor, advantages: Tensor, mask: Tensor, *, clip: float, count: float, weights: Tensor | None = None
) -> Tensor:
    """PPO's clipped surrogate (arXiv 1707.06347, eq. 7), negated: −Σ w·min(ρA, clip(ρ, 1±ε)A) / count.

    Args:
        log_ratios: [B, L] log π/π_old, 0 outside `mask`.
        advantages: [B, L]; one value over all tokens of a turn when the turn is the time step.
        mask: [B, L] bool, sampled tokens.
        count: sampled tokens of the global minibatch.
        weights: [B, L] importance weights of stale samples, or None for 1.
    """
    ratios, advantages = log_ratios.exp(), _masked(advantages, mask)
    surrogate = torch.minimum(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages)
    return -masked_mean(surrogate if weights is None else surrogate * _masked(weights, mask), mask, count)


def reference_policy_loss(log_ratios: Tensor, advantages: Tensor, mask: Tensor, *, clip: float, count: float) -> Tensor:
    """The original code's surrogate: one ratio per response; above a ratio of 10 only the clipped term counts.

    Args:
        log_ratios, advantages: [T]. The log-ratio is the weighted sum over the response.
        mask: [T] bool, turns that are in this micro-batch.
        count: turns of the global minibatch.
    """
    ratios = log_ratios.exp()
    clipped = ratios.clamp(1 - clip, 1 + clip) * advantages
    surrogate = torch.where(ratios > REFERENCE_RATIO_LIMIT, clipped, torch.minimum(ratios * advantages, clipped))
    return -masked_mean(surrogate, mask, count)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float | None, count: float
) -> Tensor:
    """½·Σ max((v − R)², (v_clipped − R)²) / count, where v_clipped stays within `clip` of the old value.

    Args:
        values, old_values, returns: [B, L], at the last token read before a turn (or token) was sampled.
        mask: [B, L] bool, those positions.
        clip: half-width in value units; None does not clip.
        count: such positions in the global minibatch.
    """
    errors = _masked(values - returns, mask).square()
    if clip is not None:
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        errors = torch.maximum(errors, _masked(clipped - returns, mask).square())
    return 0.5 * masked_mean(errors, mask, count)


def entropy_bonus(entropy: Tensor, mask: Tensor, *, count: float) -> Tensor:
    """Mean entropy of the sampled positions, in nats: subtract it from the loss."""
    return masked_mean(entropy, mask, count)


def kl_penalty(logp: Tensor, reference_logp: Tensor, mask: Tensor, *, count: float) -> Tensor:
    """Mean KL(π ‖ reference) by Schulman's k3 estimator: e^d − d − 1 with d = log reference − log π. Never negative."""
    difference = torch.where(mask, reference_logp - logp, 0.0)
    return masked_mean(difference.exp() - difference - 1.0, mask, count)


def importance_weights(old_logp: Tensor, engine_logp: Tensor, mask: Tensor, *, cap: float) -> Tensor:
    """Truncated importance weights min(π_old/π_engine, cap) of tokens that older weights sampled; 1 outside `mask`.

    No gradient flows through them: both sides are constants.
    """
    return torch.where(mask, old_logp - engine_logp, 0.0).clamp(max=20.0).exp().clamp(max=cap)


def response_weights(
    old_logp: Tensor, engine_logp: Tensor, mask: Tensor, turn_ids: Tensor, turns: int, *, bound: float
) -> Tensor:
    """1 for the tokens of a response that the training policy could have drawn, 0 for those of one it would not: [B, L].

    A response stands if the geometric mean over its tokens of π_old/π_engine lies within [1/bound, bound]: sequence
    masking, by the mean so that long answers are not masked for their length. 1 outside `mask`.
    """
    gaps = sum_by_turn(torch.where(mask, old_logp - engine_logp, 0.0), turn_ids, turns)
    sizes = sum_by_turn(mask.float(), turn_ids, turns)
    stands = (gaps / sizes.clamp(min=1.0)).abs() <= math.log(bound)
    spread = torch.cat([stands.float(), gaps.new_ones(1)])  # turn −1, outside all turns, reads the 1 at the end
    return spread[turn_ids]


def nll_loss(logp: Tensor, mask: Tensor, *, count: float) -> Tensor:
    """Mean negative log-likelihood of the trained tokens."""
    return -masked_mean(logp, mask, count)


def sum_by_turn(per_token: Tensor, turn_ids: Tensor, turns: int) -> Tensor:
    """[T] sums of [B, L] values over the tokens of each turn. `turn_ids` is −1 outside turns."""
    sums = per_token.new_zeros(turns + 1)  # the last element collects what belongs to no turn
    index = torch.where(turn_ids < 0, turns, turn_ids).flatten()
    return sums.index_add(0, index, per_token.flatten())[:turns]


def policy_diagnostics(logp: Tensor, old_logp: Tensor, mask: Tensor, *, clip: float, count: float) -> dict[str, Tensor]:
    """`kl`: k3 estimate of KL(π_old ‖ π); `clip_fraction`: share of tokens outside the trust region.

    Additive like the losses: sum over micro-batches and ranks for the mean over the minibatch.
    """
    log_ratios = log_ratio(logp, old_logp, mask)
    ratios = log_ratios.exp()
    return {
        "kl": masked_mean(ratios - 1.0 - log_ratios, mask, count),
        "clip_fraction": masked_mean(((ratios - 1.0).abs() > clip).float(), mask, count),
    }


def explained_variance(residual_std: float, returns_std: float) -> float:
    """1 − Var(R − v) / Var(R): 1 for a perfect critic, 0 for a constant one, negative for a harmful one."""
    return 0.0 if returns_std == 0 else 1.0 - (residual_std / returns_std) ** 2
