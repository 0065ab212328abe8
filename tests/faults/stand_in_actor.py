"""A rollout actor as in production, but for its engine: one that starts in no time and draws tokens from its seed."""

import asyncio

import ray

from cluster.actors import RolloutProcess
from envs.base import seed_of
from tests.cluster.players import chat_format, reply


class SeededEngine:
    """Answers are a function of history and seed, of 3 to 20 tokens, each a millisecond or two in the making."""

    def __init__(self):
        self.weight_version = -1
        self._vocabulary = len(chat_format().tokenizer)

    async def generate(self, token_ids, *, seed, temperature, max_tokens, stop_ids, pictures=(), banned_ids=()):
        count = 3 + seed % 18
        await asyncio.sleep(0.002 * count)
        ids = [seed_of(seed, len(token_ids), place) % self._vocabulary for place in range(count)]
        return reply([*ids, stop_ids[0]], prompt_tokens=len(token_ids), version=self.weight_version)

    async def update_weights(self, parcel):
        self.weight_version = parcel.version

    async def check_health(self):
        return None


@ray.remote(max_restarts=0, max_concurrency=256)
class StandInRolloutActor(RolloutProcess):
    async def _start_engine(self, model):
        return SeededEngine()
