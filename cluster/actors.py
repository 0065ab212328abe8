"""Every Ray actor there is, with its resources and restarts; around each a plain class that knows nothing of Ray.

    actor              process of        resources                    restarts
    OrchestratorActor  Orchestrator      none to speak of             by Ray, with nothing in its ledger; the learner then
                                                                      publishes again and steps are played anew
    RolloutActor       RolloutWorker     its bundle of the group      never by Ray: the orchestrator starts another, armed
    VerifierActor      VerifierWorker    `placement.verifier_cpus`    by Ray, for ever
    StageLogActor      StageLog          none to speak of             never

The orchestrator owns rollout and verifier actors: they end with it.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from cluster.config import RunConfig
from cluster.crew import Crew, RemoteJudge
from cluster.engine.node_files import BaseMissing
from cluster.engine.reply import History, WeightsRefused
from cluster.ledger import Ledger, Order, Receipt
from cluster.orchestrator import Orchestrator
from cluster.placement import plan
from cluster.rollout_spec import RolloutSpec
from cluster.rollout_worker import RolloutWorker
from cluster.stage_log import StageLog
from cluster.tally import Event, Tally
from cluster.verifiers import VerifierPool, VerifierWorker
from cluster.weights import Arrival, Publication
from cluster.worker import Share
from trainers.chat import ChatFormat
from trainers.sources import model_directory


@ray.remote(max_restarts=-1, max_task_retries=0)
class VerifierActor(VerifierWorker):
    """A VerifierWorker in a process of its own."""

    def ping(self) -> int:
        """The process id."""
        return os.getpid()


class RolloutProcess:
    """A RolloutWorker beside the engine that it starts and the verifiers that it asks."""

    def __init__(self, spec: RolloutSpec, name: str, verifiers: Sequence[Any]) -> None:
        self._spec, self._name = spec, name
        self._pool = VerifierPool([RemoteJudge(handle) for handle in verifiers], spec.verdict_deadline_s)
        self._worker: RolloutWorker | None = None

    async def node(self) -> str:
        """Id of the node it lies on: answers as soon as there is one."""
        return str(ray.get_runtime_context().get_node_id())

    async def start(self) -> int:
        """Returns the process id once the engine is up."""
        spec = self._spec
        model = await asyncio.to_thread(model_directory, spec.source, store=spec.store)
        chat = ChatFormat.load(model)
        self._engine = await self._start_engine(model)
        self._worker = RolloutWorker(
            self._engine,
            spec.environment_at,
            chat,
            self._pool.verify,
            decoding=spec.decoding,
            seed=spec.seed,
            episodes_in_flight=spec.episodes_in_flight,
            name=self._name,
        )
        return os.getpid()

    async def _start_engine(self, model: Path) -> Any:
        from cluster.engine import Engine

        return await Engine.start(model, self._spec.engine)

    async def give(self, orders: Sequence[Order]) -> None:
        await self._playing.give(orders)

    @ray.method(num_returns=2)
    async def collect(self) -> tuple[list[Receipt], Any]:
        receipts, batch = await self._playing.collect()
        return receipts, batch

    async def drop(self) -> None:
        await self._playing.drop()

    async def update_weights(self, publication: Publication) -> Arrival:
        """Returns once the engine has confirmed the weights' digest: by the broadcast where it names this worker, by the
        delta where this node holds its base.

        Whatever keeps these from leading there, the parcel is fetched; until it is in, nothing is sampled from what
        went wrong.
        """
        failure = ""
        try:
            if publication.broadcast is not None and self._name in publication.broadcast.channel.ranks:
                await self._engine.take_broadcast(publication.broadcast, self._name)
                return Arrival(by="broadcast")
            if publication.delta is not None and self._engine.has_parcel(publication.base):
                await self._engine.update_weights(await publication.delta)
                return Arrival(by="delta")
        except (BaseMissing, WeightsRefused) as error:
            failure = str(error)
        await self._engine.update_weights(await publication.parcel)
        return Arrival(by="parcel", failure=failure)

    async def score(self, histories: list[History]) -> list[list[float]]:
        return await self._engine.score(histories)

    def verifier_stats(self) -> dict[str, float]:
        """Counts of this worker's verifier pool."""
        stats = self._pool.stats
        return {"verifier_queue": self._pool.depth, **{name: getattr(stats, name) for name in stats.__slots__}}

    @property
    def _playing(self) -> RolloutWorker:
        assert self._worker is not None, "start() comes first"
        return self._worker


as_rollout_actor = ray.remote(max_restarts=0, max_concurrency=256)
"""Makes an actor of a RolloutProcess. One that dies stays dead: the orchestrator starts the next."""


@as_rollout_actor
class RolloutActor(RolloutProcess):
    """A RolloutProcess as an actor."""


@ray.remote(max_restarts=-1, max_task_retries=0, max_concurrency=1024, num_cpus=0)
class OrchestratorActor:
    """The Orchestrator of one PPO stage, with the verifiers and rollout workers that it starts."""

    def __init__(self, config: RunConfig, source: str, rollout_actor: Any = None) -> None:
        """Args: rollout_actor: another actor class in place of RolloutActor, with another engine."""
        ppo = config.ppo
        assert ppo is not None
        spec = RolloutSpec.of(config, source)
        tally = Tally()
        self._crew = Crew(plan(config), rollout_actor or RolloutActor, VerifierActor, spec, tally)
        self._orchestrator = Orchestrator(
            self._crew.spawn,
            ledger=Ledger(episodes=ppo.episodes, steps=ppo.steps, max_staleness=ppo.max_staleness),
            workers=config.rollout.workers,
            most_workers=config.rollout.max_workers,
            episodes_in_flight=spec.episodes_in_flight,
            tally=tally,
        )

    async def start(self) -> None:
        """Start the workers; returns at once. `publish` waits for them and raises what keeps them from starting."""
        await self._orchestrator.start()

    async def roster(self) -> list[str]:
        """Names of the rollout workers that play: who can take part in a broadcast."""
        return self._orchestrator.roster()

    async def publish(self, publication: Publication, version: int) -> None:
        if publication.broadcast and not set(publication.broadcast.channel.ranks) <= set(self._orchestrator.roster()):
            publication = replace(publication, broadcast=None)  # of no use to anybody without all whom it names
        await self._orchestrator.publish(publication, version)

    async def take(self, count: int, *, step: int, rank: int = 0, world_size: int = 1) -> list[Share]:
        return await self._orchestrator.take(count, step=step, rank=rank, world_size=world_size)

    async def rewind(self, step: int) -> None:
        await self._orchestrator.rewind(step)

    async def probe(self, histories: list[History]) -> dict[str, list[list[float]]]:
        return await self._orchestrator.probe(histories)

    async def slots_idle(self) -> float:
        return self._orchestrator.slots_idle()

    async def stats(self) -> dict[str, float]:
        return {**self._orchestrator.stats(), **await self._crew.verifier_stats()}

    async def events(self) -> list[Event]:
        return self._orchestrator.events()

    async def processes(self) -> dict[str, int]:
        """Process ids of living rollout workers by name, and of verifiers as `verifier-0` and so on."""
        return await self._crew.processes()

    async def close(self) -> None:
        """End the rollout workers and free their room; the verifiers end with this actor."""
        await self._orchestrator.close()
        await self._crew.close()


@ray.remote(num_cpus=0)
class StageLogActor(StageLog):
    """The StageLog of one stage."""
