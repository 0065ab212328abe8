"""Where runs live: a local directory, or an object store. What each does to make a write whole or absent.

    local directory   staged beside its target, every file and folder synced, then renamed into place
    object store      uploaded under its final name, then a COMMIT object last: a folder without it does not exist

Paths are relative to the root, with "/". Both stores cross processes by pickle.
"""

import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from envs.base import ConfigError, DataError

COMMIT = "COMMIT"
MANIFEST = "manifest.json"
STAGING = ".tmp-"
CHUNK_BYTES = 1 << 20
HASH_THREADS = 4  # hashlib releases the interpreter lock; more only contend for the disk
NEARLY_FULL_BYTES = 1 << 20


class StoreFull(DataError):
    """The disk, quota or bucket has no room. What was committed before is intact."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a checkpoint as it was when committed."""

    size: int  # bytes
    sha256: str  # hex


class Store(Protocol):
    """What checkpoints need of a place. Folders given to `seal` appear whole or not at all."""

    uri: str

    def stage(self, folder: str) -> Path:
        """A fresh local directory whose files are to become `folder`."""

    def settle(self, staged: Path, folder: str) -> dict[str, FileRecord]:
        """Make the staged files durable, reading each once. Nothing is visible yet."""

    def seal(self, staged: Path, folder: str, manifest: bytes) -> None:
        """Add the manifest and make `folder` visible, in place of one of that name. The staged directory is gone."""

    def is_sealed(self, folder: str) -> bool: ...

    def folders(self, path: str) -> list[str]:
        """Names of the folders in `path`, sorted; staging leftovers are not among them."""

    def files(self, folder: str) -> dict[str, int | None]:
        """Every file below `folder` with its size in bytes; None for what is no regular file."""

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""

    def put(self, path: str, data: bytes) -> None:
        """Write a small file, whole or not at all."""

    def sha256(self, path: str) -> str: ...

    def fetch(self, path: str, target: Path) -> str:
        """Copy a file to this machine and return its sha256."""

    def remove(self, path: str) -> None:
        """Remove a file or folder that may be absent; a folder stops being sealed first."""

    def collect(self, path: str, *, older_than_s: float) -> None:
        """Remove what interrupted writers left in `path`."""

    def directory(self, folder: str) -> Path | None:
        """Where `folder` lies on this machine; None when it has to be fetched."""


def open_store(store: "str | Path | Store") -> Store:
    """The store of a path, a `file://` URI or any `pyarrow.fs` URI such as `s3://bucket/prefix`.

    Raises:
        ConfigError: the URI names no file system that pyarrow knows.
    """
    if not isinstance(store, str | Path):
        return store
    text = str(store)
    if "://" not in text:
        return LocalStore(Path(text))
    if text.startswith("file://"):
        return LocalStore(Path(unquote(urlsplit(text).path)))
    from pyarrow import ArrowException, fs  # remote stores alone need these

    from trainers.objectstore import ObjectStore

    try:
        filesystem, root = fs.FileSystem.from_uri(text)
    except (ArrowException, OSError, ValueError) as error:
        raise ConfigError(
            f"store.uri: {text!r}: {_sentence(error)}; use a directory or s3://, gs://, abfs://"
        ) from None
    return ObjectStore(filesystem, root, uri=text.rstrip("/"))


class LocalStore:
    """A directory, on a disk or a shared file system."""

    def __init__(self, root: Path):
        self.root = root.absolute()
        self.uri = str(self.root)

    def at(self, path: str) -> Path:
        """`path` below the root. Names are checked by callers; this is the second lock, and it knows links.

        Raises:
            DataError: the path leads out of the store.
        """
        found = self.root / path
        if not found.resolve().is_relative_to(self.root.resolve()):
            raise DataError(f"{self.uri}: {path!r} leads out of the store; remove the link and name a run inside it")
        return found

    def stage(self, folder: str) -> Path:
        target = self.at(folder)
        _make_directory(target.parent)
        staged = target.with_name(f"{STAGING}{target.name}-{uuid.uuid4().hex}")
        staged.mkdir()
        return staged

    def settle(self, staged: Path, folder: str) -> dict[str, FileRecord]:  # noqa: ARG002  (remote stores need it)
        return settled_in_parallel(staged, lambda name: _synced(staged / name))

    def seal(self, staged: Path, folder: str, manifest: bytes) -> None:
        _write_synced(staged / MANIFEST, manifest)
        for directory, _, _ in os.walk(staged, topdown=False):
            _sync_directory(Path(directory))
        target = self.at(folder)
        replaced = target.with_name(f"{STAGING}{target.name}-{uuid.uuid4().hex}") if target.exists() else None
        if replaced:
            os.rename(target, replaced)  # a folder cannot be renamed over a full one; a kill here leaves it unlisted
        os.rename(staged, target)
        _sync_directory(target.parent)
        if replaced:
            shutil.rmtree(replaced, ignore_errors=True)

    def is_sealed(self, folder: str) -> bool:
        return self.at(folder).is_dir()

    def folders(self, path: str) -> list[str]:
        try:
            with os.scandir(self.at(path)) as entries:
                return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(STAGING))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def files(self, folder: str) -> dict[str, int | None]:
        root = self.at(folder)
        return {name: _regular_size(root / name) for name in _names(root)}

    def read(self, path: str) -> bytes:
        try:
            return self.at(path).read_bytes()
        except NotADirectoryError:
            raise FileNotFoundError(path) from None

    def put(self, path: str, data: bytes) -> None:
        target = self.at(path)
        _make_directory(target.parent)
        write_atomically(target, lambda partial: _write_synced(partial, data))
        _sync_directory(target.parent)

    def sha256(self, path: str) -> str:
        with self.at(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def fetch(self, path: str, target: Path) -> str:
        shutil.copyfile(self.at(path), target)
        return self.sha256(path)

    def remove(self, path: str) -> None:
        target = self.at(path)
        if not target.is_dir():
            target.unlink(missing_ok=True)
            return
        aside = target.with_name(f"{STAGING}{target.name}-{uuid.uuid4().hex}")
        os.rename(target, aside)  # gone at once; a kill half-way through the deletion leaves only staging
        _sync_directory(target.parent)
        shutil.rmtree(aside, ignore_errors=True)

    def collect(self, path: str, *, older_than_s: float) -> None:
        limit = time.time() - older_than_s
        for leftover in self.at(path).glob(f"{STAGING}*"):
            if _last_touched(leftover) < limit:
                shutil.rmtree(leftover, ignore_errors=True)

    def directory(self, folder: str) -> Path | None:
        return self.at(folder)


def write_atomically(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `target`, then give it that name."""
    partial = target.with_name(f"{STAGING}{target.name}-{uuid.uuid4().hex}")
    try:
        write(partial)
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def is_disk_full(error: BaseException | None, directory: Path) -> bool:
    """Whether `error` came of a full disk. Rust and C++ writers hide the errno: their words and the disk are asked."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in ("No space left on device", "Disk quota exceeded")):
            return True
        if isinstance(error, OSError | RuntimeError) and free_bytes(directory) < NEARLY_FULL_BYTES:
            return True
        error = error.__cause__ or error.__context__
    return False


def free_bytes(directory: Path) -> int:
    """Room for this user on the disk of `directory`."""
    return shutil.disk_usage(directory).free


def used_bytes(directory: Path) -> int:
    """Sum of the file sizes below `directory`."""
    return sum(_regular_size(directory / name) or 0 for name in _names(directory))


def _names(root: Path) -> list[str]:
    return sorted(
        str((Path(folder) / name).relative_to(root))
        for folder, folders, names in os.walk(root)
        for name in [*names, *(f for f in folders if (Path(folder) / f).is_symlink())]
    )


def _regular_size(path: Path) -> int | None:
    return None if path.is_symlink() or not path.is_file() else path.stat().st_size


def settled_in_parallel(staged: Path, settle: Callable[[str], FileRecord]) -> dict[str, FileRecord]:
    names = _names(staged)
    odd = [name for name in names if _regular_size(staged / name) is None]
    if odd:
        raise DataError(f"{staged / odd[0]}: not a regular file; a checkpoint holds copies, never links")
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        return dict(zip(names, pool.map(settle, names), strict=True))


def _synced(path: Path) -> FileRecord:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return FileRecord(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _make_directory(path: Path) -> None:
    missing: Iterable[Path] = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for created in missing:
        _sync_directory(created.parent)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _last_touched(path: Path) -> float:
    times = [path.lstat().st_mtime]
    for folder, _, names in os.walk(path):
        times += [os.lstat(os.path.join(folder, name)).st_mtime for name in names]
    return max(times)


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
