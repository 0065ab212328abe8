import sys
from types import SimpleNamespace

import pytest
import torch

from cluster.weight_sender import WeightSender
from cluster.weights import WeightParcel, pack_weights


class Store:
    """Ray as far as a sender knows it: what is put is its own reference."""

    def __init__(self, nodes: list[bool]):
        self.ray = SimpleNamespace(
            put=lambda value: value, get=lambda value: value, nodes=lambda: [{"Alive": alive} for alive in nodes]
        )


def parcel(version: int, dtype: torch.dtype = torch.bfloat16) -> WeightParcel:
    """Versions of which one element in 50 differs."""
    weight = torch.ones(5000)
    weight[version::50] = 2.0
    return pack_weights([("w", weight.to(dtype))], version=version)


@pytest.mark.parametrize(
    ("nodes", "deltas", "is_delta"),
    [
        ([True, True], "between nodes", True),
        ([True], "between nodes", False),
        ([True, False], "between nodes", False),
        ([True], "always", True),
        ([True, True], "never", False),
    ],
    ids=["two nodes", "one node", "one living node", "one node, always", "two nodes, never"],
)
def test_deltas_are_made_where_another_node_may_fetch_them(monkeypatch, nodes, deltas: str, is_delta: bool):
    monkeypatch.setitem(sys.modules, "ray", Store(nodes).ray)
    sender = WeightSender(deltas=deltas)
    first, second = sender.put(parcel(1)), sender.put(parcel(2))
    assert (first.delta, first.base, first.size_bytes) == (None, "", parcel(1).size_bytes)
    assert second.parcel.digest == parcel(2).digest
    assert (second.delta is not None) == is_delta
    if is_delta:
        assert (second.base, second.delta.digest) == (parcel(1).digest, parcel(2).digest)
        assert second.size_bytes == second.delta.size_bytes < parcel(2).size_bytes / 5


def test_each_delta_starts_from_the_version_put_before(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", Store([True, True]).ray)
    sender = WeightSender()
    sent = [sender.put(parcel(version)) for version in (1, 2, 3)]
    assert [publication.base for publication in sent] == ["", parcel(1).digest, parcel(2).digest]


def test_another_model_starts_over_with_a_parcel(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", Store([True, True]).ray)
    sender = WeightSender()
    sender.put(parcel(1))
    assert sender.put(parcel(2, torch.float32)).delta is None
