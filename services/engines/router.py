"""Ray Serve's request router for replicas: it asks `routing` where a request goes. Each handle has one of its own.

A request names its checkpoint's digest as its multiplexed model id, and a replica says what it holds in its routing
stats: Serve's own two ways to tell a router. Serve pickles this module by value, so what it shares with the rest of its process it
reaches through another module.
"""

from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from services.engines import lifelines
from services.engines.routing import Told, Traffic

STATS_EVERY_S = 1.0
PLAY = "play"  # the method of a replica that plays an evaluation's share


class DigestRouter(RequestRouter):
    """Sends requests where their checkpoint is held already."""

    def initialize_state(self, *, full: int, share: int) -> None:  # type: ignore[override]
        """Args: full: requests that an engine answers at once. share: episodes that an evaluation plays at once."""
        self._traffic = Traffic(full=full)
        self._share = share

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        by_id = {replica.replica_id: replica for replica in candidate_replicas}
        self._traffic.tell({key: _told(replica) for key, replica in by_id.items()})
        asked = pending_request.metadata if pending_request else None
        digest = asked.multiplexed_model_id if asked else ""
        weight = self._share if asked and asked.call_method == PLAY else 1
        ranked = self._traffic.ranked(digest, weight)
        if pending_request and digest and ranked and not pending_request.future.done():
            # at once, so that whoever comes next sees it; put right where another replica takes the request
            self._traffic.send(pending_request.metadata.internal_request_id, ranked[0], digest, weight)
            pending_request.future.add_done_callback(
                lambda future: self._settle(pending_request, future, digest, weight)
            )
        return [[by_id[key]] for key in ranked]

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:  # noqa: ARG002  # Serve's signature
        self._traffic.done(internal_request_id)

    def _settle(self, pending: PendingRequest, future: Any, digest: str, weight: int) -> None:
        """Whoever asked has a replica, or has gone away."""
        request = pending.metadata.internal_request_id
        if future.cancelled() or future.exception() is not None:
            self._traffic.done(request)
            return
        replica: RunningReplica = future.result()
        self._traffic.send(request, replica.replica_id, digest, weight)
        if not pending.metadata.is_streaming:
            lifelines.HERE.sent(pending.metadata.request_id, replica, on_gone=self.on_replica_actor_died)


def _told(replica: RunningReplica) -> Told:
    stats = replica.routing_stats
    return Told(digest=stats.get("digest"), users=int(stats.get("users", 0)), is_up=stats.get("is_up", False))
