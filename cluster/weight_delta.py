"""What changed between two parcels of weights: which of their 16-bit words, and what they are now. Pure NumPy.

In bfloat16, at the learning rates of reinforcement learning, a step moves few weights far enough to change their bits; in
float32 Adam moves nearly all. The words are compared as integers, so every type is treated alike and a NaN is a pattern
of bits like any other.

    parcel   a b c d e f g h ...           the words of all tensors, end to end
    new      a b X d e f Y h ...
    delta    gaps  2, 3, ...    unchanged words before each entry, in 0..255
             words X, Y, ...    one more entry at least every 256 words, changed or not, so that a byte holds each gap
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.weights import TensorPlace, WeightParcel

SHARE = 0.5
"""A delta is made if it has at most this share of the parcel's bytes: in bfloat16, while up to 33 % of the weights change.

Making one reads both parcels (0.5 s/GB on one core), about the time in which a link of 10 Gbit/s carries the half that is
spared; several nodes behind the learner's link, a slower one, or fewer changes gain.
"""

WORD_BYTES = 2
ENTRY_BYTES = 1 + WORD_BYTES  # a gap and a word
ANCHOR = 256  # words from one certain entry to the next: the most that a uint8 gap can step
PIECE = 2**17  # words compared, or entries patched, at a time: what is made of them stays in a core's cache
SAMPLED = 16  # one piece in so many is looked at first: where nearly all changes, as in float32, nothing more is spent

Pieces = Sequence[tuple[np.ndarray, np.ndarray]]
"""The same words of two parcels, before and after: [≤ PIECE] uint16 each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDelta:
    """A parcel, told as what sets it apart from another with the same index."""

    version: int
    digest: str  # of the parcel that patching leads to
    base: str  # digest of the parcel to patch
    index: tuple[TensorPlace, ...]  # of both
    gaps: np.ndarray  # [K] uint8, words between an entry and the one before
    words: np.ndarray  # [K] uint16

    @property
    def size_bytes(self) -> int:
        return self.gaps.nbytes + self.words.nbytes

    def patch(self, parcel: np.ndarray) -> None:
        """Turn the base into the parcel that `digest` names, in place.

        Args:
            parcel: [W] uint16, all words of the base.
        Raises:
            ValueError: it has another number of words; it is as it was.
        """
        told = int(self.gaps.sum(dtype=np.int64)) + len(self.gaps)  # the last word of a parcel has an entry
        if told != len(parcel):
            raise ValueError(f"the delta speaks of {told} words, its base has {len(parcel)}")
        before = -1
        for start in range(0, len(self.gaps), PIECE):
            places = np.cumsum(self.gaps[start : start + PIECE] + np.int64(1)) + before
            parcel[places] = self.words[start : start + PIECE]
            before = places[-1]


def delta_between(base: WeightParcel, new: WeightParcel, *, share: float = SHARE) -> WeightDelta | None:
    """What turns `base` into `new`; None where it would have more than `share` of the bytes of `new`.

    Needs no memory beside the parcels but the result, at most `share` of one, and a few pieces. Tensors that have other
    names, types or places than before, or an odd number of bytes, have no delta.
    """
    if base.index != new.index or any(buffer.nbytes % WORD_BYTES for buffer in new.buffers):
        return None
    pieces = _pieces(base, new)
    room = int(new.size_bytes * share) // ENTRY_BYTES
    if _changed(pieces[::SAMPLED]) * ENTRY_BYTES > share * WORD_BYTES:
        return None
    gaps, words = np.empty(room, np.uint8), np.empty(room, np.uint16)  # pages that nobody writes to cost nothing
    filled = 0
    for old_words, new_words in pieces:
        piece_gaps, piece_words = _entries(old_words, new_words)
        end = filled + len(piece_gaps)
        if end > room:
            return None
        gaps[filled:end], words[filled:end] = piece_gaps, piece_words
        filled = end
    return WeightDelta(
        version=new.version, digest=new.digest, base=base.digest, index=new.index,
        gaps=gaps[:filled], words=words[:filled],
    )  # fmt: skip


def _pieces(base: WeightParcel, new: WeightParcel) -> Pieces:
    return [
        (old_words[start : start + PIECE], new_words[start : start + PIECE])
        for old_buffer, new_buffer in zip(base.buffers, new.buffers, strict=True)
        for old_words, new_words in ((old_buffer.view(np.uint16), new_buffer.view(np.uint16)),)
        for start in range(0, len(new_words), PIECE)
    ]


def _changed(pieces: Pieces) -> float:
    """Share of their words that differ, in 0…1."""
    words = sum(len(new) for _, new in pieces)
    return sum(int(np.count_nonzero(old != new)) for old, new in pieces) / max(1, words)


def _entries(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaps and words of one piece. Its last word always has an entry: the next piece's gaps start there."""
    has_entry = old != new
    has_entry[ANCHOR - 1 :: ANCHOR] = True
    has_entry[-1] = True
    places = np.flatnonzero(has_entry)
    gaps = np.diff(places, prepend=-1) - 1
    return gaps.astype(np.uint8), new[places]
