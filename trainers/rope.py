"""Positions of packed rows, for models that count along one axis and for those that count along three (M-RoPE).

A Qwen-VL model turns the place of an image's patch into time, height and width. transformers computes that for one
sequence; here each segment of a packed row is one, so that it gets the positions it would have had alone.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from trainers.packing import Batch


def positions(model: Any, batch: Batch, shape: tuple[int, int]) -> Tensor:
    """What the model takes as `position_ids` for the batch, laid out as `shape` (rows, tokens).

    Returns:
        [rows, tokens], or [4, rows, tokens] for M-RoPE: the plain positions, which tell segments apart, then the three axes.
    """
    plain = batch.positions.view(shape)
    body = getattr(model, "model", None)
    if not hasattr(body, "get_rope_index"):
        return plain
    grids = iter(batch.vision.get("image_grid_thw", ()))
    axes = torch.cat([_axes(body, ids, grids) for ids in _segments(batch)], dim=1).view(3, *shape)
    return torch.cat([plain[None], axes])


def _segments(batch: Batch) -> Iterator[Tensor]:
    """The ids of every segment, padding included, in order."""
    ids, starts = batch.token_ids.flatten(), (batch.positions.flatten() == 0).nonzero().flatten().tolist()
    for start, stop in pairwise([*starts, len(ids)]):
        yield ids[start:stop]


def _axes(body: Any, ids: Tensor, grids: Iterator[Tensor]) -> Tensor:
    """[3, tokens] positions of one segment. Takes the grids of its images from `grids`."""
    is_patch = ids == body.config.image_token_id
    images = int((is_patch[1:] & ~is_patch[:-1]).sum()) + int(is_patch[0])
    if not images:
        return torch.arange(len(ids), device=ids.device).expand(3, -1)
    own = torch.stack([next(grids) for _ in range(images)])
    found, _ = body.get_rope_index(ids[None], mm_token_type_ids=is_patch[None].int(), image_grid_thw=own)
    return found[:, 0]
