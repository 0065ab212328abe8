"""Weights on their way: the sending side. A parcel of tensors with a digest, made once and put into the object store.

    learner.weights() ─► pack_weights ─► WeightSender ─► (every worker) ─► node file ─► engine, which verifies the digest
                              │           parcel, delta    one of the two                  ▲
                              └────────► Broadcaster ──────── NCCL or gloo ────────────────┘

The buffers are plain uint8 arrays, so pickle 5 carries them out of band: the store holds the bytes once, and a reader
maps them without a copy. A parcel that no node fetches never leaves the learner's.
"""

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

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
    broadcast: "WeightBroadcast | None" = None  # by which the engines it names get the parcel while it is published


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """Where a learner and engines meet to form a group. The same name means the group that was formed before."""

    name: str
    address: str
    port: int
    size: int  # members, the learner's among them
    ranks: dict[str, int]  # rollout worker → rank of its engine's first process; the learner has 0
    deadline_s: float  # of the meeting, and of one broadcast


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBroadcast:
    """The parcel of this digest, about to be sent through a channel, tensor after tensor as the index says."""

    version: int
    digest: str
    index: tuple[TensorPlace, ...]
    channel: Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """How a version of the weights came to a worker."""

    by: Literal["broadcast", "delta", "parcel"]
    failure: str = ""  # why the first of them did not lead there, where one was tried and the parcel had to be fetched


def pack_weights(weights: "Iterable[tuple[str, torch.Tensor]]", *, version: int) -> WeightParcel:
    """The parcel of named tensors. Host tensors are taken as they lie: do not change them until it is sent."""
    places: list[TensorPlace] = []
    buffers: list[np.ndarray] = []
    offset = 0
    for name, tensor in weights:
        data = as_bytes(tensor)
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


def tensors_of(parcel: WeightParcel) -> "Iterator[tuple[str, torch.Tensor]]":
    """Name and view of every tensor, in the order of the index."""
    places = iter(parcel.index)
    place = next(places, None)
    offset = 0
    for buffer in parcel.buffers:
        if place is not None and (offset, buffer.nbytes) == (place.offset, place.size_bytes):
            yield place.name, typed(buffer, place)
            place = next(places, None)
        offset += buffer.nbytes


def typed(data: np.ndarray, place: TensorPlace) -> "torch.Tensor":
    """The tensor of a place, as a view of its bytes."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch knows no read-only tensors; nobody writes to these
        flat = torch.from_numpy(data)
    return flat.view(getattr(torch, place.dtype)).view(place.shape)


def parcel_digest(index: Sequence[TensorPlace], buffers: Iterable[np.ndarray]) -> str:
    """blake3 over the index, then over the bytes, however they are cut into buffers."""
    hasher = _hasher(index)
    for buffer in buffers:
        hasher.update(buffer.data)
    return hasher.hexdigest()


class ParcelWitness:
    """Computes a parcel's digest while its tensors pass by, in the order of the index."""

    def __init__(self, index: Sequence[TensorPlace]) -> None:
        self._hasher = _hasher(index)
        self._places = iter(index)
        self._hashed = 0  # bytes

    def see(self, name: str, tensor: "torch.Tensor") -> None:
        """Raises ValueError for a tensor that the index does not name next."""
        place = next(self._places, None)
        data = as_bytes(tensor)
        if place is None or (place.name, place.size_bytes) != (name, data.nbytes):
            raise ValueError(f"the weights bring {name} of {data.nbytes} bytes where the index has {place}")
        self._hasher.update(bytes(place.offset - self._hashed))
        self._hasher.update(data.data)
        self._hashed = place.offset + data.nbytes

    def verify(self, digest: str) -> None:
        """Raises ValueError unless what was seen is the parcel of `digest`."""
        self._hasher.update(bytes(-self._hashed % ALIGNMENT))
        if (found := self._hasher.hexdigest()) != digest:
            raise ValueError(f"the weights have digest {found[:12]}, announced was {digest[:12]}")


def _hasher(index: Sequence[TensorPlace]) -> Any:
    import blake3

    hasher = blake3.blake3(max_threads=blake3.blake3.AUTO)
    hasher.update(json.dumps([[p.name, p.dtype, p.shape, p.offset, p.size_bytes] for p in index]).encode())
    return hasher


def as_bytes(tensor: "torch.Tensor") -> np.ndarray:
    """[bytes] uint8 of a tensor: a view, where it lies in one piece on the host."""
    import torch

    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
