"""Checkpoints under kills and on full disks."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.trainers.checkpoint_files import INFO, writer
from trainers.checkpoints import Checkpoints, StoreFull, resolve, verify, write_alias
from trainers.disk import free_bytes


@pytest.mark.parametrize("kind", ["local", "bucket"])
def test_whatever_a_killed_writer_leaves_verifies(kind: str, tmp_path: Path):
    command = [sys.executable, "-m", "services.chaos.killed_writer", str(tmp_path / kind), kind, "40", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-4000:]
    assert "40 kills" in done.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount], check=True, capture_output=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        pytest.skip("needs the right to mount a small file system")
    yield mount
    subprocess.run(["umount", mount], check=True, timeout=10)


def leave_free(disk: Path, free: int) -> None:
    (disk / "filler").unlink(missing_ok=True)
    (disk / "filler").write_bytes(bytes(max(free_bytes(disk) - free, 0)))


def assert_untouched(checkpoints: Checkpoints) -> None:
    assert checkpoints.steps() == [1]
    verify(checkpoints.get(1))
    assert resolve(checkpoints.store, "gp@best").step == 1
    assert list(Path(checkpoints.store.uri).rglob(".tmp-*")) == []


def test_a_disk_that_fills_at_any_point_costs_only_the_checkpoint_being_written(small_disk: Path):
    checkpoints, draw = Checkpoints(small_disk / "runs", "gp"), random.Random(3)
    write_alias(checkpoints.commit(1, writer(1, size_bytes=100), INFO), "best")
    for _ in range(40):
        leave_free(small_disk, draw.randrange(4096, 430_000))
        with pytest.raises(
            StoreFull, match=r"disk full: gp@step-000002 needs at least \d+ bytes and \d+ are available"
        ):
            checkpoints.commit(2, writer(2, size_bytes=110_000), INFO)
        assert_untouched(checkpoints)
    leave_free(small_disk, 1_000_000)
    assert checkpoints.commit(2, writer(2, size_bytes=110_000), INFO).step == 2


def test_a_disk_without_room_for_the_usual_is_told_before_anything_is_written(small_disk: Path):
    checkpoints = Checkpoints(small_disk / "runs", "gp")
    write_alias(checkpoints.commit(1, writer(1, size_bytes=100_000), INFO), "best")
    leave_free(small_disk, 300_000)
    with pytest.raises(StoreFull, match=r"needs at least 400000 bytes and 29[0-9]{4} are available"):
        checkpoints.commit(2, lambda _: pytest.fail("it wrote"), INFO)
    assert_untouched(checkpoints)


def test_a_full_disk_is_known_behind_the_words_of_other_writers(small_disk: Path):
    checkpoints = Checkpoints(small_disk / "runs", "gp")
    write_alias(checkpoints.commit(1, writer(1, size_bytes=100), INFO), "best")
    leave_free(small_disk, 100_000)

    def write(directory: Path) -> None:
        (directory / "model").mkdir()
        save_file({"a": np.zeros(200_000, np.uint8)}, directory / "model/model.safetensors")

    with pytest.raises(StoreFull):
        checkpoints.commit(2, write, INFO)
    assert_untouched(checkpoints)


def test_an_alias_on_a_full_disk_stays_what_it_was(small_disk: Path):
    checkpoints = Checkpoints(small_disk / "runs", "gp")
    write_alias(checkpoints.commit(1, writer(1), INFO), "best")
    second = checkpoints.commit(2, writer(2), INFO)
    leave_free(small_disk, 0)
    with pytest.raises(StoreFull, match="best: disk full"):
        write_alias(second, "best")
    assert resolve(checkpoints.store, "gp@best").step == 1


def test_a_full_disk_is_told_where_none_can_be_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoints = Checkpoints(tmp_path, "gp")
    write_alias(checkpoints.commit(1, writer(1), INFO), "best")

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreFull, match=r"needs at least \d+ bytes"):
            checkpoints.commit(2, writer(2), INFO)
    assert_untouched(checkpoints)
