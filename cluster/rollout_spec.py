"""What a rollout worker must know to start, and what it takes to play one of its episodes again. No Ray, no vLLM."""

from dataclasses import dataclass
from typing import Any

import envs
from cluster.config import EngineConfig, RunConfig
from cluster.rollout import Decoding
from envs.task import Environment
from trainers import curriculum
from trainers.config import PpoConfig
from trainers.curriculum import Iterations


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpec:
    """What a rollout worker must know to start. Travels by pickle inside the cluster."""

    environment: str
    options: dict[str, Any]  # but for `viter`, which the step says
    viter: Iterations
    source: str  # where the model's architecture and tokenizer come from, see `trainers.sources`
    store: str
    engine: EngineConfig
    decoding: Decoding
    seed: int
    episodes_in_flight: int
    verdict_deadline_s: float

    @classmethod
    def of(cls, config: RunConfig, source: str) -> "RolloutSpec":
        """The workers of the PPO stage of a run, on the model that `source` names."""
        ppo, rollout = config.ppo, config.rollout
        assert isinstance(ppo, PpoConfig)
        options = dict(config.environment.options)
        if ppo.deals is not None:
            options["deals"] = ppo.deals
        return cls(
            environment=config.environment.name,
            options=options,
            viter=ppo.viter,
            source=source,
            store=config.store.uri,
            engine=rollout.engine,
            decoding=Decoding(
                temperature=ppo.temperature,
                max_tokens=ppo.answer_tokens,
                max_model_len=rollout.engine.max_model_len,
            ),
            seed=ppo.seed,
            episodes_in_flight=rollout.episodes_in_flight,
            verdict_deadline_s=rollout.verdict_deadline_s,
        )

    def environment_at(self, step: int) -> Environment:
        """The environment that the episodes of `step` are played in."""
        return envs.make(self.environment, **self.options, viter=curriculum.at(self.viter, step))
