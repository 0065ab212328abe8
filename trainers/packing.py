"""Episodes and segments as rows of tokens: several segments in a row, each blind to the others.

    row 0   P P P A A F F B | P P A A A | . .      "|" segment ends, "." padding
    pos     0 1 2 3 4 5 6 7 | 0 1 2 3 4 | 0 1      positions that restart are what isolates a segment

Two kinds of position must not be confused. What concerns the policy stands at the token it *sampled*. What concerns
the critic stands at the last token it had *read*: one place earlier, the end of the prompt for a turn's first token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from envs.base import ConfigError, seed_of
from trainers.episode import Episode, Segment

Unit = Literal["turn", "token"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """The turns of a batch, by episode and in order within it.   T turns."""

    row: Tensor  # [T] int64
    start: Tensor  # [T] int64, first sampled token within the row
    stop: Tensor  # [T] int64, one past the last
    reward: Tensor  # [T] float32
    episode: Tensor  # [T] int64
    is_last: Tensor  # [T] bool, the last turn of its episode
    terminated: Tensor  # [T] bool, its episode terminated (else it was truncated)
    end: Tensor  # [T] int64, last token of its segment within the row: the state a truncated episode was cut in

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Packed rows, and what becomes known of their tokens on the way to the loss.   B rows, L tokens."""

    token_ids: Tensor  # [B, L] int64
    positions: Tensor  # [B, L] int64, from 0 in each segment, and in the padding
    is_token: Tensor  # [B, L] bool, False in the padding
    sampled: Tensor  # [B, L] bool, the policy drew the token (SFT: the token is trained)
    engine_logp: Tensor  # [B, L] float32, 0 where not sampled
    weight_versions: Tensor  # [B, L] int64, −1 where not sampled
    turn_ids: Tensor  # [B, L] int64 into `turns`, −1 outside
    logp_weights: Tensor  # [B, L] float32, weight of a token within its response's log-prob
    critic_reads: Tensor  # [B, L] bool, where a value is wanted: before each turn or token, and at cuts
    critic_learns: Tensor  # [B, L] bool, of those, where the value has a target
    turns: Turns
    pictures: tuple[tuple[np.ndarray, ...], ...]  # [H, W, 3] uint8 of each row, in order of their placeholders
    vision: Mapping[str, Tensor] = field(default_factory=dict)  # what the vision tower reads of them, once prepared
    old_logp: Tensor | None = None  # [B, L] float32, of the policy before the step's first update
    reference_logp: Tensor | None = None  # [B, L] float32, of the frozen starting policy
    values: Tensor | None = None  # [B, L] float32, where `critic_reads`
    advantages: Tensor | None = None  # [B, L] float32, where sampled
    returns: Tensor | None = None  # [B, L] float32, where `critic_learns`

    def __len__(self) -> int:
        return len(self.token_ids)

    def rows(self, index: Tensor) -> "Batch":
        """These rows. The table of turns stays whole: `turn_ids` keep their meaning."""
        chosen = {f.name: getattr(self, f.name)[index] for f in fields(self) if _is_rowwise(getattr(self, f.name))}
        return replace(self, **chosen, pictures=tuple(self.pictures[i] for i in index.tolist()))

    def scored(self, *, old_logp: Tensor, values: Tensor, reference_logp: Tensor | None) -> "Batch":
        """The batch with what a learner says of it."""
        return replace(self, old_logp=old_logp, values=values, reference_logp=reference_logp)

    def to(self, device: torch.device) -> "Batch":
        """The row tensors on `device`; the table of turns stays on the host."""
        if self.token_ids.device == device:
            return self
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if _is_rowwise(getattr(self, f.name))}
        return replace(self, **moved, vision={name: tensor.to(device) for name, tensor in self.vision.items()})

    def seen(self, inputs: Mapping[str, Tensor]) -> "Batch":
        """The batch with its pictures prepared for the vision tower (`Eyes.inputs`)."""
        return replace(self, vision=inputs)

    def with_blank(self, ids: Sequence[int], picture: np.ndarray) -> "Batch":
        """The batch with one more segment, of an image alone, behind its first row; nothing of it is learned or counted.

        Args:
            ids: the image's tokens.
        """
        more = {"token_ids": torch.zeros(len(self), len(ids), dtype=torch.int64)}
        more["token_ids"][0] = torch.tensor(ids)
        more["positions"] = torch.arange(len(ids)).expand(len(self), -1)
        more["turn_ids"] = more["weight_versions"] = torch.full_like(more["token_ids"], -1)
        widened = {
            f.name: torch.cat([value, more.get(f.name, torch.zeros_like(more["token_ids"])).to(value.dtype)], dim=1)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **widened, pictures=((picture,), *self.pictures[1:]))

    def shuffled(self, epochs: int, minibatches: int, seed: tuple[int, ...]) -> Iterator["Batch"]:
        """`epochs` × `minibatches` minibatches; each epoch deals every row out once, by the counters (seed, epoch)."""
        for epoch in range(epochs):
            generator = torch.Generator().manual_seed(seed_of(*seed, epoch))
            order = torch.randperm(len(self), generator=generator)
            for part in range(minibatches):
                yield self.rows(order[part::minibatches])


def known(field: Tensor | None) -> Tensor:
    """A field that scoring or estimating has filled."""
    assert field is not None, "the batch has not been scored"
    return field


def _is_rowwise(value: object) -> bool:
    return isinstance(value, Tensor)


def pack(episodes: Sequence[Episode], *, row_tokens: int, unit: Unit = "turn", rows_multiple: int = 1) -> Batch:
    """Episodes as rows of at most `row_tokens`, with the table of their turns.

    Rows are as many as first-fit-decreasing needs, rounded up to `rows_multiple` so that minibatches have equally many,
    and then balanced: L is the fullest row.

    Args:
        unit: time step of the critic: a value before each turn, or before each sampled token.
    Raises:
        ConfigError: a segment is longer than a row.
    """
    segments = [segment for episode in episodes for segment in episode.segments]
    places, rows, width = _place([len(s.token_ids) for s in segments], row_tokens, rows_multiple)
    batch = _empty(rows, width)
    table: dict[str, list[float]] = {f.name: [] for f in fields(Turns)}
    place = iter(zip(segments, places, strict=True))
    for number, episode in enumerate(episodes):
        for _ in episode.segments:
            segment, (row, offset) = next(place)
            _write(batch, segment, row, offset)
            for turn in segment.turns:
                batch["turn_ids"][row, offset + turn.start : offset + turn.stop] = len(table["row"])
                entry = (row, offset + turn.start, offset + turn.stop, turn.reward, number, False, episode.terminated)
                for name, value in zip(table, (*entry, offset + len(segment.token_ids) - 1), strict=True):
                    table[name].append(value)
        table["is_last"][-1:] = [True]
    turns = _turns(table)
    _mark_critic(batch, turns, unit)
    return _batch(batch, turns, _pictures(segments, places, rows))


def pack_segments(segments: Sequence[Segment], *, row_tokens: int) -> Batch:
    """Segments without rewards (SFT) as rows. As `pack`, with an empty table of turns and nothing for a critic."""
    places, rows, width = _place([len(s.token_ids) for s in segments], row_tokens, 1)
    batch = _empty(rows, width)
    for segment, (row, offset) in zip(segments, places, strict=True):
        _write(batch, segment, row, offset)
    return _batch(batch, _turns({f.name: [] for f in fields(Turns)}), _pictures(segments, places, rows))


def _place(lengths: Sequence[int], row_tokens: int, multiple: int) -> tuple[list[tuple[int, int]], int, int]:
    """(row, offset) of every segment, the number of rows, and their width. Depends on the lengths alone."""
    longest = max(lengths, default=1)
    if longest > row_tokens:
        raise ConfigError(
            f"learner.row_tokens: {row_tokens} is less than a segment of {longest} tokens; "
            f"set it to at least {longest}, or shorten the answers or the number of attempts"
        )
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])  # stable: equal lengths keep their order
    bins: list[int] = []
    first_fit: dict[int, tuple[int, int]] = {}
    for i in order:
        row = next((r for r, used in enumerate(bins) if used + lengths[i] <= row_tokens), len(bins))
        bins += [0] * (row == len(bins))
        first_fit[i] = (row, bins[row])
        bins[row] += lengths[i]
    rows = max(1, -(-len(bins) // multiple)) * multiple
    loads, balanced = [0] * rows, {}
    for i in order:  # the same segments into the emptiest row: fuller minima, a narrower batch
        row = min(range(rows), key=loads.__getitem__)
        balanced[i] = (row, loads[row])
        loads[row] += lengths[i]
    if max(loads) > row_tokens:  # rare: balancing needs more room than the tight fit
        balanced, loads = first_fit, bins
    return [balanced[i] for i in range(len(lengths))], rows, max(1, *loads)


def _pictures(
    segments: Sequence[Segment], places: Sequence[tuple[int, int]], rows: int
) -> tuple[tuple[np.ndarray, ...], ...]:
    """Each row's pictures in order of their placeholders: by the place of their segment, not by its number."""
    found: list[list[np.ndarray]] = [[] for _ in range(rows)]
    for (row, _), segment in sorted(zip(places, segments, strict=True), key=lambda pair: pair[0]):
        found[row] += segment.pictures
    return tuple(map(tuple, found))


def _empty(rows: int, width: int) -> dict[str, np.ndarray]:
    shape = (rows, width)
    return {
        "token_ids": np.zeros(shape, np.int64),
        "positions": np.zeros(shape, np.int64),
        "is_token": np.zeros(shape, bool),
        "sampled": np.zeros(shape, bool),
        "engine_logp": np.zeros(shape, np.float32),
        "weight_versions": np.full(shape, -1, np.int64),
        "turn_ids": np.full(shape, -1, np.int64),
        "logp_weights": np.ones(shape, np.float32),
        "critic_reads": np.zeros(shape, bool),
        "critic_learns": np.zeros(shape, bool),
    }


def _write(batch: dict[str, np.ndarray], segment: Segment, row: int, offset: int) -> None:
    """The segment into its place."""
    length = len(segment.token_ids)
    here = (row, slice(offset, offset + length))
    if segment.sampled[0]:
        raise ValueError("the first token of a segment cannot be sampled: nothing precedes it")
    batch["token_ids"][here] = segment.token_ids
    batch["positions"][here] = np.arange(length)
    batch["is_token"][here] = True
    batch["sampled"][here] = segment.sampled
    batch["engine_logp"][here] = segment.engine_logp
    batch["weight_versions"][here] = segment.weight_versions


def _batch(arrays: dict[str, np.ndarray], turns: Turns, pictures: tuple[tuple[np.ndarray, ...], ...]) -> Batch:
    """The finished batch. The padding of each row, always at its end, becomes a segment of its own."""
    for row, used in enumerate(arrays["is_token"].sum(1)):
        arrays["positions"][row, used:] = np.arange(arrays["positions"].shape[1] - used)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return Batch(**tensors, turns=turns, pictures=pictures)


def _turns(table: dict[str, list[float]]) -> Turns:
    dtypes = {"reward": torch.float32, "is_last": torch.bool, "terminated": torch.bool}
    return Turns(**{name: torch.tensor(column, dtype=dtypes.get(name, torch.int64)) for name, column in table.items()})


def _mark_critic(batch: dict[str, np.ndarray], turns: Turns, unit: Unit) -> None:
    """Before every turn (or token) a value with a target; at the end of a truncated episode a value without one."""
    if unit == "turn":
        batch["critic_learns"][turns.row.numpy(), turns.start.numpy() - 1] = True
    else:
        batch["critic_learns"][:, :-1] = batch["sampled"][:, 1:]
    cut = (turns.is_last & ~turns.terminated).numpy()
    batch["critic_reads"][:] = batch["critic_learns"]
    batch["critic_reads"][turns.row.numpy()[cut], turns.end.numpy()[cut]] = True
