"""Supervised fine-tuning on one screen: the tokens an expert would have sampled, made likely."""

from collections.abc import Callable, Sequence

from trainers.config import SftConfig
from trainers.episode import Segment
from trainers.journal import Journal
from trainers.learner import Learner
from trainers.objectives import SftObjective
from trainers.packing import pack_segments

Corpus = Callable[[int], Sequence[Segment]]  # this rank's share of a step's documents, by the step alone


def train(config: SftConfig, learner: Learner, corpus: Corpus, journal: Journal, *, row_tokens: int) -> None:
    """One optimizer update per step until `config.steps`. A restored learner goes on where it stopped."""
    objective = SftObjective()
    for step in range(learner.steps_done, config.steps):
        batch = pack_segments(corpus(step), row_tokens=row_tokens)
        metrics = learner.update(batch, objective)
        learner.steps_done = step + 1
        if not journal.end_of_step(step + 1, metrics):
            return
