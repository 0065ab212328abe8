"""From finished items to the numbers of an evaluation. Pure."""

from collections.abc import Sequence

from envs import suites
from envs.suites import Suite, headline
from services.evaluations import scoring
from services.evaluations.orders import DifferenceModel, EvaluationOrder, Item, RateModel, SuiteResult, Tokens
from trainers.compute import Compute


def results_of(order: EvaluationOrder, items: Sequence[Item], parameters: int | None) -> list[SuiteResult]:
    """What each suite of an order showed, in its order."""
    return [
        suite_result(
            suites.load(name, order.n),
            [item for item in items if item.suite == name],
            viter=order.viter,
            parameters=parameters,
        )
        for name in order.suites
    ]


def suite_result(suite: Suite, items: Sequence[Item], *, viter: int, parameters: int | None) -> SuiteResult:
    """What the items of one suite show. Items that could not be judged are counted apart."""
    judged = [item for item in items if item.error is None]
    outcomes = [item.outcome for item in judged]
    tokens = Tokens(
        prefill=sum(item.prefill_tokens for item in items),
        cached=sum(item.cached_tokens for item in items),
        decoded=sum(item.decoded_tokens for item in items),
    )
    compute = Compute(parameters=parameters or 0, prefill_tokens=tokens.prefill, decoded_tokens=tokens.decoded)
    recognition = scoring.recognition(outcomes)
    return SuiteResult(
        suite=suite.name,
        kind=suite.kind,
        digest=suite.digest,
        headline=headline(suite.environment),
        n=len(judged),
        failed=len(items) - len(judged),
        success=RateModel.of(scoring.success(outcomes)),
        first_attempt=RateModel.of(scoring.first_attempt(outcomes)),
        by_iteration=[RateModel.of(rate) for rate in scoring.success_by_iteration(outcomes, viter)],
        per_step_accuracy=RateModel.of(scoring.per_step_accuracy(outcomes)),
        first_answers=RateModel.of(scoring.first_answers(outcomes)),
        recognition=RateModel.of(recognition) if recognition else None,
        regressions=RateModel.of(scoring.regressions(outcomes)),
        tokens=tokens,
        flops=compute.flops if parameters else None,
    )


def generalisation_gap(results: Sequence[SuiteResult]) -> DifferenceModel | None:
    """ID minus OOD, of the first suite of each kind, in the rate that they are measured by; None where one is missing."""
    first = {result.kind: result.main for result in reversed(results)}
    if not {"id", "ood"} <= first.keys():
        return None
    id_rate, ood_rate = (scoring.wilson(first[kind].k, first[kind].n) for kind in ("id", "ood"))
    return DifferenceModel.of(scoring.generalisation_gap(id_rate, ood_rate))
