"""What a run costs, in floating-point operations counted from tokens: the x-axis on which SFT and RL are compared.

    training         6·N per token    forward 2·N, backward 4·N
    scoring          2·N per token    the learner's old log-probs and values, a KL reference
    prefill, decode  2·N per token    prompt tokens the engine computed (cache hits cost nothing), tokens it sampled

N is the number of parameters. Chu et al. 2025 (arXiv 2501.17161) count the same 6·N·D and 2·N·D, but estimate the
sampled tokens by a fixed ratio; here each token is counted. Attention's own products, which grow with the square of
the length, are left out here as there. What a checkpoint has cost includes its ancestors.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

TRAIN, FORWARD = 6, 2  # operations per parameter and token


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Counted tokens of a model of `parameters`. Adds up over steps, ranks and stages."""

    parameters: int
    trained_tokens: int = 0  # once per epoch
    scored_tokens: int = 0
    prefill_tokens: int = 0  # cache hits left out
    decoded_tokens: int = 0
    correction_flops: int = 0  # what the tokens of ancestors with another number of parameters differ by

    @property
    def flops(self) -> int:
        """6·N·trained + 2·N·(scored + prefill + decoded)."""
        forward = self.scored_tokens + self.prefill_tokens + self.decoded_tokens
        return self.parameters * (TRAIN * self.trained_tokens + FORWARD * forward) + self.correction_flops

    def __add__(self, later: "Compute") -> "Compute":
        """Tokens and FLOPs both add up exactly; `parameters` is the later one's."""
        total = Compute(
            parameters=later.parameters,
            trained_tokens=self.trained_tokens + later.trained_tokens,
            scored_tokens=self.scored_tokens + later.scored_tokens,
            prefill_tokens=self.prefill_tokens + later.prefill_tokens,
            decoded_tokens=self.decoded_tokens + later.decoded_tokens,
        )
        return _corrected(total, self.flops + later.flops)

    def to_dict(self) -> dict[str, int]:
        """JSON-able, with `flops` for readers."""
        return {**asdict(self), "flops": self.flops}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. An empty dict is a model nobody has trained yet."""
        return cls(**{"parameters": 0, **{f.name: int(data[f.name]) for f in fields(cls) if f.name in data}})


def _corrected(total: Compute, flops: int) -> Compute:
    return Compute(**{**asdict(total), "correction_flops": flops - total.flops})
