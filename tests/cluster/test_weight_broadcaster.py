import threading
import time
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from cluster.engine.channel import ChannelBroken, Receiver
from cluster.weight_broadcaster import MOST_FAILURES, Broadcaster
from cluster.weights import WeightBroadcast, WeightParcel, pack_weights

CPU = torch.device("cpu")


class Engines:
    """Engines of which each is a Receiver."""

    def __init__(self) -> None:
        self.receivers: dict[str, Receiver] = defaultdict(Receiver)
        self._pool = ThreadPoolExecutor(8)

    def receive(self, broadcast: WeightBroadcast, name: str) -> Future:
        """Done once the engine has confirmed the digest."""
        rank = broadcast.channel.ranks[name]
        return self._pool.submit(self.receivers[name].take, broadcast, rank, CPU, lambda _: None)


def parcel(version: int) -> WeightParcel:
    return pack_weights([("w", torch.full((5000,), version)), ("v", torch.ones(3))], version=version)


@pytest.fixture
def broadcaster():
    failures: list[str] = []
    sender = Broadcaster("127.0.0.1", CPU, ranks_per_engine=1, on_failure=failures.append)
    yield sender, failures
    sender.close()


def send(sender: Broadcaster, engines: Engines, names: list[str], version: int) -> str:
    """The channel's name, once all have it."""
    with sender.sending(parcel(version), names) as broadcast:
        assert broadcast is not None
        assert (broadcast.version, set(broadcast.channel.ranks)) == (version, set(names))
        for confirmed in [engines.receive(broadcast, name) for name in names]:
            confirmed.result(20)
    return broadcast.channel.name


def test_engines_get_version_after_version_over_one_channel_while_they_are_the_same(broadcaster):
    sender, failures = broadcaster
    engines = Engines()
    names = [send(sender, engines, ["a", "b"], version) for version in (1, 2, 3)]
    assert len(set(names)) == 1
    joined = send(sender, engines, ["a", "b", "c"], 4)
    left = send(sender, engines, ["c", "a"], 5)
    assert len({*names, joined, left}) == 3
    assert failures == []


def test_each_engine_has_a_rank_for_each_of_its_processes():
    sender = Broadcaster("127.0.0.1", CPU, ranks_per_engine=2, on_failure=print)
    with sender.sending(parcel(1), ["b", "a"]) as broadcast:
        assert broadcast is not None
        assert (broadcast.channel.ranks, broadcast.channel.size) == ({"a": 1, "b": 3}, 5)


def test_nobody_to_send_to_is_no_broadcast(broadcaster):
    sender, failures = broadcaster
    with sender.sending(parcel(1), []) as broadcast:
        assert broadcast is None
    assert failures == []


def test_a_broadcast_that_nobody_came_for_ends_with_the_publication_and_the_next_one_is_sent(broadcaster):
    sender, failures = broadcaster
    engines = Engines()
    first = send(sender, engines, ["a"], 1)
    started = time.monotonic()
    with sender.sending(parcel(2), ["b"]):
        time.sleep(0.1)
    assert time.monotonic() - started < 5
    (reason,) = failures
    assert "of 2 members 1 did not come" in reason
    assert send(sender, engines, ["a"], 3) != first
    assert len(failures) == 1


def test_an_engine_that_dies_in_between_costs_one_broadcast(broadcaster):
    sender, failures = broadcaster
    engines = Engines()
    send(sender, engines, ["a", "b"], 1)
    engines.receivers["b"].close()
    with sender.sending(parcel(2), ["a", "b"]) as broadcast:
        assert broadcast is not None
        assert isinstance(engines.receive(broadcast, "a").exception(20), ChannelBroken | None)  # it may have been first
    assert len(failures) == 1
    send(sender, engines, ["a"], 3)
    assert len(failures) == 1


def test_after_failures_in_a_row_it_is_given_up_and_said_so(broadcaster):
    sender, failures = broadcaster
    for version in range(MOST_FAILURES):
        with sender.sending(parcel(version), ["a"]) as broadcast:
            assert broadcast is not None
    with sender.sending(parcel(9), ["a"]) as broadcast:
        assert broadcast is None
    assert [reason.endswith("from now on all engines fetch their weights") for reason in failures] == [
        False, False, True,
    ]  # fmt: skip
    assert not any(thread.name == "weight-broadcast" for thread in threading.enumerate())
