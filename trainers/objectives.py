"""Losses put together: what a learner minimises for SFT, for PPO as written, and for PPO as the original code has it.

An objective is chosen once, where the parts are assembled. It knows the settings; `losses` and `advantages` do not.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from trainers import advantages, losses
from trainers.config import PpoConfig
from trainers.packing import Batch, known
from trainers.policy import Outputs

MeanStd = Callable[[Tensor, Tensor], tuple[float, float]]  # moments of the masked values over all ranks


class Counts(NamedTuple):
    """Sizes of the global minibatch, over all rows and ranks: the denominators of the losses."""

    sampled: float  # sampled tokens
    critic: float  # positions where the critic has a target: turns, or sampled tokens
    turns: float


class Objective(Protocol):
    """What `Learner.update` minimises. Both methods return sums over their part ÷ global counts, so parts add up."""

    @property
    def temperature(self) -> float: ...

    @property
    def entropy_gradient(self) -> bool: ...

    @property
    def critic_alone(self) -> bool: ...

    def loss(self, batch: Batch, out: Outputs, counts: Counts) -> Tensor: ...

    def diagnostics(self, batch: Batch, out: Outputs, counts: Counts) -> dict[str, Tensor]: ...


@dataclass(frozen=True, slots=True)
class SftObjective:
    """Negative log-likelihood of the trained tokens."""

    temperature: float = 1.0
    entropy_gradient: bool = False
    critic_alone: bool = False

    def loss(self, batch: Batch, out: Outputs, counts: Counts) -> Tensor:
        return losses.nll_loss(out.logp, batch.sampled, count=counts.sampled)

    def diagnostics(self, batch: Batch, out: Outputs, counts: Counts) -> dict[str, Tensor]:
        return {"entropy": losses.entropy_bonus(out.entropy, batch.sampled, count=counts.sampled)}


@dataclass(frozen=True, slots=True)
class PpoObjective:
    """Clipped surrogate per token + value loss − entropy bonus + KL to the starting policy."""

    config: PpoConfig
    critic_alone: bool = False  # critic warm-up: the policy's terms weigh nothing

    @property
    def temperature(self) -> float:
        return self.config.temperature

    @property
    def entropy_gradient(self) -> bool:
        return self.config.entropy_coef > 0

    def loss(self, batch: Batch, out: Outputs, counts: Counts) -> Tensor:
        config = self.config
        value = losses.value_loss(
            out.values, known(batch.values), known(batch.returns), batch.critic_learns,
            clip=config.value_clip, count=counts.critic,
        )  # fmt: skip
        # the policy's terms stay in the graph at weight 0: every parameter then has a gradient on every rank
        return (0.0 if self.critic_alone else 1.0) * self._policy_terms(batch, out, counts) + config.value_coef * value

    def _policy_terms(self, batch: Batch, out: Outputs, counts: Counts) -> Tensor:
        config = self.config
        total = self._surrogate(batch, out, counts)
        if config.entropy_coef:
            bonus = losses.entropy_bonus(out.entropy, batch.sampled, count=counts.sampled)
            total = total - config.entropy_coef * bonus
        if config.kl_coef:
            reference_logp = known(batch.reference_logp)
            penalty = losses.kl_penalty(out.logp, reference_logp, batch.sampled, count=counts.sampled)
            total = total + config.kl_coef * penalty
        return total

    def _surrogate(self, batch: Batch, out: Outputs, counts: Counts) -> Tensor:
        config, old_logp = self.config, known(batch.old_logp)
        weights = self._staleness_weights(batch, old_logp) if config.max_staleness else None
        return losses.policy_loss(
            losses.log_ratio(out.logp, old_logp, batch.sampled), known(batch.advantages), batch.sampled,
            clip=config.clip, count=counts.sampled, weights=weights,
        )  # fmt: skip

    def _staleness_weights(self, batch: Batch, old_logp: Tensor) -> Tensor:
        """What makes samples of older weights count as if the training policy had drawn them: truncated, and masked."""
        config, pair = self.config, (old_logp, batch.engine_logp, batch.sampled)
        weights = losses.importance_weights(*pair, cap=config.importance_cap)
        if config.response_bound is None:
            return weights
        turns = len(batch.turns)
        return weights * losses.response_weights(*pair, batch.turn_ids, turns, bound=config.response_bound)

    def diagnostics(self, batch: Batch, out: Outputs, counts: Counts) -> dict[str, Tensor]:
        watched = losses.policy_diagnostics(
            out.logp, known(batch.old_logp), batch.sampled, clip=self.config.clip, count=counts.sampled
        )
        watched["entropy"] = losses.entropy_bonus(out.entropy, batch.sampled, count=counts.sampled)
        if self.config.max_staleness:
            weights = self._staleness_weights(batch, known(batch.old_logp))
            capped, masked = weights >= self.config.importance_cap, weights == 0
            watched["importance_weight"] = losses.masked_mean(weights, batch.sampled, counts.sampled)
            watched["importance_capped"] = losses.masked_mean(capped.float(), batch.sampled, counts.sampled)
            watched["responses_masked"] = losses.masked_mean(masked.float(), batch.sampled, counts.sampled)
        if batch.reference_logp is not None:
            watched["reference_kl"] = losses.kl_penalty(
                out.logp, batch.reference_logp, batch.sampled, count=counts.sampled
            )
        return watched


class ReferenceObjective(PpoObjective):
    """As the original code has it: one ratio per response, of its weighted log-prob; each turn counts once."""

    def _surrogate(self, batch: Batch, out: Outputs, counts: Counts) -> Tensor:
        turns = len(batch.turns)
        per_token = batch.logp_weights * losses.log_ratio(out.logp, known(batch.old_logp), batch.sampled)
        log_ratios = losses.sum_by_turn(per_token, batch.turn_ids, turns)
        sizes = losses.sum_by_turn(batch.sampled.float(), batch.turn_ids, turns)
        sums = losses.sum_by_turn(known(batch.advantages) * batch.sampled, batch.turn_ids, turns)
        return losses.reference_policy_loss(
            log_ratios, sums / sizes.clamp(min=1.0), sizes > 0, clip=self.config.clip, count=counts.turns
        )


def ppo_objective(config: PpoConfig, *, critic_alone: bool = False) -> PpoObjective:
    """The objective of the settings' profile."""
    return (ReferenceObjective if config.profile == "reference" else PpoObjective)(config, critic_alone)


def with_advantages(batch: Batch, config: PpoConfig, mean_std: MeanStd) -> Batch:
    """The batch with whitened advantages and with returns, from the scored values and the verdicts' rewards."""
    values, turns = known(batch.values), batch.turns
    bootstraps = torch.where(turns.terminated, 0.0, values[turns.row, turns.end])
    rewards = turns.reward * config.reward_scale
    ends = turns.is_last
    if config.profile == "reference":
        ends = advantages.reference_ends(ends, turns.terminated)
    if config.unit == "turn":
        before = values[turns.row, turns.start - 1]
        estimates = advantages.turn_advantages(rewards, before, bootstraps, ends, gamma=config.gamma, lam=config.lam)
        rows, columns = turns.row, turns.start
    else:
        turn, rows, columns = _sampled_in_order(batch)
        before = values[rows, columns - 1]
        closes = columns == turns.stop[turn] - 1
        estimates = advantages.token_advantages(
            torch.where(closes, rewards[turn], 0.0), before, bootstraps[turn], closes & ends[turn], closes,
            gamma=config.gamma, lam=config.lam,
        )  # fmt: skip
    mean, std = mean_std(estimates, torch.ones_like(estimates, dtype=torch.bool))
    returns = torch.zeros_like(values).index_put((rows, columns - 1), estimates + before)
    white = advantages.whiten(estimates, mean, std)
    if config.unit == "turn":
        spread = torch.cat([white, white.new_zeros(1)])[batch.turn_ids]  # −1 reads the 0 at the end
    else:
        spread = torch.zeros_like(values).index_put((rows, columns), white)
    return replace(batch, returns=returns, advantages=torch.where(batch.sampled, spread, 0.0))


def _sampled_in_order(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """(turn, row, column) of every sampled token, by turn and by place within it."""
    rows, columns = batch.sampled.nonzero(as_tuple=True)
    turn = batch.turn_ids[rows, columns]
    order = torch.argsort(turn, stable=True)
    return turn[order], rows[order], columns[order]
