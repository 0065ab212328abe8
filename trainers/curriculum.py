"""Verification iterations over the steps of PPO: one number throughout, or a curriculum that changes it.

    5                            5 at every step
    [[0, 1], [6, 3], [12, 5]]    1 at first, 3 once 6 steps are done, 5 once 12 are

A step alone says how many its episodes have, so neither workers nor arrival nor a resumption change them. Pure; no torch.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

Iterations = int | tuple[tuple[int, int], ...]
"""A number, or pairs of (steps done before, iterations from there on), ascending from 0."""

ALLOWED = "allowed are a whole number from 1 on, or pairs [steps done, iterations] as in [[0, 1], [6, 3]]"


def parsed(value: Any, *, steps: int | None) -> Iterations:
    """What a person wrote as `value`; one pair alone is a number.

    Args:
        steps: of the stage, which every change must come before; None where they are not known.
    Raises:
        ValueError: what is wrong, without the value itself.
    """
    if _is_whole(value):
        if value < 1:
            raise ValueError("at least 1 verification iteration is needed")
        return int(value)
    if not isinstance(value, list | tuple) or not all(map(_is_pair, value)):
        raise ValueError(ALLOWED)
    pairs = _ordered(tuple((start, count) for start, count in value), steps)
    return pairs if len(pairs) > 1 else pairs[0][1]


def at(viter: Iterations, step: int) -> int:
    """Verification iterations of the episodes of `step`, from 0."""
    if isinstance(viter, int):
        return viter
    return [count for start, count in viter if start <= step][-1]


def most(viter: Iterations) -> int:
    """The largest number there is: what rows, contexts and memory must have room for."""
    return viter if isinstance(viter, int) else max(count for _, count in viter)


def spans(viter: Iterations, steps: int) -> list[tuple[int, int]]:
    """(iterations, for how many steps) in order, over `steps` in all."""
    if isinstance(viter, int):
        return [(viter, steps)]
    ends = [start for start, _ in viter[1:]] + [steps]
    return [(count, end - start) for (start, count), end in zip(viter, ends, strict=True)]


def in_words(viter: Iterations) -> str:
    """`1 at first, 3 after 6 steps, 5 after 12 steps`, or the number alone."""
    if isinstance(viter, int):
        return str(viter)
    (_, first), *later = viter
    return ", ".join(
        [f"{first} at first", *(f"{count} after {start} step{'s' if start > 1 else ''}" for start, count in later)]
    )


def _ordered(pairs: tuple[tuple[int, int], ...], steps: int | None) -> tuple[tuple[int, int], ...]:
    if not pairs:
        raise ValueError(f"a curriculum has at least one pair; {ALLOWED}")
    starts = [start for start, _ in pairs]
    if starts[0] != 0:
        raise ValueError(f"a curriculum starts at step 0, this one at {starts[0]}")
    if (late := _falls(starts)) is not None:
        raise ValueError(f"step {late} stands behind one that is not before it; the steps of a curriculum rise")
    if steps is not None and starts[-1] >= steps:
        raise ValueError(f"step {starts[-1]} is never reached: ppo.steps={steps}, so {steps - 1} is the last")
    if (fewest := min(count for _, count in pairs)) < 1:
        raise ValueError(f"{fewest} iterations cannot be; at least 1 is needed at every step")
    return pairs


def _falls(starts: Sequence[int]) -> int | None:
    return next((later for before, later in pairwise(starts) if later <= before), None)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_whole, value))
