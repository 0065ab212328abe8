"""What a disk does and does not promise: durable and whole writes, sizes, and how it says that it is full."""

import errno
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

STAGING = ".tmp-"  # begins the name of what is not whole yet
NEARLY_FULL_BYTES = 1 << 20


def write_atomically(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `target`, then give it that name."""
    partial = target.with_name(f"{STAGING}{target.name}-{uuid.uuid4().hex}")
    try:
        write(partial)
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def create_exclusively(target: Path, data: bytes) -> bool:
    """Make a whole, durable file of that name unless there is one; then False. Also where many try at once."""
    partial = target.with_name(f"{STAGING}{target.name}-{uuid.uuid4().hex}")
    try:
        write_synced(partial, data)
        os.link(partial, target)  # unlike a rename, it refuses a name that is taken; on NFS too
        sync_directory(target.parent)
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True


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
    """Room for this user on the disk of `directory`, which need not exist yet."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


def used_bytes(directory: Path) -> int:
    """Sum of the file sizes below `directory`."""
    return sum(regular_size(directory / name) or 0 for name in file_names(directory))


def write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_directory(path: Path) -> None:
    """With its parents, durably."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for created in missing:
        sync_directory(created.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: a rename is not until then."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_names(root: Path) -> list[str]:
    """Paths of all files and links below `root`, relative to it, sorted."""
    return sorted(
        str((Path(folder) / name).relative_to(root))
        for folder, folders, names in os.walk(root)
        for name in [*names, *(f for f in folders if (Path(folder) / f).is_symlink())]
    )


def regular_size(path: Path) -> int | None:
    """In bytes; None for a link or anything else that is no regular file."""
    return None if path.is_symlink() or not path.is_file() else path.stat().st_size
