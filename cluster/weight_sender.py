"""The learner's end of the road: each version goes into the object store, and from there or by a broadcast into engines."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from cluster.config import RunConfig
from cluster.weight_broadcaster import Broadcaster
from cluster.weight_delta import delta_between
from cluster.weights import Publication, WeightParcel

if TYPE_CHECKING:
    import torch

Deltas = Literal["never", "between nodes", "always"]


class Publisher:
    """Takes one version after another to every engine of an orchestrator."""

    def __init__(
        self, orchestrator: Any, of: RunConfig, device: "torch.device", *, on_failure: Callable[[str], None],
        deltas: Deltas = "between nodes",
    ) -> None:  # fmt: skip
        """Args:
        orchestrator: the actor's handle.
        device: of this process, where weights are broadcast.
        on_failure: told why a broadcast was not sent to its end.
        deltas: see WeightSender; none are made beside broadcasts.
        """
        import ray.util

        self._orchestrator = orchestrator
        self._broadcaster: Broadcaster | None = None
        if of.broadcasts_weights:
            self._broadcaster = Broadcaster(
                ray.util.get_node_ip_address(),
                device,
                ranks_per_engine=of.rollout.engine.tensor_parallel,
                on_failure=on_failure,
            )
        self._sender = WeightSender(deltas="never" if of.broadcasts_weights else deltas)

    def publish(self, parcel: WeightParcel) -> Publication:
        """What went out, once every engine that may sample has confirmed it. Raises what `Orchestrator.publish` raises."""
        import ray

        publication = self._sender.put(parcel)
        if self._broadcaster is None:
            ray.get(self._orchestrator.publish.remote(publication, version=parcel.version))
            return publication
        with self._broadcaster.sending(parcel, ray.get(self._orchestrator.roster.remote())) as broadcast:
            publication = replace(publication, broadcast=broadcast)
            ray.get(self._orchestrator.publish.remote(publication, version=parcel.version))
        return publication


class WeightSender:
    """Puts one version after another.

    Beside the parcel that is sent, this node's object store keeps the one before, which the orchestrator holds anyway for
    workers that start meanwhile. A delta takes at most `weight_delta.SHARE` of a parcel in this process while it is made,
    and as much of the store until the next version is there.
    """

    def __init__(self, *, deltas: Deltas = "between nodes") -> None:
        """Args: deltas: "between nodes" makes none in a cluster of one, where nothing is transferred that they could spare."""
        self._deltas = deltas
        self._newest: Any = None  # reference to the parcel that was put last

    def put(self, parcel: WeightParcel) -> Publication:
        """The references under which workers find the parcel."""
        import ray

        # by reference, and mapped only here: the store may spill it to disk while episodes are played
        is_useful = self._deltas == "always" or (self._deltas == "between nodes" and _nodes() > 1)
        base = ray.get(self._newest) if self._newest is not None and is_useful else None
        delta = None if base is None else delta_between(base, parcel)
        self._newest = ray.put(parcel)
        if delta is None:
            return Publication(parcel=self._newest, size_bytes=parcel.size_bytes)
        return Publication(parcel=self._newest, delta=ray.put(delta), base=delta.base, size_bytes=delta.size_bytes)


def _nodes() -> int:
    """Living nodes of the cluster."""
    import ray

    return sum(node["Alive"] for node in ray.nodes())
