"""The policy and its critic: any Hugging Face language or vision-language model, and a small head on its hidden states."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainers import rope
from trainers.packing import Batch

BANNED_LOGIT = -1e4  # never drawn: the engine takes so much from it that the odds are 0 in float32, too


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticSettings:
    """The value head and how it learns."""

    learning_rate: float
    detached: bool = False  # its gradient stops at the trunk
    warmup_updates: int = 0  # first updates that train the head alone


class Outputs(NamedTuple):
    """What one forward pass says of a batch.   All [B, L] float32, 0 where not asked for."""

    logp: Tensor  # of the sampled tokens
    entropy: Tensor  # of the distributions they were drawn from
    values: Tensor  # of the states at `critic_reads`


class ValueHead(nn.Module):
    """V(state) from the hidden state of the last token read: two layers, zero at the start."""

    def __init__(self, hidden_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_size, hidden_size, dtype=dtype)
        self.outer = nn.Linear(hidden_size, 1, dtype=dtype)
        # zero at the start: the first advantages are the plain returns, not the noise of a random critic
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N] float32 values of [N, H] hidden states."""
        return self.outer(nn.functional.gelu(self.inner(hidden))).squeeze(-1).float()


class Policy(nn.Module):
    """A causal language model, one that sees or not, with a value head where there is a critic.

    Rows hold several segments: `position_ids` that restart and no attention mask let transformers build the
    block-diagonal mask itself. Logits are computed for the positions that predict a sampled token and for no others:
    prompt, feedback and padding would cost memory and time and are never looked at.
    """

    def __init__(
        self, model: Any, critic: CriticSettings | None, seed: int = 0, banned_ids: tuple[int, ...] = ()
    ) -> None:
        """Args: banned_ids: tokens that are never drawn, as `ChatFormat.banned_ids`."""
        super().__init__()
        self.model = model
        self._banned_ids = list(banned_ids)
        self.critic: ValueHead | None = None
        self._critic_detached = critic is not None and critic.detached
        if critic is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.critic = ValueHead(model.config.get_text_config().hidden_size, model.dtype)
        # flash attention isolates segments by `position_ids` only when the batch is one row
        self._as_one_row = model.config._attn_implementation == "flash_attention_2"
        self._predicts = torch.empty(0)
        self._hidden = torch.empty(0)
        model.get_output_embeddings().register_forward_pre_hook(self._select)

    def forward(
        self, batch: Batch, temperature: float = 1.0, entropy_gradient: bool = False, critic_alone: bool = False,
        as_sampled: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """The fields of `Outputs`, as a plain tuple: DeepSpeed's hooks rebuild what they are handed.

        Args:
            temperature: divides the logits, as in sampling.
            entropy_gradient: entropy is a loss term, not only watched.
            critic_alone: stop the critic's gradient at the trunk, whatever the settings say.
            as_sampled: without the banned tokens, as replies are drawn; False is the model's whole distribution.
        """
        shape = batch.token_ids.shape
        wide = (1, -1) if self._as_one_row else shape
        predicted = batch.sampled[:, 1:]  # token i+1 is predicted at position i
        self._predicts = nn.functional.pad(predicted, (0, 1)).view(wide)
        logits = self.model(
            input_ids=batch.token_ids.view(wide), position_ids=rope.positions(self.model, batch, wide), use_cache=False,
            **batch.vision,
        ).logits  # fmt: skip
        if self._banned_ids and as_sampled:
            logits = logits.index_fill(-1, torch.tensor(self._banned_ids, device=logits.device), BANNED_LOGIT)
        hidden, self._hidden = self._hidden.view(*shape, -1), torch.empty(0)
        logp, entropy = _logp_and_entropy(
            logits, batch.token_ids[:, 1:][predicted], temperature, entropy_gradient=entropy_gradient
        )
        values = torch.zeros(shape, device=logp.device)
        if self.critic is not None:
            read = hidden[batch.critic_reads]
            if self._critic_detached or critic_alone:
                read = read.detach()
            values = values.masked_scatter(batch.critic_reads, self.critic(read))
        return _spread(logp, batch.sampled), _spread(entropy, batch.sampled), values

    def _select(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Before the output head: keep the hidden states for the critic, hand the head the wanted ones alone.

        Doing it here rather than beside the model keeps what some models do after the head (scaling, soft caps).
        """
        self._hidden = inputs[0]
        return (inputs[0][self._predicts], *inputs[1:])


def _logp_and_entropy(
    logits: Tensor, targets: Tensor, temperature: float, *, entropy_gradient: bool
) -> tuple[Tensor, Tensor]:
    """[N] log-probs of the targets and entropies of the distributions, in float32 whatever the logits are."""
    scaled = logits.float() / temperature if temperature != 1.0 else logits.float()
    logp = -nn.functional.cross_entropy(scaled, targets, reduction="none")
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        log_probs = scaled.log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
    return logp, entropy


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """[N] values to their places in [B, L], 0 elsewhere."""
    return torch.zeros(mask.shape, device=values.device).masked_scatter(mask, values)
