"""Weights on their way: the sending side. A parcel of tensors with a digest, made once and put into the object store.

    learner.weights() ─► pack_weights ─► WeightSender ─► (every worker) ─► node file ─► engine, which verifies the digest
                                          parcel, delta    one of the two

The buffers are plain uint8 arrays, so pickle 5 carries them out of band: the store holds the bytes once, and a reader
maps them without a copy. A parcel that no node fetches never leaves the learner's.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

ALIGNMENT = 64  # bytes; tensors mapped from a parcel start on a cache line


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPlace:
    """Where one tensor lies in the parcel's bytes."""

    name: str
    dtype: str  # torch's word: "bfloat16", "float32"
    shape: tuple[int, ...]
    offset: int  # bytes
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightParcel:
    """All weights of one version."""

    version: int
    digest: str  # blake3 of the index and the bytes: `parcel_digest`
    index: tuple[TensorPlace, ...]
    buffers: tuple[np.ndarray, ...]  # uint8, contiguous; end to end they are the bytes that `index` speaks of

    @property
    def size_bytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One version of the weights as it is handed around: references, so that a worker fetches only what it needs."""

    parcel: Any  # to the WeightParcel
    delta: Any = None  # to the WeightDelta that makes the same parcel of an earlier one, if there is one
    base: str = ""  # digest of that earlier parcel
    size_bytes: int  # of the delta, or of the parcel where there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """How a version of the weights came to a worker."""

    by_delta: bool
    failure: str = ""  # why a delta did not lead there, where one was tried and the parcel had to be fetched


def pack_weights(weights: "Iterable[tuple[str, torch.Tensor]]", *, version: int) -> WeightParcel:
    """The parcel of named tensors. Host tensors are taken as they lie: do not change them until it is sent."""
    places: list[TensorPlace] = []
    buffers: list[np.ndarray] = []
    offset = 0
    for name, tensor in weights:
        data = _as_bytes(tensor)
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = tuple(tensor.shape)
        places.append(TensorPlace(name=name, dtype=dtype, shape=shape, offset=offset, size_bytes=data.nbytes))
        buffers.append(data)
        offset += data.nbytes
        if gap := -offset % ALIGNMENT:
            buffers.append(np.zeros(gap, np.uint8))
            offset += gap
    index = tuple(places)
    return WeightParcel(version=version, digest=parcel_digest(index, buffers), index=index, buffers=tuple(buffers))


def parcel_digest(index: Sequence[TensorPlace], buffers: Iterable[np.ndarray]) -> str:
    """blake3 over the index, then over the bytes, however they are cut into buffers."""
    import blake3

    hasher = blake3.blake3(max_threads=blake3.blake3.AUTO)
    hasher.update(json.dumps([[p.name, p.dtype, p.shape, p.offset, p.size_bytes] for p in index]).encode())
    for buffer in buffers:
        hasher.update(buffer.data)
    return hasher.hexdigest()


def _as_bytes(tensor: "torch.Tensor") -> np.ndarray:
    import torch

    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
