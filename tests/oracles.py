"""Slow, obvious versions of what the trainers compute quickly: plain Python, straight from the definition."""

import math


def gae(rewards, values, bootstrap, gamma, lam):
    """The definition, as slowly as it reads: A_t = Σ_k (γλ)^k δ_{t+k}. One episode."""
    deltas = [r + gamma * n - v for r, v, n in zip(rewards, values, [*values[1:], bootstrap], strict=True)]
    return [sum((gamma * lam) ** k * d for k, d in enumerate(deltas[t:])) for t in range(len(deltas))]


def token_gae(turn_lengths, turn_rewards, values, bootstrap, gamma, lam):
    """A_t = Σ_k (Π discounts before t+k) λ^k δ_{t+k}, with a discount of γ at a turn's last token and 1 elsewhere."""
    rewards, discounts = [], []
    for length, reward in zip(turn_lengths, turn_rewards, strict=True):
        rewards += [0.0] * (length - 1) + [reward]
        discounts += [1.0] * (length - 1) + [gamma]
    following = [*values[1:], bootstrap]
    deltas = [r + d * n - v for r, d, n, v in zip(rewards, discounts, following, values, strict=True)]
    return [
        sum(math.prod(discounts[t : t + k]) * lam**k * d for k, d in enumerate(deltas[t:])) for t in range(len(deltas))
    ]


def policy_loss(logp, old_logp, advantages, mask, clip, weights=None):
    """−mean over masked tokens of w · min(ρA, clip(ρ)A)."""
    terms = []
    for i, is_sampled in enumerate(mask):
        if is_sampled:
            ratio = math.exp(logp[i] - old_logp[i])
            clipped = min(max(ratio, 1 - clip), 1 + clip)
            weight = 1.0 if weights is None else weights[i]
            terms.append(weight * min(ratio * advantages[i], clipped * advantages[i]))
    return -sum(terms) / max(1, len(terms))


def value_loss(values, old_values, returns, mask, clip):
    """Half the mean over masked states of the larger of the two squared errors."""
    terms = []
    for value, old, target, is_read in zip(values, old_values, returns, mask, strict=True):
        if is_read:
            errors = [(value - target) ** 2]
            if clip is not None:
                errors.append((old + min(max(value - old, -clip), clip) - target) ** 2)
            terms.append(max(errors))
    return 0.5 * sum(terms) / max(1, len(terms))


def kl_k3(logp, reference_logp, mask):
    """Mean over masked tokens of e^d − d − 1."""
    terms = [math.exp(r - p) - (r - p) - 1 for p, r, m in zip(logp, reference_logp, mask, strict=True) if m]
    return sum(terms) / max(1, len(terms))


def reference_loss(responses, clip):
    """The original's loss over responses of (weights, logp, old_logp, advantage): one ratio each, each counts once."""
    terms = []
    for weights, logp, old_logp, advantage in responses:
        ratio = math.exp(sum(w * (p - o) for w, p, o in zip(weights, logp, old_logp, strict=True)))
        clipped = min(max(ratio, 1 - clip), 1 + clip) * advantage
        terms.append(clipped if ratio > 10 else min(ratio * advantage, clipped))
    return -sum(terms) / len(terms)
