"""Returns and advantages. Pure functions: no model, no device, no logging.   Shapes: T turns, N sampled tokens.

Arrays are flat, in order of episode and of time within it; `is_last` marks where an episode ends. Ends are exact: after
a terminated episode there is nothing (bootstrap 0); after a truncated one the critic's estimate of the state it was cut
in stands for the rest. Nothing of one episode reaches another, except where a caller asks for it with
`reference_ends`, which repeats the original code.
"""

import torch
from torch import Tensor


def turn_advantages(
    rewards: Tensor, values: Tensor, bootstraps: Tensor, is_last: Tensor, *, gamma: float, lam: float
) -> Tensor:
    """Generalised advantage estimate of every turn.

        δ_t = r_t + γ·v' − v_t       v' = v_{t+1} within an episode, its bootstrap at the last turn
        A_t = δ_t + γλ·A_{t+1}       A restarts after the last turn of each episode

    Schulman et al. 2017, arXiv 1707.06347, eq. 11-12, with the turn as the time step.

    Args:
        rewards, values: [T] float32. One verdict's reward, and the critic before that turn.
        bootstraps: [T] float32. Value of the state after the turn; read only where `is_last`:
            0 when the episode terminated, the critic's estimate when it was truncated.
        is_last: [T] bool. True at the last turn of each episode.
    Returns:
        [T] float32.
    """
    return _estimate(rewards, values, bootstraps, is_last, torch.full_like(rewards, gamma), lam)


def token_advantages(
    rewards: Tensor,
    values: Tensor,
    bootstraps: Tensor,
    is_last: Tensor,
    ends_turn: Tensor,
    *,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalised advantage estimate of every sampled token.

    The token is the time step, yet γ stays a discount per turn: it is applied where one turn hands over to the next,
    and is 1 within a turn. λ is applied per token. Feedback tokens are no time steps and decay nothing.

    Args:
        rewards: [N] float32. A verdict's reward at the last token of its turn, 0 elsewhere.
        values: [N] float32. The critic before the token.
        bootstraps, is_last: [N]. As in `turn_advantages`, at the last sampled token of each episode.
        ends_turn: [N] bool. True at the last token of each turn.
    Returns:
        [N] float32.
    """
    discounts = torch.where(ends_turn, gamma, 1.0).to(rewards.dtype)
    return _estimate(rewards, values, bootstraps, is_last, discounts, lam)


def _estimate(
    rewards: Tensor, values: Tensor, bootstraps: Tensor, is_last: Tensor, discounts: Tensor, lam: float
) -> Tensor:
    """The recursion with a discount per step. Summed in float64 on the host: T is thousands, and a tensor op per step
    would cost more than the model."""
    following = torch.where(is_last, bootstraps, torch.cat([values[1:], values.new_zeros(1)]))
    deltas = (rewards + discounts * following - values).tolist()
    decays = torch.where(is_last, 0.0, discounts * lam).tolist()
    advantages, following_advantage = [0.0] * len(deltas), 0.0
    for t in reversed(range(len(deltas))):
        advantages[t] = following_advantage = deltas[t] + decays[t] * following_advantage
    return torch.tensor(advantages, dtype=rewards.dtype, device=rewards.device)


def reference_ends(is_last: Tensor, terminated: Tensor) -> Tensor:
    """Episode ends as the original code sees them: a truncated episode does not end, and its returns run on into the
    next, unrelated one (it ignores its own `bad_masks`). The end of the collected batch is always an end.

    Args:
        is_last: [T] bool, the true ends.
        terminated: [T] bool, true where the turn's episode terminated.
    """
    ends = is_last & terminated
    ends[-1:] = True
    return ends


def whiten(advantages: Tensor, mean: float, std: float) -> Tensor:
    """Advantages of mean 0 and deviation 1. The two moments are those of the global batch, so they are arguments."""
    return (advantages - mean) / (std + 1e-5)
