"""Drills on the store: writers killed inside a save, disks that fill, files that are harmed."""

import asyncio
import logging
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from envs.base import ViterError
from services.chaos.killed_writer import INFO, writer
from services.chaos.outcome import Claim, Outcome
from services.registry import Registry
from trainers.checkpoints import Checkpoint, Checkpoints, StoreFull, resolve, verify, write_alias
from trainers.disk import free_bytes
from trainers.nano.model import create


def save_kills(times: int, seed: int, scratch: Path) -> Outcome:
    """A writer kills itself at a random point inside commit, alias and prune; half on a local store, half on a bucket's rules."""
    told = []
    for kind, kills in (("local", times - times // 2), ("bucket", times // 2)):
        command = [
            sys.executable, "-m", "services.chaos.killed_writer", str(scratch / kind), kind, str(kills), str(seed),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=Path(__file__).parents[2])
        told.append(done.returncode == 0 and f"{kills} kills" in done.stdout)
    return Outcome(
        drill="save-kills",
        faults=times,
        claims=(
            Claim("what is listed verifies, the previous checkpoint and the aliases are there, and writing goes on", all(told)),
        ),
    )  # fmt: skip


def disk_full(times: int, seed: int, scratch: Path) -> Outcome:
    """A small disk fills at a random point of a commit. Needs the right to mount one."""
    disk = scratch / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        return Outcome(drill="disk-full", faults=0, claims=(Claim("may mount a small disk (needs root)", False),))
    try:
        return _filled(times, random.Random(seed), disk)
    finally:
        subprocess.run(["umount", disk], check=True, timeout=10)


def _filled(times: int, dice: random.Random, disk: Path) -> Outcome:
    checkpoints = Checkpoints(disk / "runs", "gp")
    write_alias(checkpoints.commit(1, writer(1, size_bytes=100), INFO), "best")
    told = intact = 0
    for _ in range(times):
        (disk / "filler").unlink(missing_ok=True)
        (disk / "filler").write_bytes(bytes(max(free_bytes(disk) - dice.randrange(4096, 430_000), 0)))
        try:
            checkpoints.commit(2, writer(2, size_bytes=110_000), INFO)
        except StoreFull:
            told += 1
        is_clean = not list((disk / "runs").rglob(".tmp-*"))
        intact += is_clean and checkpoints.steps() == [1] and _verifies(checkpoints.get(1)) and _best(checkpoints) == 1
    (disk / "filler").unlink()
    mended = checkpoints.commit(2, writer(2, size_bytes=110_000), INFO)
    return Outcome(
        drill="disk-full",
        faults=times,
        claims=(
            Claim("each told as a full disk, with what it needs", told == times),
            Claim("previous checkpoint, alias and folder as they were", intact == times),
            Claim("with room again it commits", _verifies(mended)),
        ),
    )


def harmed_files(times: int, seed: int, scratch: Path) -> Outcome:
    """A file of the newest checkpoint is cut, has a bit flipped, is swapped with another's, or is gone."""
    dice, checkpoints = random.Random(seed), Checkpoints(scratch / "runs", "gp", on_damage=lambda _: None)
    for step in (1, 2):
        checkpoints.commit(step, _nano_writer(step), INFO)
    write_alias(checkpoints.get(1), "best")
    newest, kept = Path(checkpoints.get(2).uri), scratch / "kept"
    shutil.copytree(newest, kept)
    is_served_whole = _served(scratch) == {1, 2}
    detected = refused = fell_back = 0
    for _ in range(times):
        harmed = _harm(newest, dice)
        detected += not (2 in checkpoints.steps() and _verifies(checkpoints.get(2)))
        refused += harmed.startswith("learner/") or _served(scratch) == {1}
        before = checkpoints.newest(verify=True)
        fell_back += before is not None and before.step == 1 and _verifies(before) and _best(checkpoints) == 1
        shutil.rmtree(newest)
        shutil.copytree(kept, newest)
    return Outcome(
        drill="harmed-files",
        faults=times,
        claims=(
            Claim("each detected", detected == times),
            Claim("a harmed model is never listed for serving, a whole one is", refused == times and is_served_whole),
            Claim("a run goes on from the previous checkpoint, and its alias stands", fell_back == times),
        ),
    )


def _nano_writer(step: int) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        create(directory / "model", seed=step)
        (directory / "learner").mkdir()
        (directory / "learner" / "rank0.pt").write_bytes(random.Random(step).randbytes(5000))

    return write


def _served(scratch: Path) -> set[int]:
    """Steps that a service would list."""
    logging.disable(logging.WARNING)  # the registry tells of each damage
    try:
        cards = asyncio.run(Registry(str(scratch / "runs")).cards())
    finally:
        logging.disable(logging.NOTSET)
    return {int(card.id.rpartition("-")[2]) for card in cards}


def _harm(checkpoint: Path, dice: random.Random) -> str:
    """Harm one file; returns its name."""
    path = dice.choice(sorted(path for path in checkpoint.rglob("*") if path.is_file()))
    data = bytearray(path.read_bytes())
    match dice.choice(("cut", "flip", "swap", "gone")):
        case "cut":
            path.write_bytes(data[: dice.randrange(len(data))])
        case "flip":
            place = dice.randrange(len(data))
            data[place] ^= 1 << dice.randrange(8)
            path.write_bytes(data)
        case "swap":
            other = (checkpoint.parent / "step-000001" / path.relative_to(checkpoint)).read_bytes()
            path.write_bytes(other if other != data else data[::-1])  # configs of two steps are the same
        case _:
            path.unlink()
    return path.relative_to(checkpoint).as_posix()


def _verifies(checkpoint: Checkpoint) -> bool:
    try:
        verify(checkpoint)
    except ViterError:
        return False
    return True


def _best(checkpoints: Checkpoints) -> int:
    return resolve(checkpoints.store, "gp@best").step
