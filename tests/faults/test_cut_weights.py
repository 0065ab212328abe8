"""Weights are cut off on their way into a node's file: truncated, a bit flipped, the writer killed. No reader is deceived."""

import multiprocessing
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster import weight_delta
from cluster.engine.node_files import BaseMissing, MappedParcel, NodeFiles
from cluster.engine.reply import WeightsRefused
from cluster.weight_delta import WeightDelta, delta_between
from cluster.weights import WeightParcel, pack_weights

POINTS = 30  # places at which each way is cut, drawn with a fixed seed
FORK = multiprocessing.get_context("fork")


def parcel_of(weights: dict[str, torch.Tensor], version: int) -> WeightParcel:
    return pack_weights(weights.items(), version=version)


@pytest.fixture(scope="module")
def versions() -> tuple[WeightParcel, WeightParcel, WeightDelta]:
    """A parcel of 100 kB, another in which one element of 20 differs, and the delta from the first to the second."""
    make = torch.Generator().manual_seed(0)
    old = {f"w{i}": torch.randn(50, 101, generator=make).bfloat16() for i in range(10)}
    new = {name: tensor + (torch.rand(50, 101, generator=make) < 0.05) for name, tensor in old.items()}
    base, parcel = parcel_of(old, 1), parcel_of(new, 2)
    delta = delta_between(base, parcel)
    assert delta is not None
    return base, parcel, delta


def read(files: NodeFiles, weights: WeightParcel | WeightDelta) -> bytes:
    """The bytes that an engine would load, verified as it verifies them."""
    with files.holding(weights) as path:
        try:
            found = MappedParcel.open(path, weights.index)
            found.verify(weights.digest)
        except ValueError as error:
            raise WeightsRefused(str(error)) from None
        return found.data.tobytes()


def whole(parcel: WeightParcel) -> bytes:
    return b"".join(buffer.tobytes() for buffer in parcel.buffers)


def damage(path: Path, way: str, dice: random.Random) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        if way == "cut":
            file.truncate(dice.randrange(size))
        else:
            place = dice.randrange(size)
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1 << dice.randrange(8)]))


@pytest.mark.parametrize("way", ["cut", "flipped"])
def test_a_file_damaged_anywhere_is_refused_once_and_written_again(tmp_path, versions, way: str):
    _, parcel, _ = versions
    files, dice = NodeFiles(tmp_path / "files"), random.Random(1)
    for _ in range(POINTS):
        read(files, parcel)
        damage(tmp_path / "files" / parcel.digest, way, dice)
        with pytest.raises(WeightsRefused, match=r"hold|digest"):
            read(files, parcel)
        assert read(files, parcel) == whole(parcel)


@pytest.mark.parametrize("way", ["cut", "flipped"])
def test_a_delta_on_a_damaged_base_never_passes_for_the_parcel(tmp_path, versions, way: str):
    base, parcel, delta = versions
    files, dice, outcomes = NodeFiles(tmp_path / "files"), random.Random(2), set()
    for _ in range(POINTS):
        files.close()
        read(files, base)
        damage(tmp_path / "files" / base.digest, way, dice)
        try:  # a bit that the delta overwrites does no harm
            outcomes.add("whole" if read(files, delta) == whole(parcel) else "deceived")
        except (BaseMissing, WeightsRefused) as error:
            outcomes.add(type(error).__name__)
        assert read(files, parcel) == whole(parcel)
    assert outcomes <= ({"BaseMissing"} if way == "cut" else {"whole", "WeightsRefused"})


def killed_while_writing(directory: Path, weights: WeightParcel, size: int) -> None:
    """What a process does that dies by SIGKILL once `size` bytes of the parcel are written."""
    write = os.pwritev

    def cut(file: int, buffers: list[memoryview], offset: int) -> int:
        room = size - offset
        for buffer in buffers:
            part = buffer[: max(0, room)]
            write(file, [part], offset)
            offset, room = offset + len(part), room - len(part)
            if room <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return offset

    os.pwritev = cut
    with NodeFiles(directory).holding(weights):
        pass


def killed_while_patching(directory: Path, delta: WeightDelta, entries: int) -> None:
    """What a process does that dies by SIGKILL once `entries` of the delta are patched in."""

    class Words(np.ndarray):
        """The words of the delta, of which only so many can be read."""

        def __getitem__(self, part: slice) -> np.ndarray:
            if part.start >= entries:
                os.kill(os.getpid(), signal.SIGKILL)
            return np.asarray(super().__getitem__(part))

    weight_delta.PIECE = 1
    object.__setattr__(delta, "words", delta.words.view(Words))
    with NodeFiles(directory).holding(delta):
        pass


def dies(target, *arguments) -> None:
    process = FORK.Process(target=target, args=arguments)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def test_a_writer_killed_anywhere_leaves_no_parcel_and_the_next_reader_writes_it(tmp_path, versions):
    base, parcel, _ = versions
    files, dice = NodeFiles(tmp_path / "files"), random.Random(3)
    for point in range(POINTS):
        files.close()
        if point % 2:  # whose pages are recycled: the draft then holds a mixture of two versions
            read(files, base)
        dies(killed_while_writing, tmp_path / "files", parcel, dice.randrange(1, parcel.size_bytes))
        assert not files.has(parcel.digest)
        assert read(files, parcel) == whole(parcel)


def test_a_writer_killed_in_the_middle_of_a_patch_leaves_neither_parcel_and_the_next_reader_fetches(tmp_path, versions):
    base, parcel, delta = versions
    files, dice = NodeFiles(tmp_path / "files"), random.Random(4)
    for _ in range(POINTS):
        files.close()
        read(files, base)
        dies(killed_while_patching, tmp_path / "files", delta, dice.randrange(len(delta.words)))
        assert not files.has(parcel.digest)
        with pytest.raises(BaseMissing):
            read(files, delta)
        assert read(files, parcel) == whole(parcel)


def test_a_reader_that_waits_for_a_writer_goes_on_when_it_is_killed(tmp_path, versions):
    _, parcel, _ = versions
    is_writing, found = FORK.Event(), FORK.Queue()

    def take() -> None:  # blake3's threads do not live on in a forked process: the parent compares
        with NodeFiles(tmp_path / "files").holding(parcel) as path:
            found.put(path.read_bytes())

    def hang() -> None:
        def never(*_):
            is_writing.set()
            signal.pause()

        os.pwritev = never
        take()

    writer = FORK.Process(target=hang)
    writer.start()
    assert is_writing.wait(30)
    reader = FORK.Process(target=take)
    reader.start()
    reader.join(0.2)
    assert reader.is_alive()
    os.kill(writer.pid, signal.SIGKILL)
    assert found.get(timeout=30) == whole(parcel)
    for process in (writer, reader):
        process.join(30)
