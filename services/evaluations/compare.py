"""Two evaluations side by side: the same tasks, two policies, and whether the difference is beyond chance. Pure."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Self

from pydantic import BaseModel

from envs.suites import Headline
from services.evaluations import scoring
from services.evaluations.orders import DifferenceModel, Evaluation, Item, RateModel, SuiteResult

SIGNIFICANCE = 0.05
MOST_NAMED = 100  # tasks told by name, each way


class PairedModel(BaseModel):
    """The same tasks under both evaluations, by McNemar's exact test."""

    first: RateModel
    second: RateModel
    difference: DifferenceModel
    """Second minus first, with the 95 % interval for paired proportions of Newcombe 1998, method 10."""
    won: int
    """Tasks that only the second solved."""
    lost: int
    """Tasks that only the first solved."""
    p_value: float
    """Two-sided, under the hypothesis that a change is as likely one way as the other."""
    is_beyond_chance: bool
    """Whether the p-value is below 0.05."""

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> Self:
        test = scoring.mcnemar(first, second)
        one, two = (scoring.wilson(sum(side), len(side)) for side in (first, second))
        return cls(
            first=RateModel.of(one),
            second=RateModel.of(two),
            difference=DifferenceModel.of(scoring.paired_difference(first, second)),
            **asdict(test),
            is_beyond_chance=test.p_value < SIGNIFICANCE,
        )


class PerStepModel(BaseModel):
    """Per-step accuracy of both. Answers to one task belong together, so the interval takes tasks as what was drawn."""

    first: RateModel
    second: RateModel
    difference: DifferenceModel | None
    """Second minus first, with a 95 % interval; null with fewer than two tasks."""
    is_beyond_chance: bool
    """Whether the interval leaves 0 out."""


class SuiteComparison(BaseModel):
    """One suite under both evaluations, or the sentence that says why it cannot be compared."""

    suite: str
    problem: str | None = None
    """Why it cannot be compared; then nothing below stands."""
    headline: Headline = "success"
    n: int = 0
    """Tasks that both judged."""
    unjudged: int = 0
    """Tasks left out, since an episode could not be judged."""
    success: PairedModel | None = None
    by_iteration: list[PairedModel] = []
    """Solved within 1, 2, … attempts at every position, as far as both had them."""
    per_step: PerStepModel | None = None
    won: list[str] = []
    """Ids of items that only the second solved, the first hundred."""
    lost: list[str] = []
    """Ids of items that only the first solved, the first hundred."""
    in_words: str = ""
    """What it comes to, in the rate that the environment is measured by."""


class Comparison(BaseModel):
    """The second evaluation against the first, suite by suite."""

    object: str = "evaluation.comparison"
    first: str
    second: str
    models: tuple[str, str]
    differences: list[str]
    """What else the two orders differ in, each in one sentence: then it is not the weights alone that are compared."""
    suites: list[SuiteComparison]


def compare(first: Evaluation, second: Evaluation, items: Sequence[Item], others: Sequence[Item]) -> Comparison:
    """`second` against `first`; `items` are what the first played, `others` what the second did."""
    names = dict.fromkeys((*first.order.suites, *second.order.suites))
    return Comparison(
        first=first.id,
        second=second.id,
        models=(first.model, second.model),
        differences=_differences(first, second),
        suites=[
            _suite(
                name,
                (first, second),
                [item for item in items if item.suite == name],
                [item for item in others if item.suite == name],
            )
            for name in names
        ],
    )


def _differences(first: Evaluation, second: Evaluation) -> list[str]:
    one, two = ({**e.order.model_dump(), **e.order.decoding.model_dump()} for e in (first, second))
    return [
        f"{key} is {one[key]} in the first and {two[key]} in the second"
        for key in ("viter", "temperature", "max_tokens", "seed", "options")
        if one[key] != two[key]
    ]


def _suite(
    name: str, pair: tuple[Evaluation, Evaluation], items: Sequence[Item], others: Sequence[Item]
) -> SuiteComparison:
    results = [_result(evaluation, name) for evaluation in pair]
    problem = _problem(name, pair, results)
    if problem:
        return SuiteComparison(suite=name, problem=problem)
    headline = next(result.headline for result in results if result)
    judged = [{item.index: item for item in side if item.error is None} for side in (items, others)]
    both = sorted(judged[0].keys() & judged[1].keys())
    one, two = ([side[index] for index in both] for side in judged)
    outcomes = [item.outcome for item in one], [item.outcome for item in two]
    solved = [[o.is_success for o in side] for side in outcomes]
    success = PairedModel.of(*solved)
    per_step = _per_step(*outcomes)
    return SuiteComparison(
        suite=name,
        headline=headline,
        n=len(both),
        unjudged=pair[0].order.n - len(both),
        success=success,
        by_iteration=[
            PairedModel.of(*([scoring.solved_within(o, i) for o in side] for side in outcomes))
            for i in range(1, min(evaluation.order.viter for evaluation in pair) + 1)
        ],
        per_step=per_step,
        won=[b.id for a, b in zip(one, two, strict=True) if b.success and not a.success][:MOST_NAMED],
        lost=[b.id for a, b in zip(one, two, strict=True) if a.success and not b.success][:MOST_NAMED],
        in_words=_per_step_in_words(pair, per_step) if headline == "per_step_accuracy" else _in_words(pair, success),
    )


def _result(evaluation: Evaluation, name: str) -> SuiteResult | None:
    return next((result for result in evaluation.results or () if result.suite == name), None)


def _problem(name: str, pair: tuple[Evaluation, Evaluation], results: Sequence[SuiteResult | None]) -> str | None:
    for evaluation in pair:
        if name not in evaluation.order.suites:
            return f"{evaluation.id} did not play {name}"
    for evaluation, result in zip(pair, results, strict=True):
        if result is None:
            return f"{evaluation.id} has no results of {name}: it is {evaluation.status.replace('_', ' ')}"
    one, two = results
    assert one is not None
    assert two is not None
    if pair[0].order.n != pair[1].order.n:
        return f"the first played {pair[0].order.n} tasks of {name} and the second {pair[1].order.n}; order the same n"
    if one.digest != two.digest:
        return f"the tasks of {name} have other digests, {one.digest[:12]} and {two.digest[:12]}: they are other tasks"
    return None


def _per_step(first: Sequence[scoring.Outcome], second: Sequence[scoring.Outcome]) -> PerStepModel:
    found = scoring.paired_per_step(first, second)
    return PerStepModel(
        first=RateModel.of(scoring.per_step_accuracy(first)),
        second=RateModel.of(scoring.per_step_accuracy(second)),
        difference=DifferenceModel.of(found) if found else None,
        is_beyond_chance=found is not None and found.is_significant,
    )


def _in_words(pair: tuple[Evaluation, Evaluation], found: PairedModel) -> str:
    counts = f"{found.won} tasks won and {found.lost} lost of {found.first.n}, p = {found.p_value:.2g}"
    return _sentence(pair, "success", found.difference, counts, is_beyond_chance=found.is_beyond_chance)


def _per_step_in_words(pair: tuple[Evaluation, Evaluation], found: PerStepModel) -> str:
    if found.difference is None:
        return "too few answers to compare"
    counts = f"{found.first.n} and {found.second.n} answers"
    return _sentence(pair, "per-step accuracy", found.difference, counts, is_beyond_chance=found.is_beyond_chance)


def _sentence(
    pair: tuple[Evaluation, Evaluation], rate: str, found: DifferenceModel, counts: str, *, is_beyond_chance: bool
) -> str:
    verdict = "beyond chance" if is_beyond_chance else "within chance"
    points = f"{100 * found.value:+.1f} points ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    return f"{rate} of {pair[1].model} against {pair[0].model}: {points}, {counts}: {verdict}"
