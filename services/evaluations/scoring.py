"""What episodes say about a policy: rates with their intervals. Pure arithmetic; knows neither Ray nor HTTP."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share with its 95 % Wilson interval: k of n."""

    k: int
    n: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`second` minus `first`, with a 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_significant(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """The same tasks played by two policies, by McNemar's exact test."""

    won: int  # tasks only the second solved
    lost: int  # tasks only the first solved
    p_value: float  # two-sided, under the hypothesis that a change is as likely one way as the other


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What scoring needs to know of one episode: at each position it reached, which attempts were judged correct.

    A route whose first turn was found at the second attempt and whose second turn at once, then arrival:
        is_success=True, attempts=((False, True), (True,), (True,))
    A task of a single prompt has one position: ((False, False, True),). Verifier failures are not outcomes.
    """

    is_success: bool
    attempts: tuple[tuple[bool, ...], ...]  # by position, then by attempt; a position has at least one
    recognised: tuple[bool, ...] = ()  # what was asked of reading: one entry for each position that showed something


def wilson(k: int, n: int, z: float = Z95) -> Rate:
    """k successes of n with the score interval of Wilson 1927. Without data the interval is everything.

    centre = (p + z²/2n) / (1 + z²/n)      half = z/(1 + z²/n) · √(p(1−p)/n + z²/4n²)
    """
    assert 0 <= k <= n
    if n == 0:
        return Rate(k=0, n=0, rate=0.0, low=0.0, high=1.0)
    p, scale = k / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return Rate(k=k, n=n, rate=p, low=low, high=high)


def success(outcomes: Sequence[Outcome]) -> Rate:
    """Episodes solved within their attempts."""
    return wilson(sum(o.is_success for o in outcomes), len(outcomes))


def success_by_iteration(outcomes: Sequence[Outcome], viter: int) -> list[Rate]:
    """Episodes solved with at most 1, 2, … `viter` judged answers at every position.

    An episode counts where it needed the most: it never falls, and the last one is `success`.
    """
    needed = [max(map(_needed, o.attempts), default=math.inf) if o.is_success else math.inf for o in outcomes]
    return [wilson(sum(n <= i for n in needed), len(outcomes)) for i in range(1, viter + 1)]


def first_attempt(outcomes: Sequence[Outcome]) -> Rate:
    """Episodes solved with every first answer correct."""
    return wilson(sum(o.is_success and all(a[0] for a in o.attempts) for o in outcomes), len(outcomes))


def per_step_accuracy(outcomes: Sequence[Outcome]) -> Rate:
    """Judged answers that are correct, over all turns of all episodes: each revision is an answer of its own.

    The interval takes answers for independent. Those of one episode are not quite, so it is narrower than it should be.
    """
    answers = [is_correct for o in outcomes for attempts in o.attempts for is_correct in attempts]
    return wilson(sum(answers), len(answers))


def first_answers(outcomes: Sequence[Outcome]) -> Rate:
    """Positions whose first answer is correct, of all positions that were reached."""
    firsts = [attempts[0] for o in outcomes for attempts in o.attempts]
    return wilson(sum(firsts), len(firsts))


def regressions(outcomes: Sequence[Outcome]) -> Rate:
    """Unsolved episodes that took a correct answer back; 0 wherever a correct answer ends its position."""
    given_up = [not o.is_success and any(True in attempts[:-1] for attempts in o.attempts) for o in outcomes]
    return wilson(sum(given_up), len(outcomes))


def recognition(outcomes: Sequence[Outcome]) -> Rate | None:
    """First answers at a position that read rightly what it showed; None where nothing was to be read."""
    readings = [is_right for o in outcomes for is_right in o.recognised]
    return wilson(sum(readings), len(readings)) if readings else None


def difference(first: Rate, second: Rate) -> Difference:
    """`second` − `first` of two independent samples, with the hybrid score interval of Newcombe 1998 (method 10).

    low  = d − √((p₂ − l₂)² + (u₁ − p₁)²)      high = d + √((u₂ − p₂)² + (p₁ − l₁)²)
    """
    value = second.rate - first.rate
    below = math.hypot(second.rate - second.low, first.high - first.rate)
    above = math.hypot(second.high - second.rate, first.rate - first.low)
    return Difference(value=value, low=value - below, high=value + above)


def generalisation_gap(id_rate: Rate, ood_rate: Rate) -> Difference:
    """What is lost out of distribution: ID − OOD."""
    return difference(ood_rate, id_rate)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> PairedTest:
    """Whether two policies differ on the same tasks: the exact binomial test on the tasks where they disagree.

    p = 2 · Σ_{i ≤ min(won, lost)} C(won + lost, i) / 2^(won + lost), at most 1
    """
    pairs = list(zip(first, second, strict=True))
    won = sum(b and not a for a, b in pairs)
    lost = sum(a and not b for a, b in pairs)
    tail = sum(math.comb(won + lost, i) for i in range(min(won, lost) + 1))
    return PairedTest(won=won, lost=lost, p_value=min(1.0, 2 * tail / 2 ** (won + lost)))


def _needed(attempts: tuple[bool, ...]) -> float:
    """Judged answers until the first correct one."""
    return attempts.index(True) + 1 if True in attempts else math.inf
