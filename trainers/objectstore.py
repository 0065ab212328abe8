"""Runs in an object store: uploads under the final name, a COMMIT object last."""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainers.disk import STAGING
from trainers.storage import CHUNK_BYTES, COMMIT, MANIFEST, FileRecord, settled_in_parallel

FLAT_STORES = ("s3", "gcs", "abfs")  # have no directories to create


class ObjectStore:
    """Any other `pyarrow.fs.FileSystem`. Files are staged in a temporary directory of this machine (`TMPDIR`)."""

    def __init__(self, filesystem: Any, root: str, *, uri: str):
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self.uri = uri

    def stage(self, folder: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"viter-{folder.rsplit('/', 1)[-1]}-"))

    def settle(self, staged: Path, folder: str) -> dict[str, FileRecord]:
        self.remove(folder)  # leftovers of an upload that was cut off, or the checkpoint this one replaces
        return settled_in_parallel(staged, lambda name: self._upload(staged / name, f"{folder}/{name}"))

    def seal(self, staged: Path, folder: str, manifest: bytes) -> None:
        self.put(f"{folder}/{MANIFEST}", manifest)
        self.put(f"{folder}/{COMMIT}", b"every file of this folder was written before this one\n")
        shutil.rmtree(staged, ignore_errors=True)

    def is_sealed(self, folder: str) -> bool:
        return self.filesystem.get_file_info(self._at(f"{folder}/{COMMIT}")).is_file

    def folders(self, path: str) -> list[str]:
        found = [Path(info.path).name for info in self._list(path, recursive=False) if not info.is_file]
        return sorted(name for name in found if not name.startswith(STAGING))

    def files(self, folder: str) -> dict[str, int | None]:
        prefix = self._at(folder) + "/"
        listed = {i.path.removeprefix(prefix): i.size for i in self._list(folder, recursive=True) if i.is_file}
        return {name: size for name, size in listed.items() if name != COMMIT}

    def stamps(self, folder: str) -> dict[str, str]:
        prefix = self._at(folder) + "/"
        return {
            info.path.removeprefix(prefix): f"{info.size}:{info.mtime_ns}"
            for info in self._list(folder, recursive=True)
            if info.is_file
        }

    def read(self, path: str) -> bytes:
        with self.filesystem.open_input_stream(self._at(path)) as stream:
            return stream.read()

    def stamp(self, path: str) -> tuple[int, int] | None:
        info = self.filesystem.get_file_info(self._at(path))
        return (info.size, info.mtime_ns) if info.is_file else None

    def put(self, path: str, data: bytes) -> None:
        with self._create(path) as stream:
            stream.write(data)

    def sha256(self, path: str) -> str:
        return self._copied(path, lambda chunk: None)  # noqa: ARG005

    def fetch(self, path: str, target: Path) -> str:
        with target.open("wb") as file:
            return self._copied(path, file.write)

    def remove(self, path: str) -> None:
        info = self.filesystem.get_file_info(self._at(path))
        if info.is_file:
            self.filesystem.delete_file(info.path)
        elif info.type.name == "Directory":
            if self.is_sealed(path):
                self.filesystem.delete_file(self._at(f"{path}/{COMMIT}"))
            self.filesystem.delete_dir(info.path)

    def collect(self, path: str, *, older_than_s: float) -> None:
        limit = time.time() - older_than_s
        for name in self.folders(path):
            folder = f"{path}/{name}"
            if not self.is_sealed(folder):
                times = [i.mtime.timestamp() for i in self._list(folder, recursive=True) if i.is_file and i.mtime]
                if times and max(times) < limit:
                    self.remove(folder)

    def directory(self, folder: str) -> Path | None:  # noqa: ARG002
        return None

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}" if self.root else path

    def _list(self, path: str, *, recursive: bool) -> list[Any]:
        from pyarrow import fs

        return self.filesystem.get_file_info(fs.FileSelector(self._at(path), allow_not_found=True, recursive=recursive))

    def _create(self, path: str) -> Any:
        full = self._at(path)
        if self.filesystem.type_name not in FLAT_STORES:
            self.filesystem.create_dir(full.rsplit("/", 1)[0], recursive=True)
        return self.filesystem.open_output_stream(full)

    def _upload(self, source: Path, path: str) -> FileRecord:
        digest, size = hashlib.sha256(), 0
        with source.open("rb") as file, self._create(path) as stream:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                stream.write(chunk)
                size += len(chunk)
        return FileRecord(size, digest.hexdigest())

    def _copied(self, path: str, write: Callable[[bytes], object]) -> str:
        digest = hashlib.sha256()
        with self.filesystem.open_input_stream(self._at(path)) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
                write(chunk)
        return digest.hexdigest()
