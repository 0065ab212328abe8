"""The learner's end of the road: each version goes into the object store as a parcel, and as a delta where that helps."""

from typing import Any

from cluster.weight_delta import delta_between
from cluster.weights import Publication, WeightParcel


class WeightSender:
    """Puts one version after another.

    Beside the parcel that is sent, this node's object store keeps the one before, which the orchestrator holds anyway for
    workers that start meanwhile. A delta takes at most `weight_delta.SHARE` of a parcel in this process while it is made,
    and as much of the store until the next version is there.
    """

    def __init__(self, *, always: bool = False) -> None:
        """Args: always: make deltas in a cluster of one node too, where nothing is transferred that they could spare."""
        self._always = always
        self._newest: Any = None  # reference to the parcel that was put last

    def put(self, parcel: WeightParcel) -> Publication:
        """The references under which workers find the parcel."""
        import ray

        # by reference, and mapped only here: the store may spill it to disk while episodes are played
        base = ray.get(self._newest) if self._newest is not None and (self._always or _nodes() > 1) else None
        delta = None if base is None else delta_between(base, parcel)
        self._newest = ray.put(parcel)
        if delta is None:
            return Publication(parcel=self._newest, size_bytes=parcel.size_bytes)
        return Publication(parcel=self._newest, delta=ray.put(delta), base=delta.base, size_bytes=delta.size_bytes)


def _nodes() -> int:
    """Living nodes of the cluster."""
    import ray

    return sum(node["Alive"] for node in ray.nodes())
