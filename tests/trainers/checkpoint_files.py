"""What the checkpoint tests write, and where."""

from pathlib import Path

from services.chaos.killed_writer import FILES, INFO, writer
from services.chaos.killed_writer import bucket as object_store
from services.chaos.killed_writer import local as local_store
from trainers.storage import LocalStore, Store

__all__ = ["FILES", "INFO", "local_store", "object_store", "path_of", "writer"]


def path_of(store: Store, root: Path, relative: str) -> Path:
    """Where a file of the store really lies."""
    return (root / "runs" if isinstance(store, LocalStore) else root / "bucket") / relative
