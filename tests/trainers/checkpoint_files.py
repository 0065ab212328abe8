"""What the checkpoint tests write: small files whose bytes depend on the step."""

from pathlib import Path

from pyarrow import fs

from trainers.checkpoints import CheckpointInfo
from trainers.objectstore import ObjectStore
from trainers.storage import LocalStore, Store

INFO = CheckpointInfo(
    parents=("a" * 64,), metrics={"loss": 1.5}, compute={"parameters": 7}, config={"name": "gp"}, world_size=2
)
FILES = ("model/config.json", "model/model.safetensors", "learner/rank0.pt", "learner/zero/shard.pt")


def writer(step: int, size_bytes: int = 2000):
    """A `write` for `Checkpoints.commit`."""

    def write(directory: Path) -> None:
        for name in FILES:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(f"{name} of step {step} ".encode().ljust(size_bytes, b"."))

    return write


def local_store(root: Path) -> LocalStore:
    return LocalStore(root / "runs")


def object_store(root: Path) -> ObjectStore:
    """A directory that is driven as if it were a bucket: no rename, no staging inside."""
    (root / "bucket").mkdir(exist_ok=True)
    return ObjectStore(fs.SubTreeFileSystem(str(root / "bucket"), fs.LocalFileSystem()), "", uri="mock://bucket")


def path_of(store: Store, root: Path, relative: str) -> Path:
    """Where a file of the store really lies."""
    return (root / "runs" if isinstance(store, LocalStore) else root / "bucket") / relative
