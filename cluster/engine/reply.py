"""What an engine is asked, what it answers, and how it fails. Imports without vLLM."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from envs.base import ViterError


class History(NamedTuple):
    """Token ids, and the pictures [H, W, 3] uint8 whose expanded placeholders stand in them, in order."""

    token_ids: Sequence[int]
    pictures: Sequence[np.ndarray] = ()


class EngineDead(ViterError):
    """The engine's process is gone and does not come back: its owner should exit and be replaced."""


class WeightsRefused(ViterError):
    """An engine was given weights that it cannot confirm, and does not sample until it is given good ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One sampled response. The stop token, if one ended it, is its last token."""

    token_ids: list[int]
    logp: list[float]  # of each token under the distribution it was drawn from: temperature applied
    weight_versions: list[int]  # of each token: they differ where weights arrived in the middle of the response
    finish_reason: str  # "stop", "length" or "abort"
    prompt_tokens: int
    cached_tokens: int  # of the prompt, taken from the prefix cache

    @property
    def weight_version(self) -> int:
        """Version that sampled the last token; -1 for an empty reply."""
        return self.weight_versions[-1] if self.weight_versions else -1
