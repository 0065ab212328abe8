"""What the orchestrator asks of a rollout worker, and how its failures are called."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.engine.reply import History
from cluster.ledger import Order, Receipt
from cluster.shares import Entry
from cluster.weights import Arrival
from envs.base import ViterError


class WorkerDied(ViterError):
    """A rollout worker is gone or hangs; what it held will be played again."""


class WeightsLost(ViterError):
    """A parcel of weights went with the process that made it."""


class WorkersFailed(ViterError):
    """Rollout workers die again and again, or no verifier judges anything: the run cannot go on."""


class Superseded(ViterError):
    """The learner went back to an earlier step while this call was waiting."""


class Worker(Protocol):
    """One rollout worker, wherever it lives. Every method raises `WorkerDied` when it is gone."""

    name: str
    node: str
    """Where it runs."""

    async def give(self, orders: Sequence[Order]) -> None: ...

    async def collect(self) -> tuple[list[Receipt], Any]:
        """Receipts, and a reference to the batch that holds their episodes."""

    async def drop(self) -> None: ...

    async def update_weights(self, parcel: Any, version: int) -> Arrival:
        """Returns once the engine has confirmed the weights' digest. Raises also `WeightsLost`."""

    async def score(self, histories: list[History]) -> list[list[float]]: ...

    async def bury(self) -> None:
        """End the process if it still runs. Never raises."""


Spawn = Callable[[int, str], Awaitable[Worker]]
"""Starts the worker of a place under a name; returns once its engine is up. Raises `WorkerDied`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Rows of one record batch, to be read by the learner rank that took them."""

    batch: Any  # reference to a record batch of episodes
    rows: tuple[int, ...]


def shares_of(entries: Sequence[Entry]) -> list[Share]:
    """Episodes by the batch they lie in."""
    rows: dict[Any, list[int]] = {}
    for entry in entries:
        batch, row = entry.place
        rows.setdefault(batch, []).append(row)
    return [Share(batch=batch, rows=tuple(chosen)) for batch, chosen in rows.items()]
