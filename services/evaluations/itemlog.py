"""The finished items of one evaluation, as lines: one file on a disk, one object per batch in an object store."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from trainers.disk import make_directory, sync_directory
from trainers.storage import Store

FILE = "items.jsonl"
PARTS = "items"
READERS = 16  # parts that are fetched at once


class ItemLog(Protocol):
    """Lines in the order they were appended."""

    def append(self, lines: bytes) -> None:
        """Add whole lines, durably."""

    def lines(self) -> list[bytes]:
        """The whole lines; changes nothing."""

    def compact(self) -> None:
        """Leave one file of whole lines. For whoever alone may append."""


def item_log(store: Store, folder: str, token: int) -> ItemLog:
    """The log in `folder`, for one writer, whose lease has this token; readers need none."""
    directory = store.directory(folder)
    return ObjectLog(store, folder, token) if directory is None else FileLog(directory / FILE)


class FileLog:
    """One file, appended and synced. A kill leaves at most one torn last line."""

    def __init__(self, path: Path):
        self._path = path

    def append(self, lines: bytes) -> None:
        is_new = not self._path.exists()
        if is_new:
            make_directory(self._path.parent)
        with self._path.open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_directory(self._path.parent)

    def lines(self) -> list[bytes]:
        return _whole(self._read()).splitlines()

    def compact(self) -> None:
        data = self._read()
        whole = _whole(data)
        if len(whole) < len(data):
            os.truncate(self._path, len(whole))

    def _read(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""


class ObjectLog:
    """One object per batch, named by its writer's token and a count, so that no writer replaces another's.

    `compact` writes them into one object and removes them; killed in between it leaves lines that stand in both.
    """

    def __init__(self, store: Store, folder: str, token: int):
        self._store = store
        self._folder = folder
        self._token = token
        self._written = 0

    def append(self, lines: bytes) -> None:
        self._store.put(f"{self._folder}/{PARTS}/{self._token:06d}-{self._written:06d}.jsonl", lines)
        self._written += 1

    def lines(self) -> list[bytes]:
        parts = self._parts()  # before the file, which is written before they are removed
        return [line for part in (self._read(FILE), *parts) for line in _whole(part).splitlines()]

    def compact(self) -> None:
        lines = list(dict.fromkeys(self.lines()))
        if self._names():
            self._store.put(f"{self._folder}/{FILE}", b"".join(line + b"\n" for line in lines))
            self._store.remove(f"{self._folder}/{PARTS}")

    def _names(self) -> list[str]:
        return sorted(self._store.files(f"{self._folder}/{PARTS}"))

    def _parts(self) -> list[bytes]:
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(lambda name: self._read(f"{PARTS}/{name}"), self._names()))

    def _read(self, name: str) -> bytes:
        try:
            return self._store.read(f"{self._folder}/{name}")
        except FileNotFoundError:  # none yet, or compacted since it was listed
            return b""


def _whole(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]
