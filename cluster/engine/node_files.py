"""Parcels as files in the node's shared memory: written once per node, mapped by every engine on it. No vLLM here.

A parcel's file is named by its digest. Who reads one holds a shared lock on it. A file nobody reads is recycled for
the next parcel, so its pages are overwritten instead of being freed and faulted in again.
"""

import fcntl
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cluster.weights import TensorPlace, WeightParcel, parcel_digest
from envs.base import DataError

if TYPE_CHECKING:
    import torch

_IOV_MAX = 512  # buffers per system call; Linux allows 1024


class NodeFiles:
    """One node's parcel files. Any number of processes may use the same directory."""

    def __init__(self, directory: Path | None = None):
        self._directory = directory or _shared_memory() / f"viter-weights-{os.getuid()}"

    @contextmanager
    def holding(self, parcel: WeightParcel) -> Iterator[Path]:
        """The file with the parcel's bytes; it stays as it is until the block ends. Blocks while it is written.

        Raises:
            DataError: shared memory is full.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        with self._alone():
            path = self._directory / parcel.digest
            if not path.exists():
                self._write(parcel, path)
            reader = os.open(path, os.O_RDONLY)
            fcntl.flock(reader, fcntl.LOCK_SH)
        try:
            yield path
        finally:
            os.close(reader)

    def discard(self, parcel: WeightParcel) -> None:
        """Forget a file that turned out not to hold what it should; the next one to want it writes it again."""
        (self._directory / parcel.digest).unlink(missing_ok=True)

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

    def _write(self, parcel: WeightParcel, path: Path) -> None:
        spare = next((old for old in self._parcels() if _is_unread(old)), None)
        draft = self._directory / ".draft"
        if spare:
            spare.rename(draft)
        try:
            _fill(draft, parcel)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise DataError(
                f"{self._directory}: {parcel.size_bytes / 2**20:,.0f} MiB of weights could not be written "
                f"({error.strerror}); give the node's shared memory more room"
            ) from None
        draft.rename(path)

    def _parcels(self) -> list[Path]:
        return [path for path in self._directory.iterdir() if not path.name.startswith(".")]


def _fill(path: Path, parcel: WeightParcel) -> None:
    """Write by system calls, not through a mapping: a fresh page costs no fault and a recycled one no allocation."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(file, parcel.size_bytes)
        waiting = [buffer.data for buffer in parcel.buffers if buffer.nbytes]
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


@dataclass(frozen=True, slots=True)
class MappedParcel:
    """A parcel's file, mapped: tensors that are views of it, and whether they are what was sent."""

    index: Sequence[TensorPlace]
    data: np.ndarray  # [size_bytes] uint8, read-only

    @classmethod
    def open(cls, path: Path, index: Sequence[TensorPlace]) -> "MappedParcel":
        """Raises ValueError if the file is cut short."""
        expected = max((place.offset + place.size_bytes for place in index), default=0)
        found = path.stat().st_size
        if found < expected:
            raise ValueError(f"the weights hold {found} bytes, their index speaks of {expected}")
        return cls(index, np.memmap(path, dtype=np.uint8, mode="r") if found else np.zeros(0, np.uint8))

    def verify(self, digest: str) -> None:
        """Raises ValueError unless bytes and index are those of `digest`."""
        if (found := parcel_digest(self.index, [self.data])) != digest:
            raise ValueError(f"the weights have digest {found[:12]}, announced was {digest[:12]}")

    def tensors(self) -> "list[tuple[str, torch.Tensor]]":
        """Name and view of every tensor."""
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch knows no read-only tensors; nobody writes to these
            flat = torch.from_numpy(self.data)
        return [(place.name, _view(flat, place)) for place in self.index]


def _view(flat: "torch.Tensor", place: TensorPlace) -> "torch.Tensor":
    import torch

    part = flat[place.offset : place.offset + place.size_bytes]
    return part.view(getattr(torch, place.dtype)).view(place.shape)
