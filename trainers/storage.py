"""Where runs live: a local directory, or an object store. What each does to make a write whole or absent.

    local directory   staged beside its target, every file and folder synced, then renamed into place
    object store      uploaded under its final name, then a COMMIT object last: a folder without it does not exist

Paths are relative to the root, with "/". Both stores cross processes by pickle.
"""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from envs.base import ConfigError, DataError
from trainers.disk import (
    STAGING,
    create_exclusively,
    file_names,
    free_bytes,
    is_disk_full,
    make_directory,
    regular_size,
    sync_directory,
    write_atomically,
    write_synced,
)

COMMIT = "COMMIT"
MANIFEST = "manifest.json"
CHUNK_BYTES = 1 << 20
HASH_THREADS = 4  # hashlib releases the interpreter lock; more only contend for the disk


class StoreFull(DataError):
    """The disk, quota or bucket has no room. What was committed before is intact."""


class OutOfStore(DataError):
    """A link in the store leads out of it. Told without the store's own path: clients of a service hear it too."""


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

    def stamps(self, folder: str) -> dict[str, str]:
        """Every file below `folder` with a text that changes whenever the file is written. Reads no file."""

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""

    def stamp(self, path: str) -> tuple[int, int] | None:
        """Size and modification time of a file, which differ once it was written again; None without one."""

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
            f"store.uri: {_shown(text)!r}: {_sentence(error)}; use a directory or s3://, gs://, abfs://"
        ) from None
    return ObjectStore(filesystem, root, uri=_shown(text))


class LocalStore:
    """A directory, on a disk or a shared file system."""

    def __init__(self, root: Path):
        self.root = root.absolute()
        self.uri = str(self.root)

    def at(self, path: str) -> Path:
        """`path` below the root. Names are checked by callers; this is the second lock, and it knows links.

        Raises:
            OutOfStore: a link on the path leads elsewhere.
        """
        found = self.root / path
        try:
            is_inside = found.resolve().is_relative_to(self.root.resolve())
        except RuntimeError:  # a link in a circle
            is_inside = False
        if not is_inside:
            raise OutOfStore(f"{path!r} leads out of the store; remove the link, or name another run")
        return found

    def stage(self, folder: str) -> Path:
        target = self.at(folder)
        make_directory(target.parent)
        staged = target.with_name(f"{STAGING}{target.name}-{uuid.uuid4().hex}")
        staged.mkdir()
        return staged

    def settle(self, staged: Path, folder: str) -> dict[str, FileRecord]:  # noqa: ARG002  (remote stores need it)
        return settled_in_parallel(staged, lambda name: _synced(staged / name))

    def seal(self, staged: Path, folder: str, manifest: bytes) -> None:
        write_synced(staged / MANIFEST, manifest)
        for directory, _, _ in os.walk(staged, topdown=False):
            sync_directory(Path(directory))
        target = self.at(folder)
        replaced = target.with_name(f"{STAGING}{target.name}-{uuid.uuid4().hex}") if target.exists() else None
        if replaced:
            os.rename(target, replaced)  # a folder cannot be renamed over a full one; a kill here leaves it unlisted
        os.rename(staged, target)
        sync_directory(target.parent)
        if replaced:
            shutil.rmtree(replaced, ignore_errors=True)

    def is_sealed(self, folder: str) -> bool:
        return self.at(folder).is_dir()

    def folders(self, path: str) -> list[str]:
        root = self.at(path)
        try:
            names = [name for name in os.listdir(root) if not name.startswith(STAGING)]
            return sorted(name for name in names if os.path.isdir(root / name))  # False too for a link in a circle
        except (FileNotFoundError, NotADirectoryError):
            return []

    def files(self, folder: str) -> dict[str, int | None]:
        root = self.at(folder)
        return {name: regular_size(root / name) for name in file_names(root)}

    def stamps(self, folder: str) -> dict[str, str]:
        root = self.at(folder)
        return {name: _stamp(os.lstat(root / name)) for name in file_names(root)}

    def read(self, path: str) -> bytes:
        try:
            return self.at(path).read_bytes()
        except NotADirectoryError:
            raise FileNotFoundError(path) from None

    def stamp(self, path: str) -> tuple[int, int] | None:
        try:
            status = self.at(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size, status.st_mtime_ns

    def put(self, path: str, data: bytes) -> None:
        target = self.at(path)
        with self._room_for(data, target):
            make_directory(target.parent)
            write_atomically(target, lambda partial: write_synced(partial, data))
            sync_directory(target.parent)

    def create(self, path: str, data: bytes) -> bool:
        """As `put`, unless there is a file of that name; then False. Of many who try at once, one creates it."""
        target = self.at(path)
        with self._room_for(data, target):
            make_directory(target.parent)
            return create_exclusively(target, data)

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
        sync_directory(target.parent)
        shutil.rmtree(aside, ignore_errors=True)

    def collect(self, path: str, *, older_than_s: float) -> None:
        limit = time.time() - older_than_s
        for leftover in self.at(path).glob(f"{STAGING}*"):
            if _last_touched(leftover) < limit:
                shutil.rmtree(leftover, ignore_errors=True)

    def directory(self, folder: str) -> Path | None:
        return self.at(folder)

    @contextmanager
    def _room_for(self, data: bytes, target: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not is_disk_full(error, self.root):
                raise
            raise StoreFull(
                f"{target}: disk full: it needs {len(data)} bytes and {free_bytes(self.root)} are available; "
                "what stood there is intact: free some space and try again"
            ) from error


def settled_in_parallel(staged: Path, settle: Callable[[str], FileRecord]) -> dict[str, FileRecord]:
    names = file_names(staged)
    odd = [name for name in names if regular_size(staged / name) is None]
    if odd:
        raise DataError(f"{staged / odd[0]}: not a regular file; a checkpoint holds copies, never links")
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        return dict(zip(names, pool.map(settle, names), strict=True))


def _synced(path: Path) -> FileRecord:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return FileRecord(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _stamp(status: os.stat_result) -> str:
    """The time of the last change cannot be set back, as that of the last write can."""
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _last_touched(path: Path) -> float:
    times = [path.lstat().st_mtime]
    for folder, _, names in os.walk(path):
        times += [os.lstat(os.path.join(folder, name)).st_mtime for name in names]
    return max(times)


def _shown(uri: str) -> str:
    """A URI as messages show it: keys to a bucket may stand before its host, and in its query."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
