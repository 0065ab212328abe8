"""The learner: scores and updates a policy with DeepSpeed, on one rank or many, under any ZeRO stage.

Every public method is collective: all ranks call it, in the same order, or none does. Losses are normalised by counts
of the *global* minibatch, so the update does not depend on how rows were dealt to ranks and passes. DeepSpeed is
imported by `deepspeed_engine` alone, and only when a learner starts.
"""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from envs.base import ViterError, seed_of
from trainers.compute import Compute
from trainers.config import LearnerConfig, ModelConfig, ScheduleConfig
from trainers.deepspeed_engine import gathered, join, make_engine
from trainers.eyes import Eyes
from trainers.learner_state import Counters, load_state, save_model, save_state
from trainers.objectives import Counts, Objective
from trainers.packing import Batch
from trainers.policy import CriticSettings, Outputs, Policy
from trainers.pretrained import load_model, saved
from trainers.schedule import learning_rate

BLANK = np.zeros((64, 64, 3), np.uint8)
MAX_SKIPS = 10  # updates in a row without a finite gradient: the run is lost, not unlucky


class DivergedError(ViterError):
    """Training cannot go on: gradients stay non-finite, or learner and engine disagree."""


class Learner:
    """A policy that learns. `start` makes one; `score` and `update` are all a training loop needs."""

    def __init__(
        self, engine: Any, model_dir: Path, critic: CriticSettings | None, learner: LearnerConfig,
        schedule: ScheduleConfig, total_updates: int, reference: Any, seed: int, eyes: Eyes | None,
    ) -> None:  # fmt: skip
        self._engine, self._model_dir, self._reference = engine, model_dir, reference
        self._critic, self._config, self._schedule = critic, learner, schedule
        self._total_updates, self._seed, self._eyes = total_updates, seed, eyes
        self._skips_in_a_row = 0
        self._is_language_frozen = not self._policy.model.get_output_embeddings().weight.requires_grad
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.parameters = sum(getattr(p, "ds_numel", p.numel()) for p in self._policy.model.parameters())
        self.steps_done = 0  # loop steps; the loop writes it, a restore brings it back
        self.updates_done = 0  # optimizer updates that were applied
        self.nonfinite_skips = 0  # updates that were not
        self.spent = Compute(parameters=self.parameters)
        self.measured: dict[str, float] = {}  # for the step's row: seconds of each phase, and what else is not learned

    @classmethod
    def start(
        cls, model_dir: Path, model: ModelConfig, learner: LearnerConfig, schedule: ScheduleConfig, *,
        total_updates: int, critic: CriticSettings | None = None, with_reference: bool = False, seed: int = 0,
    ) -> "Learner":  # fmt: skip
        """A learner of the model in `model_dir`, on this rank's device.

        Joins the process group that exists (Ray Train's), or makes one of this process alone.

        Args:
            schedule, total_updates: the policy's learning rate over the updates of the whole run.
            with_reference: hold a frozen copy of the starting model and score it too, for the KL penalty.
        Raises:
            DataError: no loadable model.
        """
        device = join()
        eyes = Eyes.load(model_dir)
        banned = (eyes.image_id,) if eyes else ()
        policy = Policy(load_model(model_dir, model), critic, seed, banned)
        reference = None
        if with_reference:
            frozen = Policy(load_model(model_dir, model), None, banned_ids=banned)
            reference = frozen.to(device).eval().requires_grad_(False)
        engine = make_engine(policy, learner, schedule, critic, bf16=model.dtype == "bfloat16")
        return cls(engine, model_dir, critic, learner, schedule, total_updates, reference, seed, eyes)

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        return torch.device(self._engine.device)

    @property
    def _policy(self) -> Policy:
        return self._engine.module

    # ---- learning ----------------------------------------------------------------------------------------------

    def score(self, batch: Batch, *, temperature: float = 1.0, as_sampled: bool = True) -> Batch:
        """The batch with log-probs and values of the present weights, and the reference's log-probs if it is held.

        Args:
            as_sampled: of the distribution that replies are drawn from; False keeps the tokens banned from replies.
        """
        started = time.perf_counter()
        self._engine.eval()
        scored: list[list[Tensor]] = [[], [], []]
        with torch.no_grad():
            for part, is_filler in self._passes(batch):
                out = Outputs(*self._engine(part, temperature, False, False, as_sampled))
                reference_logp = self._reference(part, temperature)[0] if self._reference is not None else out.logp
                if not is_filler:
                    for column, values in zip(scored, (out.logp, out.values, reference_logp), strict=True):
                        column.append(values[:, : batch.token_ids.shape[1]].cpu())  # without the blank
        logp, values, reference_logp = (torch.cat(column) for column in scored)
        passes = 1 if self._reference is None else 2
        self._spend(scored_tokens=passes * self.sum(int(batch.is_token.sum())))
        self._clock("score_s", started)
        known = None if self._reference is None else reference_logp
        return batch.scored(old_logp=logp, values=values, reference_logp=known)

    def update(self, batch: Batch, objective: Objective) -> dict[str, float]:
        """One optimizer update on a minibatch: this rank's rows of it.

        A gradient that is not finite on any rank leaves the weights as they are on all of them, and is counted.

        Returns:
            loss, grad_norm, lr, skipped (0 or 1) and the objective's diagnostics, over the global minibatch.
        Raises:
            DivergedError: the last `MAX_SKIPS` updates were all skipped.
        """
        started = time.perf_counter()
        torch.manual_seed(seed_of(self._seed, self.updates_done, self.rank))  # dropout, where a model has it
        rate = self._set_learning_rates()
        self._engine.train()
        counts, tokens = self._counts(batch)
        passes = self._most(self._own_passes(batch))
        watched: list[dict[str, Tensor]] = []
        for number, (part, is_filler) in enumerate(self._passes(batch), start=1):
            self._engine.set_gradient_accumulation_boundary(number == passes)
            watched.append(self._pass(part, objective, counts, weight=0.0 if is_filler else 1.0))
        grad_norm, is_applied = self._apply()
        self._spend(trained_tokens=tokens)
        metrics = self._reduced(watched) | {"grad_norm": grad_norm, "lr": rate, "skipped": float(not is_applied)}
        self._clock("update_s", started)
        self._note(is_applied)
        return metrics

    def _pass(self, part: Batch, objective: Objective, counts: Counts, weight: float) -> dict[str, Tensor]:
        out = Outputs(*self._engine(part, objective.temperature, objective.entropy_gradient, objective.critic_alone))
        loss = objective.loss(part, out, counts)
        # DeepSpeed averages gradients over ranks; the loss is already a share of the global mean
        self._engine.backward(loss * (self.world_size * weight))
        with torch.no_grad():
            watched = {"loss": loss.detach(), **objective.diagnostics(part, out, counts)}
            return watched if weight else {name: torch.zeros_like(value) for name, value in watched.items()}

    def _apply(self) -> tuple[float, bool]:
        """Clip and step, unless the gradient is not finite: (its norm before clipping, whether the step was taken)."""
        if self._engine.zero_optimization():
            self._engine.step()  # ZeRO clips by the norm over all shards, and steps over a non-finite one itself
            norm = float(self._engine.get_global_grad_norm())
            return norm, self._engine.was_step_applied() and math.isfinite(norm)
        norm = float(torch.nn.utils.clip_grad_norm_(self._policy.parameters(), self._config.max_grad_norm))
        if math.isfinite(norm):
            self._engine.step()
            return norm, True
        self._engine.zero_grad()
        return norm, False

    def _note(self, is_applied: bool) -> None:
        self.updates_done += is_applied
        self.nonfinite_skips += not is_applied
        self._skips_in_a_row = 0 if is_applied else self._skips_in_a_row + 1
        if self._skips_in_a_row >= MAX_SKIPS:
            raise DivergedError(
                f"the gradient was not finite in {MAX_SKIPS} updates in a row, the last being update "
                f"{self.updates_done}; lower the learning rate and resume from an earlier checkpoint"
            )

    def _set_learning_rates(self) -> float:
        """This update's rates into the optimizer; returns the policy's. During critic warm-up the policy's is 0."""
        rate = learning_rate(self._schedule, self.updates_done, self._total_updates)
        if self._critic is not None and self.updates_done < self._critic.warmup_updates:
            rate = 0.0
        for group in self._engine.optimizer.param_groups:
            group["lr"] = self._critic.learning_rate if self._critic and group["name"] == "critic" else rate
        return rate

    def _passes(self, batch: Batch) -> Iterator[tuple[Batch, bool]]:
        """Micro-batches of `rows_per_pass` rows, and whether each is filler.

        Sharded parameters and gradients are gathered pass by pass, so every rank makes as many as the busiest one.
        """
        rows, own = self._config.rows_per_pass, self._own_passes(batch)
        for number in range(self._most(own)):
            first = min(number, own - 1) * rows
            part = self._looked_at(batch.rows(torch.arange(first, min(first + rows, len(batch)))))
            yield part.to(self._engine.device), number >= own

    def _own_passes(self, batch: Batch) -> int:
        return -(-len(batch) // self._config.rows_per_pass)

    def _looked_at(self, part: Batch) -> Batch:
        """The part with its pictures prepared.

        One without any gets a blank one where its gradient must exist: ranks that share a model reduce, and under ZeRO-3
        gather, the same parameters in the same order; and with the language model frozen nothing else has a gradient.
        """
        if self._eyes is None:
            return part
        if not any(part.pictures) and (self.world_size > 1 or self._is_language_frozen):
            part = part.with_blank(self._eyes.expansion(BLANK), BLANK)
        return part.seen(self._eyes.inputs([picture for row in part.pictures for picture in row]))

    def _counts(self, batch: Batch) -> tuple[Counts, int]:
        """Denominators of the global minibatch, and its tokens."""
        turns = int((torch.unique(batch.turn_ids) >= 0).sum())
        own = [batch.sampled.sum(), batch.critic_learns.sum(), torch.tensor(turns), batch.is_token.sum()]
        sampled, critic, turns, tokens = self._summed(torch.stack(own).double()).tolist()
        return Counts(sampled, critic, turns), int(tokens)

    # ---- sums over ranks ---------------------------------------------------------------------------------------

    def sum(self, value: float) -> float:
        """The value summed over ranks."""
        return self._summed(torch.tensor(value, dtype=torch.float64)).item()

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each value summed over ranks, in one exchange."""
        summed = self._summed(torch.tensor(list(values.values()), dtype=torch.float64))
        return dict(zip(values, summed.tolist(), strict=True))

    def mean_std(self, values: Tensor, mask: Tensor) -> tuple[float, float]:
        """Mean and standard deviation (n, not n − 1) of the masked values over all ranks."""
        chosen = values[mask].double()
        count, total = self._summed(torch.stack([torch.tensor(chosen.numel()).double(), chosen.sum()])).tolist()
        mean = total / max(count, 1.0)
        square = self._summed((chosen - mean).square().sum())
        return mean, math.sqrt(square.item() / max(count, 1.0))

    def _summed(self, values: Tensor) -> Tensor:
        if self.world_size == 1:
            return values
        values = values.to(self._engine.device)
        dist.all_reduce(values)
        return values.cpu()

    def _most(self, value: int) -> int:
        if self.world_size == 1:
            return value
        most = torch.tensor(value, device=self._engine.device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        return int(most)

    def _reduced(self, watched: list[dict[str, Tensor]]) -> dict[str, float]:
        totals = torch.stack([torch.stack([part[name] for part in watched]).sum() for name in watched[0]])
        return dict(zip(watched[0], self._summed(totals.double()).tolist(), strict=True))

    # ---- weights and state -------------------------------------------------------------------------------------

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The model's weights by Hugging Face name, without the value head: copies on the host, in the model's type.

        Collective and lazy: every rank must exhaust it. Under ZeRO-3 one parameter at a time is whole.
        """
        for name, tensor in gathered(self._policy.model):
            yield from saved(self._policy.model, name, tensor)

    def save(self, directory: Path) -> None:
        """`model/` as transformers and vLLM load it, and `learner/` to go on from, at any world size. Rank 0 writes."""
        save_model(self._policy.model, self._model_dir, directory / "model", is_writer=self.rank == 0)
        counters = Counters(
            steps_done=self.steps_done, updates_done=self.updates_done, nonfinite_skips=self.nonfinite_skips,
            spent=self.spent,
        )  # fmt: skip
        save_state(self._engine, counters, directory / "learner", is_writer=self.rank == 0)
        self.barrier()

    def restore(self, directory: Path) -> None:
        """Go on from what `save` wrote: weights, optimizer and counters, bit for bit at the same world size.

        Raises:
            DataError: files are missing or belong to another model.
        """
        counters = load_state(self._engine, directory / "learner")
        self.steps_done, self.updates_done = counters.steps_done, counters.updates_done
        self.nonfinite_skips, self.spent = counters.nonfinite_skips, counters.spent

    def barrier(self) -> None:
        """Returns on every rank once all have called it."""
        if self.world_size > 1:
            dist.barrier()

    def close(self) -> None:
        """Let go of DeepSpeed's hooks and buffers. The process group stays."""
        self._engine.destroy()

    # ---- accounts ----------------------------------------------------------------------------------------------

    def spend(self, *, prefill_tokens: float, decoded_tokens: float) -> None:
        """Put the engines' tokens, already summed over ranks, on the run's account."""
        self._spend(prefill_tokens=prefill_tokens, decoded_tokens=decoded_tokens)

    def _spend(self, **tokens: float) -> None:
        self.spent += Compute(parameters=self.parameters, **{name: int(count) for name, count in tokens.items()})

    def _clock(self, phase: str, started: float) -> None:
        self.measured[phase] = self.measured.get(phase, 0.0) + time.perf_counter() - started
