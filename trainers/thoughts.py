"""Where a response stops thinking and starts to answer: the original code weighs log-probs by it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from trainers.packing import Batch

KEYS = ('"formula":', '"action":')
FALLBACK_TOKENS = 4  # without a key the original takes the last four tokens for the answer


def thought_weighted(batch: Batch, decode: Callable[[Sequence[int]], str], *, weight: float) -> Batch:
    """The batch with `weight` on the log-probs before each response's answer key, and 1 from the key on."""
    weights = batch.logp_weights.clone()
    turns = batch.turns
    for row, start, stop in zip(turns.row.tolist(), turns.start.tolist(), turns.stop.tolist(), strict=True):
        weights[row, start : start + answer_start(batch.token_ids[row, start:stop].tolist(), decode)] = weight
    return replace(batch, logp_weights=weights)


def answer_start(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> int:
    """Index of the token that the answer's key begins in."""
    text = decode(ids)
    found = [place for place in map(text.rfind, KEYS) if place >= 0]
    if not found:
        return max(0, len(ids) - FALLBACK_TOKENS)
    low, high = 0, len(ids)  # the longest prefix whose text ends at or before the key
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(decode(ids[:middle])) <= max(found) else (low, middle - 1)
    return low
