"""The canary after every weight sync: learner and engines must give the same tokens the same log-probs."""

import math
from typing import Any

import envs
from cluster.config import RunConfig
from cluster.engine.reply import History
from envs.corpus import expert_document
from trainers.chat import ChatFormat
from trainers.corpus import plain_segment, segment_of
from trainers.episode import Segment
from trainers.learner import DivergedError, Learner
from trainers.packing import known, pack_segments

DOCUMENTS = 4


class Probe:
    """A few expert documents, with their pictures if they have some, scored on both sides."""

    def __init__(self, documents: list[Segment], *, tolerance: float) -> None:
        self._documents, self._tolerance = documents, tolerance

    @classmethod
    def of(cls, config: RunConfig, chat: ChatFormat) -> "Probe":
        """The probe of a PPO run: documents of its own environment."""
        assert config.ppo is not None
        environment = envs.make(config.environment.name, **config.environment.options)
        documents = (expert_document(environment, "probe", number) for number in range(DOCUMENTS))
        return cls(
            [segment_of(document, chat, environment) for document in documents], tolerance=config.ppo.probe_tolerance
        )

    def check(self, learner: Learner, orchestrator: Any, version: int) -> None:
        """Compare; collective over learner ranks.

        Raises:
            DivergedError: the mean absolute gap of an engine is above the tolerance, or is not a number.
        """
        import ray

        learnt = [self._score(learner, document) for document in self._documents]
        gaps: dict[str, float] = {}
        if learner.rank == 0:
            histories = [History(document.token_ids.tolist(), document.pictures) for document in self._documents]
            engines = ray.get(orchestrator.probe.remote(histories))
            gaps = {worker: mean_gap(learnt, scores) for worker, scores in engines.items()}
        worst = max(gaps, key=lambda worker: _size(gaps[worker])) if gaps else ""
        gap = learner.sum(_size(gaps[worst]) if gaps else 0.0)
        if gap > self._tolerance:
            raise DivergedError(
                f"weight version {version}: learner and engine {worst} differ by {gap:.4f} nats on the probe, "
                f"ppo.probe_tolerance allows {self._tolerance}"
            )

    def _score(self, learner: Learner, document: Segment) -> list[float]:
        length = len(document.token_ids)
        whole = plain_segment(document.token_ids.tolist(), [False] + [True] * (length - 1), document.pictures)
        batch = learner.score(pack_segments([whole], row_tokens=length), as_sampled=False)  # as engines score prompts
        return known(batch.old_logp)[0, 1:length].tolist()


def mean_gap(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """Mean absolute difference in nats over all tokens; NaN where either side has one."""
    differences = [
        abs(a - b) for mine, other in zip(ours, theirs, strict=True) for a, b in zip(mine, other, strict=True)
    ]
    return sum(differences) / len(differences)


def _size(gap: float) -> float:
    return math.inf if math.isnan(gap) else gap
