"""A parcel of weights sent to all engines at once, by the first learner rank, without the object store."""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cluster.weights import Channel, WeightBroadcast, WeightParcel, tensors_of

if TYPE_CHECKING:
    import torch

    from cluster.engine.channel import ChannelEnd

MEET_S = 30.0  # for engines to pause and come to a channel
SETTLE_S = 5.0  # for the sender to hear that everybody has everything
SLOWEST_BYTES_S = 2**28  # a broadcast that is slower is taken for a broken one
MOST_FAILURES = 3  # broadcasts in a row; then the run goes on by parcels


class Broadcaster:
    """Sends parcels to engines over a channel, which is formed anew whenever other engines are there than before.

    It sends what lies in the parcel, which is made anyway for engines that start later: so engines pause only while bytes
    travel, and not while the learners' shards are gathered. What fails costs that one transfer: engines that were not
    reached fetch the parcel.
    """

    def __init__(
        self, address: str, device: "torch.device", *, ranks_per_engine: int, on_failure: Callable[[str], None]
    ) -> None:
        """Args:
        address: of this host, to which engines connect.
        device: a GPU for NCCL, or the CPU for gloo.
        on_failure: told in a sentence why a broadcast was not sent to its end.
        """
        self._address, self._device, self._ranks = address, device, ranks_per_engine
        self._on_failure = on_failure
        self._store: Any = None  # of all channels
        self._channel: Channel | None = None
        self._end: ChannelEnd | None = None  # of that channel
        self._failures = 0  # in a row

    @contextmanager
    def sending(self, parcel: WeightParcel, engines: Sequence[str]) -> Iterator[WeightBroadcast | None]:
        """What the engines must be told; they get it while the block lasts. None where there is nobody to send it to."""
        if not engines or self._failures >= MOST_FAILURES:
            yield None
            return
        channel = self._channel_to(parcel, engines)
        is_over = threading.Event()
        sender = threading.Thread(
            target=self._send, args=(parcel, channel, is_over), name="weight-broadcast", daemon=True
        )
        sender.start()
        try:
            yield WeightBroadcast(version=parcel.version, digest=parcel.digest, index=parcel.index, channel=channel)
        finally:  # everybody has the weights now, or has died, or has been told to fetch the parcel
            is_over.set()
            sender.join(SETTLE_S)
            if sender.is_alive():
                self._fail("it did not end though all engines had answered")

    def close(self) -> None:
        """Leave the channel."""
        if self._end is not None:
            self._end.close()
        self._end = self._channel = None

    def _channel_to(self, parcel: WeightParcel, engines: Sequence[str]) -> Channel:
        from cluster.engine.channel import host_store

        deadline_s = MEET_S + parcel.size_bytes / SLOWEST_BYTES_S
        if self._store is None:
            self._store = host_store(self._address, deadline_s)
        ranks = {name: 1 + i * self._ranks for i, name in enumerate(sorted(engines))}
        if self._channel is None or self._channel.ranks != ranks:
            self.close()
            self._channel = Channel(
                name=uuid.uuid4().hex[:12],
                address=self._address,
                port=self._store.port,
                size=1 + len(ranks) * self._ranks,
                ranks=ranks,
                deadline_s=deadline_s,
            )
        return self._channel

    def _send(self, parcel: WeightParcel, channel: Channel, is_over: threading.Event) -> None:
        from cluster.engine.channel import ChannelBroken, open_end

        try:
            if self._end is None:
                self._end = open_end(
                    channel, 0, self._device, hosted=self._store, is_wanted=lambda: not is_over.is_set()
                )
            self._end.send(tensors_of(parcel))
        except ChannelBroken as error:
            self._fail(str(error))
        else:
            self._failures = 0

    def _fail(self, reason: str) -> None:
        """The next broadcast, if there is to be one, forms a new channel."""
        self._failures += 1
        self.close()
        last = "" if self._failures < MOST_FAILURES else "; from now on all engines fetch their weights"
        self._on_failure(f"{reason}{last}")
