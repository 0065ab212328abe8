"""Kills a writer of checkpoints at many points and looks at what is left. A script of its own, since it forks.

    python -m tests.trainers.kill_commits FOLDER {local_store,object_store} KILLS SEED

The writer kills itself with SIGKILL at its n-th call of any function, Python or C, in any thread; n is random.
"""

import os
import random
import shutil
import signal
import sys
import threading
from pathlib import Path

from tests.trainers import checkpoint_files
from tests.trainers.checkpoint_files import INFO, writer
from trainers.checkpoints import Checkpoints, resolve, verify, write_alias
from trainers.storage import Store


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
    store: Store = getattr(checkpoint_files, kind)(folder)
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
