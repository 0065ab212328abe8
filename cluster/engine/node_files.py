"""Parcels as files in the node's shared memory: written once per node, mapped by every engine on it. No vLLM here.

A parcel's file is named by its digest. Who reads one holds a shared lock on it. A file nobody reads is recycled for
the next parcel, so its pages are overwritten instead of being freed and faulted in again. Where the next parcel comes as
a delta and nobody reads its base, only what changed is overwritten.

Nothing here proves what a file holds: a reader compares its digest with the announced one, whichever way it was made.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cluster.engine.reply import WeightsRefused
from cluster.weight_delta import WeightDelta
from cluster.weights import TensorPlace, WeightParcel, parcel_digest, typed
from envs.base import DataError, ViterError

if TYPE_CHECKING:
    import torch

_IOV_MAX = 512  # buffers per system call; Linux allows 1024


class BaseMissing(ViterError):
    """A delta came to a node that does not hold the parcel it starts from, or not all of it."""


class NodeFiles:
    """One node's parcel files. Any number of processes may use the same directory."""

    def __init__(self, directory: Path | None = None):
        self._directory = directory or _shared_memory() / f"viter-weights-{os.getuid()}"

    @contextmanager
    def holding(self, weights: WeightParcel | WeightDelta) -> Iterator[Path]:
        """The file with the parcel's bytes; it stays as it is until the block ends. Blocks while it is written.

        A block that raises WeightsRefused has found other bytes in it: it is forgotten, and whoever wants the parcel
        next writes it again.

        Raises:
            DataError: shared memory is full.
            BaseMissing: only a delta's base would do, and it is not here.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        with self._alone():
            path = self._directory / weights.digest
            if not path.exists():
                self._write(weights, path)
            reader = os.open(path, os.O_RDONLY)
            fcntl.flock(reader, fcntl.LOCK_SH)
        try:
            yield path
        except WeightsRefused:
            self._forget(path, reader)
            raise
        finally:
            os.close(reader)

    def has(self, digest: str) -> bool:
        """Whether the parcel lies here now. Another process may recycle its file at any moment."""
        return (self._directory / digest).exists()

    def close(self) -> None:
        """Remove every file that nobody reads."""
        if not self._directory.is_dir():
            return
        with self._alone():
            for path in self._parcels():
                if _is_unread(path):
                    path.unlink()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the node's lock, under which files appear, are recycled and vanish."""
        lock = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _forget(self, path: Path, reader: int) -> None:
        """Unlink the file that `reader` has open, unless another process has put a better one in its place."""
        with self._alone():
            if path.exists() and os.path.samestat(path.stat(), os.fstat(reader)):
                path.unlink()

    def _write(self, weights: WeightParcel | WeightDelta, path: Path) -> None:
        draft = self._directory / ".draft"
        try:
            if isinstance(weights, WeightDelta):
                self._patch(weights, draft)
            else:
                self._recycle(draft)
                _fill(draft, weights.buffers)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise DataError(
                f"{self._directory}: {_size(weights.index) / 2**20:,.0f} MiB of weights could not be written "
                f"({error.strerror}); give the node's shared memory more room"
            ) from None
        draft.rename(path)

    def _patch(self, delta: WeightDelta, draft: Path) -> None:
        """The base's own file, patched, if nobody reads it; else a copy, patched. Cut off on the way, it is a draft."""
        base = self._directory / delta.base
        if not base.exists():
            raise BaseMissing(f"{self._directory}: the parcel {delta.base[:12]} is not on this node")
        if _is_unread(base):
            base.rename(draft)
        else:
            self._recycle(draft)
            _fill(draft, [_mapped(base)])
        try:
            data = np.memmap(draft, dtype=np.uint8, mode="r+")
            delta.patch(data[: len(data) // 2 * 2].view(np.uint16))
        except ValueError as error:
            raise BaseMissing(f"{self._directory}: the parcel {delta.base[:12]} is cut short ({error})") from None

    def _recycle(self, draft: Path) -> None:
        """Begin with the pages of a file that nobody reads, if there is one."""
        if spare := next((old for old in self._parcels() if _is_unread(old)), None):
            spare.rename(draft)

    def _parcels(self) -> list[Path]:
        return [path for path in self._directory.iterdir() if not path.name.startswith(".")]


def _fill(path: Path, buffers: Sequence[np.ndarray]) -> None:
    """Write by system calls, not through a mapping: a fresh page costs no fault and a recycled one no allocation."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(file, sum(buffer.nbytes for buffer in buffers))
        waiting = [buffer.data for buffer in buffers if buffer.nbytes]
        offset = 0
        while waiting:
            written = os.pwritev(file, waiting[:_IOV_MAX], offset)
            offset += written
            waiting = _after(waiting, written)
    finally:
        os.close(file)


def _after(waiting: list[memoryview], written: int) -> list[memoryview]:
    """What is left of `waiting` once its first `written` bytes are gone."""
    done = 0
    while done < len(waiting) and written >= waiting[done].nbytes:
        written -= waiting[done].nbytes
        done += 1
    left = waiting[done:]
    if written:
        left[0] = left[0][written:]
    return left


def _is_unread(path: Path) -> bool:
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(file)


def _shared_memory() -> Path:
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def _size(index: Sequence[TensorPlace]) -> int:
    """Bytes up to the end of the last tensor."""
    return max((place.offset + place.size_bytes for place in index), default=0)


def _mapped(path: Path) -> np.ndarray:
    """[size] uint8, read-only."""
    return np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)


@dataclass(frozen=True, slots=True)
class MappedParcel:
    """A parcel's file, mapped: tensors that are views of it, and whether they are what was sent."""

    index: Sequence[TensorPlace]
    data: np.ndarray  # [size_bytes] uint8, read-only

    @classmethod
    def open(cls, path: Path, index: Sequence[TensorPlace]) -> "MappedParcel":
        """Raises ValueError if the file is cut short."""
        found, expected = path.stat().st_size, _size(index)
        if found < expected:
            raise ValueError(f"the weights hold {found} bytes, their index speaks of {expected}")
        return cls(index, _mapped(path))

    def verify(self, digest: str) -> None:
        """Raises ValueError unless bytes and index are those of `digest`."""
        if (found := parcel_digest(self.index, [self.data])) != digest:
            raise ValueError(f"the weights have digest {found[:12]}, announced was {digest[:12]}")

    def tensors(self) -> "list[tuple[str, torch.Tensor]]":
        """Name and view of every tensor."""
        return [
            (place.name, typed(self.data[place.offset : place.offset + place.size_bytes], place))
            for place in self.index
        ]
