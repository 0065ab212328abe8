"""A rollout actor as in production, but for its engine: one that starts in no time and draws tokens from its seed."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from cluster.actors import RolloutProcess, as_rollout_actor
from cluster.engine.channel import ChannelBroken, Receiver
from cluster.engine.reply import Reply, WeightsRefused
from cluster.ledger import Order
from cluster.weights import WeightBroadcast
from envs.base import seed_of

TOKEN_S = 0.002  # of one token, where no rate is set


class SeededEngine:
    """Answers of 3 to 20 tokens that are a function of history and seed alone.

    Args:
        vocabulary: tokens to draw from.
        token_s: seconds that a sequence takes for each token, whatever else is decoded.
        tokens_per_s: instead, what all sequences together get.
        tensor_s: seconds that it takes for each tensor of a broadcast.
    """

    def __init__(
        self, vocabulary: int, *, token_s: float = TOKEN_S, tokens_per_s: float | None = None, tensor_s: float = 0.0
    ) -> None:
        self.weight_version = -1
        self._receiver, self._tensor_s = Receiver(), tensor_s
        self._vocabulary, self._token_s, self._rate = vocabulary, token_s, tokens_per_s
        self._free_at = 0.0

    async def generate(self, token_ids: Sequence[int], *, seed: int, stop_ids: Sequence[int], **_: object) -> Reply:
        count = 3 + seed % 18
        await self._decode(count + 1)
        ids = [*(seed_of(seed, len(token_ids), place) % self._vocabulary for place in range(count)), stop_ids[0]]
        return Reply(
            token_ids=ids,
            logp=[-0.5 - 0.01 * place for place in range(len(ids))],
            weight_versions=[self.weight_version] * len(ids),
            finish_reason="stop",
            prompt_tokens=len(token_ids),
            cached_tokens=0,
        )

    async def _decode(self, tokens: int) -> None:
        if self._rate is None:
            await asyncio.sleep(self._token_s * tokens)
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + tokens / self._rate
        await asyncio.sleep(self._free_at - now)

    def has_parcel(self, digest: str) -> bool:
        return bool(digest)

    async def update_weights(self, parcel: Any) -> None:
        self.weight_version = parcel.version

    async def take_broadcast(self, broadcast: WeightBroadcast, worker: str) -> None:
        rank = broadcast.channel.ranks[worker]
        try:
            await asyncio.to_thread(self._receiver.take, broadcast, rank, torch.device("cpu"), self._load)
        except (ChannelBroken, ValueError) as error:
            raise WeightsRefused(str(error)) from None
        self.weight_version = broadcast.version

    def _load(self, tensors: Sequence[tuple[str, torch.Tensor]]) -> None:
        time.sleep(self._tensor_s * len(tensors))

    async def check_health(self) -> None:
        return None


class StandIn(RolloutProcess):
    """See the module. The class attributes are what a drill changes."""

    slow: Mapping[str, float] = MappingProxyType({})
    """How many times slower a worker is, by its name without what follows a dot."""
    token_s = TOKEN_S
    tokens_per_s: float | None = None
    tensor_s = 0.0
    poison: Collection[tuple[int, int]] = ()
    """Episodes by (step, index) that kill the process which is given them."""

    async def _start_engine(self, model: Path) -> Any:
        vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
        slower = self.slow.get(self._name.partition(".")[0], 1.0)
        return SeededEngine(
            vocabulary, token_s=self.token_s * slower, tokens_per_s=self.tokens_per_s, tensor_s=self.tensor_s
        )

    async def give(self, orders: Sequence[Order]) -> None:
        await super().give(orders)
        if any((order.step, order.index) in self.poison for order in orders):
            os.kill(os.getpid(), signal.SIGKILL)


def actor(**changed: Any) -> Any:
    """An actor class to put in place of RolloutActor, with class attributes of `StandIn` set."""
    return as_rollout_actor(type("StandIn", (StandIn,), changed))
