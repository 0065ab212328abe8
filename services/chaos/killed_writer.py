"""Kills a writer of checkpoints at many points and looks at what is left. A script of its own, since it forks.

    python -m services.chaos.killed_writer FOLDER {local,bucket} KILLS SEED

The writer kills itself with SIGKILL at its n-th call of any function, Python or C, in any thread; n is random.
"""

import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from pyarrow import fs

from trainers.checkpoints import CheckpointInfo, Checkpoints, resolve, verify, write_alias
from trainers.objectstore import ObjectStore
from trainers.storage import LocalStore, Store

INFO = CheckpointInfo(
    parents=("a" * 64,), metrics={"loss": 1.5}, compute={"parameters": 7}, config={"name": "gp"}, world_size=2
)
FILES = ("model/config.json", "model/model.safetensors", "learner/rank0.pt", "learner/zero/shard.pt")


def writer(step: int, size_bytes: int = 2000) -> Callable[[Path], None]:
    """A `write` for `Checkpoints.commit`: small files whose bytes depend on the step."""

    def write(directory: Path) -> None:
        for name in FILES:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(f"{name} of step {step} ".encode().ljust(size_bytes, b"."))

    return write


def local(root: Path) -> LocalStore:
    """A store in a directory."""
    return LocalStore(root / "runs")


def bucket(root: Path) -> ObjectStore:
    """A directory that is driven as if it were a bucket: no rename, no staging inside."""
    (root / "bucket").mkdir(exist_ok=True)
    return ObjectStore(fs.SubTreeFileSystem(str(root / "bucket"), fs.LocalFileSystem()), "", uri="mock://bucket")


def write_on(store: Store) -> None:
    """The life of a run after its first checkpoint: commit, replace, alias, prune."""
    checkpoints = Checkpoints(store, "gp")
    second = checkpoints.commit(2, writer(2), INFO)
    write_alias(second, "best")
    checkpoints.commit(3, writer(3), INFO)
    checkpoints.commit(3, writer(4), INFO)
    checkpoints.prune(keep_last=1)


def fork_writer(store: Store, die_at: int) -> int:
    """Write in a child that dies at its `die_at`-th call; the number of calls where it lived to the end, else 0."""
    out, into = os.pipe()
    child = os.fork()
    if child:
        os.close(into)
        _, status = os.waitpid(child, 0)
        with os.fdopen(out) as pipe:
            assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, status
            return int(pipe.read() or 0)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(count)
    sys.setprofile(count)
    write_on(store)
    sys.setprofile(None)
    os.write(into, str(calls).encode())
    os._exit(0)


def begin(folder: Path, kind: str) -> Store:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    store: Store = bucket(folder) if kind == "bucket" else local(folder)
    write_alias(Checkpoints(store, "gp").commit(1, writer(1), INFO), "best")
    return store


def look(store: Store) -> int:
    """Check what a kill left; the number of checkpoints."""
    checkpoints = Checkpoints(store, "gp")
    for checkpoint in checkpoints:
        verify(checkpoint)
    assert checkpoints.steps()[0] == 1
    assert resolve(store, "gp@best").step in (1, 2)
    assert checkpoints.newest() is not None
    return len(checkpoints.steps())


def main(folder: Path, kind: str, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    total = fork_writer(begin(folder, kind), die_at=0)
    assert total > 500
    seen = []
    for _ in range(kills):
        store = begin(folder, kind)
        fork_writer(store, die_at=draw.randrange(1, total))
        seen.append(look(store))
        write_on(store)  # the run goes on over whatever lies there
        assert look(store) == 3
    print(f"{kills} kills over {total} calls; checkpoints left: { {n: seen.count(n) for n in sorted(set(seen))} }")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
