"""A step's episodes in equal shares for the learner ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An episode that is back: where it lies, and how long it is."""

    index: int
    tokens: int
    place: Any  # opaque to the ledger: where the episode can be read


def balanced(entries: Sequence[Entry], parts: int) -> list[list[Entry]]:
    """`entries` in `parts` shares of nearly equal tokens and of sizes that differ by at most one, each in order of index.

    Longest first, each to the share with the fewest tokens that still has a place. Depends on lengths and indices alone.
    """
    shares: list[list[Entry]] = [[] for _ in range(parts)]
    tokens = [0] * parts
    small, larger = divmod(len(entries), parts)
    places = [small + (part < larger) for part in range(parts)]
    for entry in sorted(entries, key=lambda e: (-e.tokens, e.index)):
        part = min((p for p in range(parts) if len(shares[p]) < places[p]), key=lambda p: (tokens[p], p))
        shares[part].append(entry)
        tokens[part] += entry.tokens
    return [sorted(share, key=lambda e: e.index) for share in shares]
