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
    return [wilson(sum(solved_within(o, i) for o in outcomes), len(outcomes)) for i in range(1, viter + 1)]


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


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> Difference:
    """`second` − `first` over the same tasks: the score interval for paired proportions of Newcombe 1998, method 10.

    With a tasks solved by both, b by the second alone, c by the first alone, d by none, n in all:

    low  = D − √((p₂ − l₂)² − 2φ(p₂ − l₂)(u₁ − p₁) + (u₁ − p₁)²)
    high = D + √((u₂ − p₂)² − 2φ(u₂ − p₂)(p₁ − l₁) + (p₁ − l₁)²)
    φ    = (ad − bc) / √((a+b)(c+d)(a+c)(b+d)), a positive numerator less n/2 and never below 0

    Improved confidence intervals for the difference between binomial proportions based on paired data, Statistics in
    Medicine 17, 2635-2650. Without tasks the interval is everything.
    """
    pairs = list(zip(first, second, strict=True))
    n = len(pairs)
    if n == 0:
        return Difference(value=0.0, low=-1.0, high=1.0)
    a, d = sum(x and y for x, y in pairs), sum(not x and not y for x, y in pairs)
    b, c = sum(y and not x for x, y in pairs), sum(x and not y for x, y in pairs)
    one, two = wilson(a + c, n), wilson(a + b, n)
    raw = a * d - b * c
    agreement = raw if raw < 0 else max(raw - n / 2, 0.0)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    phi = agreement / math.sqrt(margins) if margins else 0.0
    value = (b - c) / n
    low = value - _joined(two.rate - two.low, one.high - one.rate, phi)
    high = value + _joined(two.high - two.rate, one.rate - one.low, phi)
    return Difference(value=value, low=max(-1.0, low), high=min(1.0, high))


def paired_per_step(first: Sequence[Outcome], second: Sequence[Outcome]) -> Difference | None:
    """Per-step accuracy, `second` − `first`, over the same tasks; None with fewer than two tasks or without an answer.

    Answers of one task belong together, and so do both policies' answers to it: the interval is the normal one of a
    difference of two ratio estimates with tasks as the sampled units (Cochran 1977, Sampling Techniques, 6.13).
    """
    counts = [[(sum(map(sum, o.attempts)), sum(map(len, o.attempts))) for o in side] for side in (first, second)]
    answers = [sum(n for _, n in side) for side in counts]
    tasks = len(first)
    if tasks < 2 or 0 in answers:
        return None
    rates = [sum(k for k, _ in side) / total for side, total in zip(counts, answers, strict=True)]
    pulls = [
        [tasks * (k - rate * n) / total for k, n in side]
        for side, rate, total in zip(counts, rates, answers, strict=True)
    ]
    spread = sum((two - one) ** 2 for one, two in zip(*pulls, strict=True)) / (tasks * (tasks - 1))
    value, half = rates[1] - rates[0], Z95 * math.sqrt(spread)
    return Difference(value=value, low=max(-1.0, value - half), high=min(1.0, value + half))


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


def solved_within(outcome: Outcome, attempts: int) -> bool:
    """Whether the episode was solved with at most so many judged answers at every position."""
    return outcome.is_success and max(map(_needed, outcome.attempts), default=math.inf) <= attempts


def _joined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))  # rounding may fall below 0


def _needed(attempts: tuple[bool, ...]) -> float:
    """Judged answers until the first correct one."""
    return attempts.index(True) + 1 if True in attempts else math.inf
