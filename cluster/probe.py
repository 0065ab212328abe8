"""The canary after every weight sync: learner and engines must give the same tokens the same log-probs."""

import math
from typing import Any

import envs
from cluster.config import RunConfig
from envs.corpus import expert_document
from trainers.chat import ChatFormat
from trainers.corpus import plain_segment, segment_of
from trainers.learner import DivergedError, Learner
from trainers.packing import known, pack_segments

SEQUENCES = 4


class Probe:
    """A few expert documents, scored on both sides."""

    def __init__(self, sequences: list[list[int]], *, tolerance: float) -> None:
        self._sequences, self._tolerance = sequences, tolerance

    @classmethod
    def of(cls, config: RunConfig, chat: ChatFormat) -> "Probe":
        """The probe of a PPO run: documents of its own environment."""
        assert config.ppo is not None
        environment = envs.make(config.environment.name, **config.environment.options)
        documents = (expert_document(environment, "probe", number) for number in range(SEQUENCES))
        sequences = [segment_of(document, chat).token_ids.tolist() for document in documents]
        return cls(sequences, tolerance=config.ppo.probe_tolerance)

    def check(self, learner: Learner, orchestrator: Any, version: int) -> None:
        """Compare; collective over learner ranks.

        Raises:
            DivergedError: the mean absolute gap of an engine is above the tolerance, or is not a number.
        """
        import ray

        learnt = [self._score(learner, ids) for ids in self._sequences]
        gaps: dict[str, float] = {}
        if learner.rank == 0:
            engines = ray.get(orchestrator.probe.remote(self._sequences))
            gaps = {worker: mean_gap(learnt, scores) for worker, scores in engines.items()}
        worst = max(gaps, key=lambda worker: _size(gaps[worker])) if gaps else ""
        gap = learner.sum(_size(gaps[worst]) if gaps else 0.0)
        if gap > self._tolerance:
            raise DivergedError(
                f"weight version {version}: learner and engine {worst} differ by {gap:.4f} nats on the probe, "
                f"ppo.probe_tolerance allows {self._tolerance}"
            )

    def _score(self, learner: Learner, ids: list[int]) -> list[float]:
        segment = plain_segment(ids, [False] + [True] * (len(ids) - 1))
        batch = learner.score(pack_segments([segment], row_tokens=len(ids)))
        return known(batch.old_logp)[0, 1 : len(ids)].tolist()


def mean_gap(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """Mean absolute difference in nats over all tokens; NaN where either side has one."""
    differences = [
        abs(a - b) for mine, other in zip(ours, theirs, strict=True) for a, b in zip(mine, other, strict=True)
    ]
    return sum(differences) / len(differences)


def _size(gap: float) -> float:
    return math.inf if math.isnan(gap) else gap
