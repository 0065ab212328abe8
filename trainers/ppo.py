"""PPO on one screen. What it needs from the cluster it names here, as two protocols."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from envs.task import Status
from trainers import curriculum
from trainers.config import PpoConfig
from trainers.episode import Episode
from trainers.journal import Journal
from trainers.learner import Learner
from trainers.losses import explained_variance
from trainers.objectives import ppo_objective, with_advantages
from trainers.packing import Batch, known, pack


class EpisodeSource(Protocol):
    def take(self, count: int, *, step: int) -> Sequence[Episode]:
        """This rank's share of `count` fresh episodes. Blocks; each episode is handed out exactly once."""


class WeightSink(Protocol):
    def publish(self, weights: Iterable[tuple[str, Tensor]], *, version: int) -> None:
        """Returns when every engine has confirmed `version`. Collective: all ranks call it and exhaust `weights`."""


def train(
    config: PpoConfig, learner: Learner, episodes: EpisodeSource, weights: WeightSink, journal: Journal, *,
    row_tokens: int, weigh: Callable[[Batch], Batch] = lambda batch: batch,
) -> None:  # fmt: skip
    """Improve the policy for `config.steps`. A restored learner goes on where it stopped.

    Args:
        row_tokens: tokens of a packed row.
        weigh: sets `logp_weights`; the `reference` profile's `thought_weighted` goes here.
    """
    weights.publish(learner.weights(), version=learner.steps_done)
    for step in range(learner.steps_done, config.steps):
        played = episodes.take(config.episodes, step=step)
        batch = weigh(pack(played, row_tokens=row_tokens, unit=config.unit, rows_multiple=config.minibatches))
        batch = learner.score(batch, temperature=config.temperature)  # old log-probs and values, no gradient
        batch = with_advantages(batch, config, learner.mean_std)
        objective = ppo_objective(config, critic_alone=step < config.critic_warmup_steps)
        minibatches = batch.shuffled(config.epochs, config.minibatches, seed=(config.seed, step))
        updates = [learner.update(minibatch, objective) for minibatch in minibatches]
        weights.publish(learner.weights(), version=step + 1)
        learner.steps_done = step + 1
        if not journal.end_of_step(step + 1, _metrics(learner, played, batch, updates, step, config)):
            return


def critic_warmup_updates(config: PpoConfig) -> int:
    """Optimizer updates of the critic's warm-up steps, for `CriticSettings`."""
    return config.critic_warmup_steps * config.epochs * config.minibatches


def total_updates(config: PpoConfig) -> int:
    """Optimizer updates of the whole run, for the learning rate's schedule."""
    return config.steps * config.epochs * config.minibatches


def _metrics(
    learner: Learner,
    played: Sequence[Episode],
    batch: Batch,
    updates: list[dict[str, float]],
    step: int,
    config: PpoConfig,
) -> dict[str, float]:
    """What happened in a step, over all ranks."""
    sums = learner.sums(_sums(played, step, config.max_staleness))
    learner.spend(prefill_tokens=sums["prefill_tokens"], decoded_tokens=sums["sampled_tokens"])
    episodes, turns, tokens = (max(1.0, sums[name]) for name in ("episodes", "turns", "sampled_tokens"))
    metrics = {
        "episodes": sums["episodes"],
        "viter": curriculum.at(config.viter, step),
        "reward_mean": sums["reward"] / episodes,
        "success_rate": sums["successes"] / episodes,
        "first_attempt_success": sums["first_successes"] / episodes,
        "per_step_accuracy": sums["correct_turns"] / turns,
        "turns_mean": sums["turns"] / episodes,
        "answer_tokens_mean": tokens / turns,
        "truncated_answers": sums["cut_answers"] / turns,
        "tokens_sampled": sums["sampled_tokens"],
        "tokens_prefilled": sums["prefill_tokens"],
        "staleness_mean": sums["staleness"] / tokens,
        **{
            f"staleness_{lag}": sums[f"lag_{lag}"] / tokens for lag in range(config.max_staleness + 1)
        },  # shares of tokens
    }
    old_logp, values, returns = known(batch.old_logp), known(batch.values), known(batch.returns)
    metrics["logp_gap"], _ = learner.mean_std((old_logp - batch.engine_logp).abs(), batch.sampled)
    _, residual_std = learner.mean_std(returns - values, batch.critic_learns)
    metrics["return_mean"], returns_std = learner.mean_std(returns, batch.critic_learns)
    metrics["explained_variance"] = explained_variance(residual_std, returns_std)
    for name in updates[0]:
        metrics[name] = sum(update[name] for update in updates) / len(updates)
    return metrics


def _sums(played: Sequence[Episode], step: int, max_staleness: int) -> dict[str, float]:
    """Sums over this rank's episodes: they add up over ranks."""
    versions = [s.weight_versions[s.sampled] for episode in played for s in episode.segments]
    return {
        "episodes": len(played),
        "reward": sum(episode.reward for episode in played),
        "successes": sum(episode.is_success for episode in played),
        "first_successes": sum(episode.is_success and len(episode.turns) == 1 for episode in played),
        "turns": sum(len(episode.turns) for episode in played),
        "correct_turns": sum(turn.status is Status.CORRECT for episode in played for turn in episode.turns),
        "cut_answers": sum(turn.finish_reason == "length" for episode in played for turn in episode.turns),
        "sampled_tokens": sum(len(v) for v in versions),
        "prefill_tokens": sum(episode.usage.prefill_tokens for episode in played),
        "staleness": float(sum(np.sum(step - v) for v in versions)),
        **{f"lag_{lag}": float(sum(np.sum(step - v == lag) for v in versions)) for lag in range(max_staleness + 1)},
    }
