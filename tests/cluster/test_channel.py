import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from cluster.engine.channel import ChannelBroken, ChannelEnd, host_store, open_end
from cluster.weights import Channel, pack_weights, tensors_of

CPU = torch.device("cpu")
GPUS = torch.cuda.device_count()
HERE = "127.0.0.1"


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    make = torch.Generator().manual_seed(seed)
    return {
        "embed": torch.randn(37, 8, generator=make),
        "norm": torch.randn(8, generator=make).bfloat16(),
        "scale": torch.tensor(2.5),
    }


class Meeting:
    """A channel whose members are threads of this process; each sends or receives what its own end does."""

    def __init__(self, size: int, *, deadline_s: float = 20.0):
        self.store = host_store(HERE, deadline_s)
        self.channel = Channel(
            name="test", address=HERE, port=self.store.port, size=size, ranks={}, deadline_s=deadline_s
        )
        self.pool = ThreadPoolExecutor(size)

    def member(self, rank: int, does: Callable[[ChannelEnd], object], device: torch.device = CPU, **options) -> Future:
        def join():
            end = open_end(self.channel, rank, device, hosted=None if rank else self.store, **options)
            return does(end)

        return self.pool.submit(join)


def receiving(seed: int = 0, times: int = 1):
    index = pack_weights(weights(seed).items(), version=1).index

    def receive(end: ChannelEnd) -> list[dict[str, torch.Tensor]]:
        found: list[dict[str, torch.Tensor]] = []
        for _ in range(times):
            found.append({})
            end.receive(index, lambda tensors: found[-1].update(tensors))
        return found

    return receive


def sending(*seeds: int):
    def send(end: ChannelEnd) -> None:
        for seed in seeds:
            end.send(tensors_of(pack_weights(weights(seed).items(), version=1)))

    return send


def test_every_member_gets_every_tensor_of_each_version_as_it_was_sent():
    meeting = Meeting(4)
    members = [meeting.member(rank, receiving(times=2)) for rank in (1, 2, 3)]
    meeting.member(0, sending(1, 2)).result(30)
    for member in members:
        for seed, found in zip((1, 2), member.result(30), strict=True):
            assert list(found) == list(weights())
            for name, tensor in weights(seed).items():
                assert found[name].dtype == tensor.dtype
                assert torch.equal(found[name], tensor), name


@pytest.mark.skipif(GPUS < 2, reason=f"needs two GPUs, and there are {GPUS}: the broadcast by NCCL is not tested here")
def test_gpus_get_every_tensor_over_nccl():
    meeting = Meeting(2)
    member = meeting.member(1, receiving(times=2), device=torch.device("cuda", 1))
    meeting.member(0, sending(1, 2), device=torch.device("cuda", 0)).result(60)
    for seed, found in zip((1, 2), member.result(60), strict=True):
        assert {name: tensor.device.index for name, tensor in found.items()} == dict.fromkeys(weights(), 1)
        assert all(torch.equal(found[name].cpu(), tensor) for name, tensor in weights(seed).items())


def test_nobody_begins_without_all_members_and_those_missing_are_named():
    meeting = Meeting(4, deadline_s=0.5)
    members = [meeting.member(0, sending(1)), meeting.member(2, receiving())]
    for member in members:
        with pytest.raises(ChannelBroken, match="of 4 members 1, 3 did not come"):
            member.result(10)


def test_whoever_is_not_wanted_any_more_stops_waiting():
    meeting, is_over = Meeting(2), threading.Event()
    sender = meeting.member(0, sending(1), is_wanted=lambda: not is_over.is_set())
    time.sleep(0.1)
    assert not sender.done()
    is_over.set()
    with pytest.raises(ChannelBroken, match="did not come"):
        sender.result(5)


def test_a_sender_that_stops_half_way_leaves_no_receiver_waiting():
    meeting = Meeting(3)

    def send_half(end: ChannelEnd) -> None:
        end.send(list(weights().items())[:2])
        end.close()

    members = [meeting.member(rank, receiving()) for rank in (1, 2)]
    meeting.member(0, send_half).result(10)
    for member in members:
        with pytest.raises(ChannelBroken, match="broke off"):
            member.result(10)


def test_where_a_member_falls_silent_the_deadline_ends_the_transfer():
    meeting, goes = Meeting(2, deadline_s=1.0), threading.Event()
    silent = meeting.member(0, lambda _: goes.wait(20))
    try:
        started = time.monotonic()
        with pytest.raises(ChannelBroken, match="broke off"):
            meeting.member(1, receiving()).result(10)
        assert time.monotonic() - started < 5
    finally:
        goes.set()
        silent.result(5)


def test_a_store_that_is_gone_is_said_so_at_once():
    nowhere = Channel(name="test", address=HERE, port=1, size=2, ranks={}, deadline_s=60.0)
    started = time.monotonic()
    with pytest.raises(ChannelBroken, match=r"channel test: .*refused"):
        open_end(nowhere, 1, CPU)
    assert time.monotonic() - started < 10
