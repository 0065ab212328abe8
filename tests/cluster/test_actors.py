import asyncio
import dataclasses
import random

import pytest
import torch

from cluster.actors import RolloutProcess
from cluster.engine.node_files import MappedParcel, NodeFiles
from cluster.engine.reply import WeightsRefused
from cluster.weight_delta import WeightDelta, delta_between
from cluster.weights import Channel, Publication, WeightBroadcast, WeightParcel, pack_weights


class FileEngine:
    """Takes weights as an engine does, through a node's files and past their digest, but holds them as bytes."""

    def __init__(self, files: NodeFiles):
        self.files, self.held, self.version, self.sent = files, b"", -1, None

    def has_parcel(self, digest):
        return self.files.has(digest)

    async def update_weights(self, parcel):
        with self.files.holding(parcel) as path:
            found = MappedParcel.open(path, parcel.index)
            try:
                found.verify(parcel.digest)
            except ValueError as error:
                raise WeightsRefused(str(error)) from None
            self.held, self.version = found.data.tobytes(), parcel.version

    async def take_broadcast(self, broadcast, worker):
        """What was sent is `sent`, or nothing."""
        if self.sent is None:
            raise WeightsRefused(f"{worker}: the broadcast broke off")
        self.held, self.version = b"".join(buffer.tobytes() for buffer in self.sent.buffers), broadcast.version


class Process(RolloutProcess):
    """A rollout process with its engine already there."""

    def __init__(self, files: NodeFiles):
        self._engine, self._name = FileEngine(files), "rollout-0"


class Fetched:
    """A reference: awaiting it gives the value, and counts."""

    def __init__(self, value):
        self.value, self.count = value, 0

    def __await__(self):
        self.count += 1
        yield from asyncio.sleep(0).__await__()
        return self.value


def published(versions: int) -> list[Publication]:
    """One version after another, each with a delta from the one before."""
    make = torch.Generator().manual_seed(0)
    weights = {"w": torch.randn(300, 40, generator=make).bfloat16()}
    publications, base = [], None
    for version in range(versions):
        parcel = pack_weights([(name, tensor.clone()) for name, tensor in weights.items()], version=version)
        if base is None:
            publications.append(Publication(parcel=Fetched(parcel), size_bytes=parcel.size_bytes))
        else:
            delta = delta_between(base, parcel)
            publications.append(
                Publication(parcel=Fetched(parcel), delta=Fetched(delta), base=base.digest, size_bytes=delta.size_bytes)
            )
        base = parcel
        weights["w"] += torch.rand(300, 40, generator=make) < 0.05
    return publications


def fetched(publication: Publication) -> tuple[int, int]:
    """How often the parcel and the delta were."""
    return publication.parcel.count, 0 if publication.delta is None else publication.delta.count


def holds(process: Process, publication: Publication) -> bool:
    parcel = publication.parcel.value
    bits = b"".join(buffer.tobytes() for buffer in parcel.buffers)
    return (process._engine.held, process._engine.version) == (bits, parcel.version)


async def test_after_the_first_parcel_a_worker_fetches_deltas_alone(tmp_path):
    process = Process(NodeFiles(tmp_path / "files"))
    first, *later = published(4)
    assert (await process.update_weights(first)).by == "parcel"
    for publication in later:
        assert (await process.update_weights(publication)).by == "delta"
        assert holds(process, publication)
        assert fetched(publication) == (0, 1)


async def test_a_worker_that_starts_later_takes_the_parcel_and_fetches_no_delta(tmp_path):
    newest = published(3)[-1]
    process = Process(NodeFiles(tmp_path / "another node"))
    arrival = await process.update_weights(newest)
    assert (arrival.by, arrival.failure) == ("parcel", "")
    assert holds(process, newest)
    assert fetched(newest) == (1, 0)


async def test_a_version_missed_is_made_good_by_a_parcel(tmp_path):
    process = Process(NodeFiles(tmp_path / "files"))
    first, _, third = published(3)
    await process.update_weights(first)
    assert (await process.update_weights(third)).by == "parcel"
    assert holds(process, third)


@pytest.mark.parametrize("seed", range(5))
async def test_a_delta_or_a_base_that_was_damaged_is_told_and_followed_by_the_parcel(tmp_path, seed: int):
    dice = random.Random(seed)
    process = Process(NodeFiles(tmp_path / "files"))
    first, second, third = published(3)
    await process.update_weights(first)
    with (tmp_path / "files" / first.parcel.value.digest).open("r+b") as file:
        file.truncate(dice.randrange(1000))
    second_arrival = await process.update_weights(second)
    assert "cut short" in second_arrival.failure
    assert holds(process, second)
    delta: WeightDelta = third.delta.value
    words = delta.words.copy()
    words[dice.randrange(len(words))] ^= 1 << dice.randrange(16)
    arrival = await process.update_weights(
        dataclasses.replace(third, delta=Fetched(dataclasses.replace(delta, words=words)))
    )
    assert "digest" in arrival.failure
    assert arrival.by == "parcel"
    assert holds(process, third)


def announced(parcel: WeightParcel, *workers: str) -> WeightBroadcast:
    channel = Channel(name="c", address="", port=0, size=2, ranks=dict.fromkeys(workers, 1), deadline_s=1.0)
    return WeightBroadcast(version=parcel.version, digest=parcel.digest, index=parcel.index, channel=channel)


@pytest.mark.parametrize(
    ("worker", "is_sent", "way", "failure"),
    [
        ("rollout-0", True, "broadcast", ""),
        ("rollout-0", False, "parcel", "rollout-0: the broadcast broke off"),
        ("rollout-1", True, "parcel", ""),
    ],
    ids=["named", "named, broken off", "not named"],
)
async def test_a_worker_takes_the_broadcast_that_names_it_and_else_the_parcel(tmp_path, worker, is_sent, way, failure):
    process = Process(NodeFiles(tmp_path / "files"))
    publication = published(1)[0]
    parcel = publication.parcel.value
    process._engine.sent = parcel if is_sent else None
    arrival = await process.update_weights(dataclasses.replace(publication, broadcast=announced(parcel, worker)))
    assert (arrival.by, arrival.failure) == (way, failure)
    assert holds(process, publication)
    assert publication.parcel.count == (way == "parcel")
