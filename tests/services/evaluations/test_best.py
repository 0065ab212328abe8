"""Which checkpoint is `best`: the rule over made-up evaluations, and the aliases that it leaves in a real store."""

import asyncio
import itertools
import random
from pathlib import Path

import pytest

from envs.base import DataError
from services.evaluations import best
from services.evaluations.best import ranked, settle_aliases
from services.evaluations.jobs import Evaluations
from services.evaluations.journal import Journal
from services.evaluations.orders import Counts, Evaluation, EvaluationOrder, RateModel, SuiteResult, Tokens
from services.evaluations.scoring import wilson
from services.registry import Registry
from tests.services.conftest import commit
from trainers.aliases import aliases
from trainers.checkpoints import Checkpoints, resolve

numbers = itertools.count()


def result(kind: str, k: int, n: int, *, failed: int = 0, digest: str = "d") -> SuiteResult:
    rate = RateModel.of(wilson(k, n))
    return SuiteResult(
        suite=f"general_points/{kind}", kind=kind, digest=digest, n=n, failed=failed, success=rate,
        first_attempt=rate, by_iteration=[rate], per_step_accuracy=rate, recognition=None, regressions=rate,
        tokens=Tokens(prefill=0, cached=0, decoded=0), flops=None,
    )  # fmt: skip


def measured(
    step: int, id_k: int, *, n: int = 100, ood_k: int = 0, failed: int = 0, digest: str | None = None, **order
) -> Evaluation:
    """A completed evaluation of nano-a."""
    number = next(numbers)
    return Evaluation(
        id=f"eval-{number:08x}",
        status="completed",
        created_at=float(number),
        model=f"nano-a@step-{step:06d}",
        digest=digest or f"weights-{step}",
        order=EvaluationOrder(checkpoint="nano-a@latest", n=n, **order),
        counts=Counts(total=n),
        results=[result("id", id_k, n, failed=failed), result("ood", ood_k, n, failed=failed)],
    )


def winner(evaluations: list[Evaluation], kind: str = "id") -> int | None:
    """Its step; in whatever order the evaluations come."""
    draw, steps = random.Random(0), set()
    for _ in range(5):
        draw.shuffle(evaluations)
        steps.add(next((candidate.step for candidate in ranked(evaluations, kind)), None))
    assert len(steps) == 1
    return steps.pop()


def test_the_highest_rate_wins_on_each_kind_of_suite():
    evaluations = [measured(10, 50, ood_k=40), measured(20, 70, ood_k=30), measured(30, 60, ood_k=20)]
    assert (winner(evaluations, "id"), winner(evaluations, "ood")) == (20, 10)


def test_of_equal_rates_the_earlier_step_wins():
    assert winner([measured(30, 60), measured(10, 60), measured(20, 60)]) == 10


def test_a_later_worse_evaluation_changes_nothing():
    evaluations = [measured(10, 50), measured(20, 70)]
    assert winner(evaluations) == winner([*evaluations, measured(30, 69)]) == 20


def test_few_tasks_never_beat_many():
    many = [measured(10, 300, n=512), measured(20, 310, n=512)]
    assert winner([*many, *(measured(step, 32, n=32) for step in (30, 40, 50))]) == 20


@pytest.mark.parametrize(
    "other",
    [{"viter": 1}, {"decoding": {"temperature": 0}}, {"options": {"resolution": 128}}, {"decoding": {"seed": 7}}],
)
def test_what_is_not_comparable_is_never_ranked_together(other: dict):
    """Another way to measure decides once it has measured more checkpoints, and then alone."""
    usual = [measured(10, 50), measured(20, 70)]
    assert winner([*usual, measured(30, 99, **other)]) == 20
    assert winner([*usual, measured(30, 40, **other), measured(40, 30, **other), measured(50, 20, **other)]) == 30


def test_what_could_not_be_judged_does_not_compete():
    assert winner([measured(10, 50), measured(20, 99, failed=1)]) == 10
    assert winner([measured(20, 99, failed=1)]) is None
    assert winner([]) is None


# ---- what it leaves in a store


@pytest.fixture
def journal(store: Path) -> Journal:
    return Journal(store)


def kept(journal: Journal, evaluation: Evaluation) -> Evaluation:
    journal.create(evaluation)
    assert journal.claim(evaluation.id)
    journal.finish(evaluation)
    return evaluation


async def test_the_alias_carries_its_evidence(store: Path, journal: Journal):
    digests = {step: Checkpoints(store, "nano-a").get(step).digest for step in (10, 20)}
    chosen = kept(journal, measured(10, 70, ood_k=10, digest=digests[10]))
    last = kept(journal, measured(20, 60, ood_k=20, digest=digests[20]))
    await settle_aliases(Registry(str(store)), journal, last)
    assert resolve(store, "nano-a@best").step == 10
    assert resolve(store, "nano-a@best-ood").step == 20
    told = {"evaluation": chosen.id, "suite": "general_points/id", "rate": 0.7, "n": 100}
    assert aliases(store, "nano-a")["best"].evidence == told


async def test_a_checkpoint_that_is_gone_damaged_or_replaced_is_passed_over(store: Path, journal: Journal):
    digest = Checkpoints(store, "nano-a").get(10).digest
    kept(journal, measured(10, 50, digest=digest))
    kept(journal, measured(20, 70, digest="replaced"))
    last = kept(journal, measured(30, 90))
    await settle_aliases(Registry(str(store)), journal, last)
    assert resolve(store, "nano-a@best").step == 10


async def test_completing_an_evaluation_sets_the_aliases(store: Path, player):
    jobs = Evaluations(Journal(store), Registry(str(store)), player)
    await jobs.start()
    made = await jobs.order(EvaluationOrder(checkpoint="nano-b@latest", n=4, viter=2))
    async with asyncio.timeout(20):
        while not {"best", "best-ood"} <= aliases(store, "nano-b").keys():
            jobs.check()
            await asyncio.sleep(0.005)
    await jobs.close()
    assert aliases(store, "nano-b")["best"].evidence["evaluation"] == made.id


async def test_an_alias_that_cannot_be_written_fails_no_evaluation(
    store: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
):
    last = kept(journal, measured(10, 50, digest=commit(store, "nano-a", 10).digest))

    def refuse(*_: object, **__: object) -> None:
        raise DataError("the store is read-only")

    monkeypatch.setattr(best, "write_alias", refuse)
    await settle_aliases(Registry(str(store)), journal, last)
    assert aliases(store, "nano-a") == {}
