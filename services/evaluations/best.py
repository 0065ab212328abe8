"""Which checkpoint of a run is `best`, and which `best-ood`: a rule over its completed evaluations.

Two evaluations are comparable where they asked the same of their checkpoints: the same suite (by digest) and n, viter,
decoding and options. Only comparable ones are ever ranked against each other:

- `best` is judged on the first ID suite of an evaluation, `best-ood` on its first OOD suite, by the suite's main rate.
- Of the sets of comparable evaluations the one with most tasks decides, however good the rates of a smaller one look;
  among sets of as many tasks the one that measured most checkpoints, then the one that began first.
- Within it the highest rate wins, and of equal rates the earliest step. A later evaluation takes the alias by being
  better; being worse it changes nothing.
- An evaluation with items that could not be judged does not compete: what is missing may be what is hard.

The rule sees the whole set each time, so neither order of completion nor a restart changes what it says.
"""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from envs.base import ViterError
from services.evaluations.journal import Journal
from services.evaluations.orders import Evaluation, SuiteResult
from services.registry import Registry
from trainers.aliases import BEST, BEST_OOD, aliases, write_alias
from trainers.checkpoint import STEP_NAME, Checkpoint

JUDGED_ON = {BEST: "id", BEST_OOD: "ood"}
OF_THE_CHECKPOINT = {"checkpoint", "suites", "environment", "modality", "idempotency"}
"""What two orders may differ in: which suite it is, the result says itself."""

logger = logging.getLogger("viter.evaluations")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What one evaluation says of one checkpoint."""

    checkpoint: str
    step: int
    digest: str
    rate: float
    evaluation: Evaluation
    result: SuiteResult

    @property
    def evidence(self) -> dict[str, str | int | float]:
        """What the alias file keeps of it."""
        result = self.result
        return {"evaluation": self.evaluation.id, "suite": result.suite, "rate": self.rate, "n": result.n}


def ranked(evaluations: Iterable[Evaluation], kind: str) -> list[Candidate]:
    """The candidates of the set of comparable evaluations that decides, best first; empty where nothing competes."""
    sets: defaultdict[str, list[Candidate]] = defaultdict(list)
    for evaluation in evaluations:
        for candidate in _candidates(evaluation, kind):
            sets[_comparable(candidate)].append(candidate)
    deciding = max(sets.values(), key=_weight, default=[])
    return sorted(deciding, key=lambda c: (-c.rate, c.step, c.evaluation.created_at))


async def settle_aliases(registry: Registry, journal: Journal, completed: Evaluation) -> None:
    """Let `best` and `best-ood` of the run of an evaluation that completed say what is so now.

    Their failure is logged and not the evaluation's: it is done, and the next one settles them again.
    """
    run = completed.model.partition("@")[0]
    try:
        evaluations = await asyncio.to_thread(_of_run, journal, run)
        for alias, kind in JUDGED_ON.items():
            for candidate in ranked(evaluations, kind):
                checkpoint = await _standing(registry, candidate)
                if checkpoint is not None:
                    await asyncio.to_thread(_write, checkpoint, alias, candidate)
                    break
    except (ViterError, OSError, ValueError) as error:
        logger.warning("the aliases of %s stay as they are: %s", run, error)


def _of_run(journal: Journal, run: str) -> list[Evaluation]:
    return [e for e in journal.readable() if e.status == "completed" and e.model.startswith(f"{run}@")]


def _candidates(evaluation: Evaluation, kind: str) -> Iterator[Candidate]:
    """One, or none."""
    step = STEP_NAME.fullmatch(evaluation.model.partition("@")[2])
    result = next((result for result in evaluation.results or () if result.kind == kind), None)
    if step is not None and result is not None and result.n > 0 and not result.failed:
        yield Candidate(
            checkpoint=evaluation.model,
            step=int(step[1]),
            digest=evaluation.digest,
            rate=result.main.rate,
            evaluation=evaluation,
            result=result,
        )


def _comparable(candidate: Candidate) -> str:
    asked = candidate.evaluation.order.model_dump(mode="json", exclude=OF_THE_CHECKPOINT)
    result = candidate.result
    return json.dumps([result.suite, result.digest, result.headline, result.n, asked], sort_keys=True)


def _weight(comparable: list[Candidate]) -> tuple[int, int, float]:
    checkpoints = {(candidate.checkpoint, candidate.digest) for candidate in comparable}
    began = min(candidate.evaluation.created_at for candidate in comparable)
    return comparable[0].result.n, len(checkpoints), -began


async def _standing(registry: Registry, candidate: Candidate) -> Checkpoint | None:
    """The checkpoint that was measured, where the store still holds it, intact and with the same weights."""
    try:
        checkpoint = await registry.resolve(candidate.checkpoint)
    except ViterError:
        return None
    return checkpoint if checkpoint.digest == candidate.digest else None


def _write(checkpoint: Checkpoint, alias: str, candidate: Candidate) -> None:
    known = aliases(checkpoint.store, checkpoint.run).get(alias)
    if known is None or (known.checkpoint, known.digest, known.evidence) != (
        checkpoint.name,
        checkpoint.digest,
        candidate.evidence,
    ):
        write_alias(checkpoint, alias, evidence=candidate.evidence)
