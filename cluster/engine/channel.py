"""The ends of a channel: a group of the first learner rank and engines, over which every engine gets the same tensors.

    sender    open_end(rank 0) ─┐                     ┌─► send(tensors)
                                ├─ all are here, or ──┤
    receiver  open_end(rank k) ─┘  none begins        └─► receive(index, load)

On GPUs vLLM's NCCL communicator and its packed broadcast carry them, on CPUs gloo. Whoever meets is in a TCPStore of the
sender's process. What a collective needs most is a way out of it: both ends give up at the channel's deadline, and no end
is used again after a failure. Nothing here proves what arrived; receivers compare digests.
"""

import datetime
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.distributed as dist

from cluster.weights import Channel, ParcelWitness, TensorPlace, WeightBroadcast
from envs.base import ViterError

REACH_S = 5.0  # for the store to take a connection
LOOK_S = 0.02  # between two looks for who has come
PACKED_BYTES = 256 * 2**20  # that NCCL sends at a time; two such buffers are held at either end

Named = tuple[str, torch.Tensor]
Load = Callable[[Sequence[Named]], None]


class ChannelBroken(ViterError):
    """A member is missing, or fell out while weights were on their way."""


class ChannelEnd(Protocol):
    """One member's end."""

    def send(self, tensors: Iterable[Named]) -> None: ...

    def receive(self, index: Sequence[TensorPlace], load: Load) -> None:
        """Hands what arrives to `load`, in the order of the index, in one call or many."""

    def close(self) -> None:
        """Leave the group, also in the midst of a transfer, which then ends with an error or with what came so far."""


def host_store(address: str, deadline_s: float) -> dist.TCPStore:
    """The store of channels that are formed at this process. Its port is the system's choice."""
    return dist.TCPStore(
        address, 0, is_master=True, wait_for_workers=False, timeout=datetime.timedelta(seconds=deadline_s)
    )


def open_end(channel: Channel, rank: int, device: torch.device, *, hosted: dist.TCPStore | None = None,
             is_wanted: Callable[[], bool] = lambda: True) -> ChannelEnd:  # fmt: skip
    """This member's end, once all members are here.

    Args:
        hosted: the channel's store, in the process that hosts it.
        is_wanted: asked while members are missing; no ends the waiting.
    Raises:
        ChannelBroken: they are not within the channel's deadline.
    """
    deadline = datetime.timedelta(seconds=channel.deadline_s)
    try:
        if hosted is None:  # TCPStore would try for as long as the deadline; who hosts it did so before telling of it
            socket.create_connection((channel.address, channel.port), timeout=REACH_S).close()
        store = hosted or dist.TCPStore(channel.address, channel.port, timeout=deadline)
        here = dist.PrefixStore(channel.name, store)
        _meet(here, channel, rank, is_wanted)
        if device.type == "cuda":
            return NcclEnd(here, channel, rank, device)
        return GlooEnd(here, channel, rank)
    except (RuntimeError, OSError) as error:  # torch's DistStoreError and DistNetworkError are RuntimeErrors
        raise ChannelBroken(f"channel {channel.name}: {_line(error)}") from None


class Receiver:
    """One engine process's side: its end of one channel, kept for the versions to come."""

    def __init__(self) -> None:
        self._end: ChannelEnd | None = None
        self._joined = ""  # name of that channel

    def take(self, broadcast: WeightBroadcast, rank: int, device: torch.device, load: Load) -> None:
        """Hand what arrives to `load`; returns once its digest is the announced one.

        Raises:
            ChannelBroken: or, where other bytes came, ValueError. The end is closed then: it is of no use to anybody.
        """
        witness = ParcelWitness(broadcast.index)

        def witnessed(tensors: Sequence[Named]) -> None:
            for name, tensor in tensors:
                witness.see(name, tensor)
            load(tensors)

        try:
            self._end_of(broadcast.channel, rank, device).receive(broadcast.index, witnessed)
            witness.verify(broadcast.digest)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._end is not None:
            self._end.close()
            self._end = None

    def _end_of(self, channel: Channel, rank: int, device: torch.device) -> ChannelEnd:
        if self._end is None or self._joined != channel.name:
            self.close()
            self._end, self._joined = open_end(channel, rank, device), channel.name
        return self._end


def _meet(here: dist.Store, channel: Channel, rank: int, is_wanted: Callable[[], bool]) -> None:
    """Returns when every member has come. To form a group without one of them would block, in NCCL for ever."""
    here.set(f"here-{rank}", "")
    ends = time.monotonic() + channel.deadline_s
    names = [f"here-{member}" for member in range(channel.size)]
    while not here.check(names):
        if time.monotonic() > ends or not is_wanted():
            missing = [name.removeprefix("here-") for name in names if not here.check([name])]
            raise ChannelBroken(f"channel {channel.name}: of {channel.size} members {', '.join(missing)} did not come")
        time.sleep(LOOK_S)


class GlooEnd:
    """Tensors one by one. Every operation has gloo's own deadline, and a member's death ends it at once."""

    def __init__(self, store: dist.Store, channel: Channel, rank: int) -> None:
        options = dist.ProcessGroupGloo._Options()
        options._timeout = datetime.timedelta(seconds=channel.deadline_s)
        # by the address that leads to the other members: a host's own name may mean its loopback
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=_own_address(channel))]
        self._group: dist.ProcessGroupGloo | None = dist.ProcessGroupGloo(
            dist.PrefixStore("gloo", store), rank, channel.size, options
        )

    def send(self, tensors: Iterable[Named]) -> None:
        for _, tensor in tensors:
            self._broadcast(tensor)

    def receive(self, index: Sequence[TensorPlace], load: Load) -> None:
        for place in index:
            tensor = torch.empty(place.shape, dtype=_dtype(place))
            self._broadcast(tensor)
            load([(place.name, tensor)])

    def _broadcast(self, tensor: torch.Tensor) -> None:
        group = self._group
        if group is None:
            raise ChannelBroken("the broadcast broke off: this end was closed")
        with _broken():
            group.broadcast(tensor.view(-1).view(torch.uint8), 0).wait()

    def close(self) -> None:
        if self._group is not None:
            self._group.abort()
        self._group = None  # its connections are closed with it


class NcclEnd:
    """vLLM's packed broadcast over vLLM's communicator.

    Nothing ends a collective of NCCL from within, so a watch aborts the communicator at the deadline. What was received by
    then is whatever lies in the buffers. To form the group has no such end: an engine that hangs there, though all have come,
    is ended by the orchestrator.
    """

    def __init__(self, store: dist.Store, channel: Channel, rank: int, device: torch.device) -> None:
        from vllm.distributed.device_communicators.pynccl import PyNcclCommunicator
        from vllm.distributed.utils import StatelessProcessGroup
        from vllm.utils.nccl import unpinned_nccl_env

        self._deadline_s, self._device = channel.deadline_s, device
        torch.accelerator.set_device_index(device)
        group = StatelessProcessGroup(rank, channel.size, dist.PrefixStore("nccl", store))
        with unpinned_nccl_env():
            self._communicator = PyNcclCommunicator(group, device=device)
        if self._communicator.disabled:  # its broadcasts would do nothing and say nothing
            raise ChannelBroken(f"channel {channel.name}: vLLM finds no NCCL here")

    def send(self, tensors: Iterable[Named]) -> None:
        from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_producer

        torch.accelerator.set_device_index(self._device)  # each thread has its own, and this may be another
        with _broken(), self._watched():
            packed_nccl_broadcast_producer(
                iter(tensors), self._communicator, 0, lambda item: item[1].to(self._device), PACKED_BYTES
            )

    def receive(self, index: Sequence[TensorPlace], load: Load) -> None:
        from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_consumer

        shapes = ((place.name, (list(place.shape), _dtype(place))) for place in index)
        with _broken(), self._watched():
            packed_nccl_broadcast_consumer(shapes, self._communicator, 0, load, PACKED_BYTES, device=self._device)

    def close(self) -> None:
        self._communicator.destroy()  # aborts

    @contextmanager
    def _watched(self) -> Iterator[None]:
        watch = threading.Timer(self._deadline_s, self.close)
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()


@contextmanager
def _broken() -> Iterator[None]:
    """What a library says of a transfer that failed, as ChannelBroken."""
    try:
        yield
    except RuntimeError as error:
        raise ChannelBroken(f"the broadcast broke off: {_line(error)}") from None


def _own_address(channel: Channel) -> str:
    """This host's address on the way to the channel's. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((channel.address, channel.port))
        return str(probe.getsockname()[0])


def _dtype(place: TensorPlace) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, place.dtype)
    return dtype


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
