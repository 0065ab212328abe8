import dataclasses
import multiprocessing
import pickle
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.engine.node_files import MappedParcel, NodeFiles
from cluster.weights import ALIGNMENT, ParcelWitness, WeightParcel, pack_weights, parcel_digest, tensors_of
from envs.base import DataError


def some_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    make = torch.Generator().manual_seed(seed)
    return {
        "embed.weight": torch.randn(37, 8, generator=make),
        "norm.weight": torch.randn(8, generator=make).bfloat16(),
        "scale": torch.tensor(2.5),
        "head.weight": torch.randn(37, 8, generator=make).bfloat16(),
        "turned": torch.randn(5, 3, generator=make).t(),
    }


def parcel_of(seed: int = 0, version: int = 1) -> WeightParcel:
    return pack_weights(some_weights(seed).items(), version=version)


def read(path: Path, parcel: WeightParcel) -> dict[str, torch.Tensor]:
    found = MappedParcel.open(path, parcel.index)
    found.verify(parcel.digest)
    return dict(found.tensors())


def confirm(parcel: WeightParcel, sent: Iterable[tuple[str, torch.Tensor]]) -> None:
    witness = ParcelWitness(parcel.index)
    for name, tensor in sent:
        witness.see(name, tensor)
    witness.verify(parcel.digest)


def test_what_is_packed_is_what_is_read_bit_for_bit(tmp_path):
    parcel = parcel_of()
    with NodeFiles(tmp_path / "files").holding(parcel) as path:
        found = read(path, parcel)
        assert found.keys() == some_weights().keys()
        for name, tensor in some_weights().items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor), name


def test_what_is_packed_is_what_is_sent_and_its_witness_confirms_the_parcels_digest():
    parcel = parcel_of()
    sent = dict(tensors_of(parcel))
    assert list(sent) == list(some_weights())
    for name, tensor in some_weights().items():
        assert sent[name].dtype == tensor.dtype
        assert torch.equal(sent[name], tensor), name
    confirm(parcel, sent.items())


@pytest.mark.parametrize("damage", ["changed", "missing", "another order"])
def test_a_witness_confirms_nothing_else(damage: str):
    parcel = parcel_of()
    sent = [(name, tensor.clone()) for name, tensor in tensors_of(parcel)]
    if damage == "changed":
        sent[1][1][3] += 1
    elif damage == "missing":
        sent.pop()
    else:
        sent[0], sent[1] = sent[1], sent[0]
    with pytest.raises(ValueError, match=r"digest|index has"):
        confirm(parcel, sent)


def test_tensors_start_on_a_cache_line():
    assert all(place.offset % ALIGNMENT == 0 for place in parcel_of().index)


def test_a_host_tensor_is_packed_without_a_copy():
    weight = torch.zeros(64)
    parcel = pack_weights([("w", weight)], version=1)
    weight += 1
    assert parcel.buffers[0].view(np.float32).sum() == 64


def test_a_parcel_travels_out_of_band():
    parcel, buffers = parcel_of(), []
    head = pickle.dumps(parcel, protocol=5, buffer_callback=buffers.append)
    assert sum(buffer.raw().nbytes for buffer in buffers) == parcel.size_bytes
    again = pickle.loads(head, buffers=buffers)  # noqa: S301  # our own bytes
    assert parcel_digest(again.index, again.buffers) == parcel.digest


def test_the_digest_names_values_names_types_and_shapes_but_not_the_version():
    weights = some_weights()
    same = pack_weights(weights.items(), version=9).digest
    assert parcel_of().digest == same
    others = [
        {**weights, "scale": torch.tensor(2.6)},
        {("other" if name == "scale" else name): tensor for name, tensor in weights.items()},
        {**weights, "embed.weight": weights["embed.weight"].view(8, 37)},
        {**weights, "scale": weights["scale"].view(torch.int32)},
    ]
    digests = {pack_weights(other.items(), version=9).digest for other in others}
    assert len(digests) == len(others)
    assert same not in digests


def test_a_cut_file_a_flipped_bit_and_a_wrong_index_are_each_found_out(tmp_path):
    parcel = parcel_of()
    with NodeFiles(tmp_path / "files").holding(parcel) as path:
        whole = path.read_bytes()
        path.write_bytes(whole[:-40])
        with pytest.raises(ValueError, match="the weights hold"):
            read(path, parcel)
        flipped = bytearray(whole)
        flipped[1000] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="the weights have digest"):
            read(path, parcel)
        path.write_bytes(whole)
        first, second, *rest = parcel.index
        swapped = [dataclasses.replace(first, name=second.name), dataclasses.replace(second, name=first.name), *rest]
        with pytest.raises(ValueError, match="the weights have digest"):
            MappedParcel.open(path, swapped).verify(parcel.digest)
        assert read(path, parcel)


def test_a_node_writes_a_parcel_once_and_recycles_the_pages_of_the_one_before(tmp_path):
    files = NodeFiles(tmp_path / "files")
    with files.holding(parcel_of(1)) as path:
        first = path.stat()
    with files.holding(parcel_of(1)) as path:
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    with files.holding(parcel_of(2)) as path:
        assert path.stat().st_ino == first.st_ino
        assert read(path, parcel_of(2))
    assert len(list((tmp_path / "files").glob("[!.]*"))) == 1


def test_a_file_that_is_being_read_is_neither_recycled_nor_removed(tmp_path):
    files, others = NodeFiles(tmp_path / "files"), NodeFiles(tmp_path / "files")
    old, new = parcel_of(1), parcel_of(2)
    with files.holding(old) as path:
        with others.holding(new) as newer:
            assert newer != path
        others.close()
        assert read(path, old)
    files.close()
    assert list((tmp_path / "files").glob("[!.]*")) == []


def test_a_larger_and_a_smaller_parcel_share_a_recycled_file(tmp_path):
    files = NodeFiles(tmp_path / "files")
    sizes = [1000, 300_000, 7]
    for size in sizes:
        parcel = pack_weights([("w", torch.arange(size, dtype=torch.float32))], version=size)
        with files.holding(parcel) as path:
            assert path.stat().st_size == parcel.size_bytes
            assert torch.equal(read(path, parcel)["w"], torch.arange(size, dtype=torch.float32))


def test_many_small_buffers_are_written_over_several_calls(tmp_path):
    parcel = pack_weights(((f"w{i}", torch.full((3,), float(i))) for i in range(1500)), version=1)
    with NodeFiles(tmp_path / "files").holding(parcel) as path:
        assert read(path, parcel)["w1499"].tolist() == [1499.0] * 3


def _hold(directory: Path, barrier, seen) -> None:
    parcel = parcel_of(3)
    barrier.wait()
    with NodeFiles(directory).holding(parcel) as path:
        seen.put(path.stat().st_mtime_ns)
        read(path, parcel)
        barrier.wait()


def test_workers_that_come_together_write_the_file_once(tmp_path):
    fork = multiprocessing.get_context("fork")
    barrier, seen = fork.Barrier(3), fork.Queue()
    workers = [fork.Process(target=_hold, args=(tmp_path / "files", barrier, seen)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len({seen.get(timeout=5) for _ in workers}) == 1


def test_a_reader_blocks_only_those_who_want_to_recycle(tmp_path):
    files, done = NodeFiles(tmp_path / "files"), threading.Event()

    def read_too() -> None:
        with files.holding(parcel_of(1)):
            done.set()

    with files.holding(parcel_of(1)):
        threading.Thread(target=read_too, daemon=True).start()
        assert done.wait(10)


def test_full_shared_memory_is_one_sentence_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwritev", full)
    with pytest.raises(DataError, match="No space left on device"), NodeFiles(tmp_path / "files").holding(parcel_of()):
        pass
    assert [path.name for path in (tmp_path / "files").iterdir()] == [".lock"]
