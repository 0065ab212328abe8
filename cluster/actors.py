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
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.util
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

import envs
from cluster.config import EngineConfig, RunConfig
from cluster.ledger import Ledger, Order, Receipt
from cluster.orchestrator import Event, Orchestrator, Share, WeightsLost, Worker, WorkerDied
from cluster.placement import Plan, plan
from cluster.rollout import PATIENCE_S, Decoding, RolloutWorker
from cluster.stage_log import StageLog
from cluster.verifiers import JudgeDied, Judgement, Question, VerifierPool, VerifierWorker
from envs.base import ConfigError, DataError
from trainers.chat import ChatFormat
from trainers.config import PpoConfig
from trainers.sources import model_directory

SILENCE_S = PATIENCE_S + 115.0  # a worker answers `collect` within its patience; one silent for longer hangs
START_S = 1800.0  # loading and compiling a large model may take this long
WEIGHTS_S = 600.0  # a worker that cannot take new weights in this time hangs
PING_S = 5.0  # a verifier that does not answer a ping in this time is ended, and Ray starts it again


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpec:
    """What a rollout worker must know to start. Travels by pickle inside the cluster."""

    environment: str
    options: dict[str, Any]
    source: str  # where the model's architecture and tokenizer come from, see `trainers.sources`
    store: str
    engine: EngineConfig
    decoding: Decoding
    seed: int
    episodes_in_flight: int
    verdict_deadline_s: float

    @classmethod
    def of(cls, config: RunConfig, source: str) -> "RolloutSpec":
        """The workers of the PPO stage of a run, on the model that `source` names."""
        ppo, rollout = config.ppo, config.rollout
        assert isinstance(ppo, PpoConfig)
        options = {**config.environment.options, "viter": ppo.viter}
        if ppo.deals is not None:
            options["deals"] = ppo.deals
        return cls(
            environment=config.environment.name,
            options=options,
            source=source,
            store=config.store.uri,
            engine=rollout.engine,
            decoding=Decoding(
                temperature=ppo.temperature,
                max_tokens=ppo.answer_tokens,
                max_model_len=rollout.engine.max_model_len,
            ),
            seed=ppo.seed,
            episodes_in_flight=rollout.episodes_in_flight,
            verdict_deadline_s=rollout.verdict_deadline_s,
        )


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

    async def start(self) -> int:
        """Returns the process id once the engine is up."""
        spec = self._spec
        model = await asyncio.to_thread(model_directory, spec.source, store=spec.store)
        chat = ChatFormat.load(model)
        self._engine = await self._start_engine(model)
        self._worker = RolloutWorker(
            self._engine,
            envs.make(spec.environment, **spec.options),
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

    async def update_weights(self, parcel: Sequence[Any]) -> None:
        """Args: parcel: one reference in a list, so that Ray leaves the fetching of it to this process."""
        await self._engine.update_weights(await parcel[0])

    async def score(self, sequences: list[list[int]]) -> list[list[float]]:
        return await self._engine.score(sequences)

    def verifier_stats(self) -> dict[str, float]:
        """Counts of this worker's verifier pool."""
        stats = self._pool.stats
        return {"verifier_queue": self._pool.depth, **{name: getattr(stats, name) for name in stats.__slots__}}

    @property
    def _playing(self) -> RolloutWorker:
        assert self._worker is not None, "start() comes first"
        return self._worker


@ray.remote(max_restarts=0, max_concurrency=256)
class RolloutActor(RolloutProcess):
    """A RolloutProcess as an actor. One that dies stays dead: the orchestrator starts the next."""


@ray.remote(max_restarts=-1, max_task_retries=0, max_concurrency=1024, num_cpus=0)
class OrchestratorActor:
    """The Orchestrator of one PPO stage, with the verifiers and rollout workers that it starts."""

    def __init__(self, config: RunConfig, source: str, rollout_actor: Any = None) -> None:
        """Args: rollout_actor: another actor class in place of RolloutActor, with another engine."""
        ppo = config.ppo
        assert ppo is not None
        spec = RolloutSpec.of(config, source)
        self._crew = Crew(spec, plan(config), actor=rollout_actor or RolloutActor)
        self._orchestrator = Orchestrator(
            self._crew.spawn,
            ledger=Ledger(episodes=ppo.episodes, steps=ppo.steps, max_staleness=ppo.max_staleness),
            workers=config.rollout.workers,
            episodes_in_flight=spec.episodes_in_flight,
        )

    async def start(self) -> None:
        """Start the workers; returns at once. `publish` waits for them and raises what keeps them from starting."""
        await self._orchestrator.start()

    async def publish(self, parcel: Sequence[Any], version: int) -> None:
        """Args: parcel: a list of one reference to a WeightParcel."""
        await self._orchestrator.publish(parcel, version)

    async def take(self, count: int, *, step: int, rank: int = 0, world_size: int = 1) -> list[Share]:
        return await self._orchestrator.take(count, step=step, rank=rank, world_size=world_size)

    async def rewind(self, step: int) -> None:
        await self._orchestrator.rewind(step)

    async def probe(self, sequences: list[list[int]]) -> dict[str, list[list[float]]]:
        return await self._orchestrator.probe(sequences)

    async def stats(self) -> dict[str, float]:
        return {**self._orchestrator.stats(), **await self._crew.verifier_stats()}

    async def events(self) -> list[Event]:
        return self._orchestrator.events()

    async def processes(self) -> dict[str, int]:
        """Process ids of living rollout workers by name, and of verifiers as `verifier-0` and so on."""
        return await self._crew.processes()

    async def close(self) -> None:
        """End the rollout workers; the verifiers end with this actor."""
        await self._orchestrator.close()


@ray.remote(num_cpus=0)
class StageLogActor(StageLog):
    """The StageLog of one stage."""


def stage_log(store: str, run: str, stage: str, steps: int, config: dict[str, Any], resumed_at: int) -> Any:
    """Handle of a stage's log. It writes on the driver's node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = StageLogActor
    return actor.options(scheduling_strategy=here).remote(store, run, stage, steps, config, resumed_at)


def orchestrator(config: RunConfig, *, source: str) -> Any:
    """Handle of the orchestrator of a run's PPO stage, whose model `source` names. Call its `start`."""
    actor: Any = OrchestratorActor
    return actor.remote(config, source)


class Crew:
    """Starts the actors that the orchestrator asks for, where the plan wants them."""

    def __init__(self, spec: RolloutSpec, plan: Plan, *, actor: Any) -> None:
        self._spec, self._actor = spec, actor
        rollouts, verifiers = plan.group("rollout"), plan.group("verifier")
        self._bundle = rollouts.bundle
        self._group = ray.util.placement_group([rollouts.bundle] * rollouts.count, strategy=rollouts.strategy)
        verifier: Any = VerifierActor
        options = {"num_cpus": verifiers.bundle["CPU"], "scheduling_strategy": verifiers.strategy}
        self._verifiers = [verifier.options(**options).remote() for _ in range(verifiers.count)]
        self._workers: dict[str, RemoteWorker] = {}

    async def spawn(self, place: int, name: str) -> Worker:
        """A rollout worker in the bundle of its place, its engine up. Raises `WorkerDied`, or the user's mistake."""
        handle = self._actor.options(
            num_cpus=self._bundle["CPU"],
            num_gpus=self._bundle.get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, place),
        ).remote(self._spec, name, self._verifiers)
        worker = RemoteWorker(handle, name)
        try:
            worker.process = await worker.ask(handle.start.remote(), START_S)
        except BaseException:
            await worker.bury()
            raise
        self._workers[name] = worker
        return worker

    async def processes(self) -> dict[str, int]:
        """See `OrchestratorActor.processes`."""
        pids = await asyncio.gather(*(handle.ping.remote() for handle in self._verifiers), return_exceptions=True)
        verifiers = {f"verifier-{i}": pid for i, pid in enumerate(pids) if isinstance(pid, int)}
        return {name: worker.process for name, worker in self._living().items()} | verifiers

    async def verifier_stats(self) -> dict[str, float]:
        """Sums over the pools of the living workers."""
        asked = [worker.ask(worker.handle.verifier_stats.remote(), PING_S) for worker in self._living().values()]
        sums: dict[str, float] = {}
        for stats in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(stats, dict):
                for name, number in stats.items():
                    key = name if name.startswith("verifier") else f"verifier_{name}"
                    sums[key] = sums.get(key, 0) + number
        return sums

    def _living(self) -> dict[str, "RemoteWorker"]:
        self._workers = {name: worker for name, worker in self._workers.items() if not worker.is_buried}
        return self._workers


class RemoteWorker:
    """A `Worker` that is an actor. Whatever a call cannot mend is `WorkerDied`; a user's mistake passes through."""

    def __init__(self, handle: Any, name: str) -> None:
        self.handle, self.name = handle, name
        self.process = 0
        self.is_buried = False

    async def give(self, orders: Sequence[Order]) -> None:
        await self.ask(self.handle.give.remote(orders), SILENCE_S)

    async def collect(self) -> tuple[list[Receipt], Any]:
        # two returns: the receipts come here; the batch stays where it is, owned by this process and not by the worker
        receipts, batch = self.handle.collect.remote()
        return await self.ask(receipts, SILENCE_S), batch

    async def drop(self) -> None:
        await self.ask(self.handle.drop.remote(), SILENCE_S)

    async def update_weights(self, parcel: Any, version: int) -> None:
        del version  # the parcel says it
        await self.ask(self.handle.update_weights.remote(parcel), WEIGHTS_S)

    async def score(self, sequences: list[list[int]]) -> list[list[float]]:
        return await self.ask(self.handle.score.remote(sequences), WEIGHTS_S)

    async def bury(self) -> None:
        self.is_buried = True
        with contextlib.suppress(RayError, ValueError):
            ray.kill(self.handle, no_restart=True)

    async def ask(self, reference: Any, within_s: float) -> Any:
        """The value of a reference, in the words of `Worker`."""
        try:
            async with asyncio.timeout(within_s):
                return await reference
        except TimeoutError:
            raise WorkerDied(f"{self.name}: no answer within {within_s:g} s") from None
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, DataError | ConfigError):
                raise cause from None
            if isinstance(cause, ObjectLostError):
                raise WeightsLost(f"{self.name}: {_line(cause)}") from None
            raise WorkerDied(f"{self.name}: {type(cause).__name__}: {_line(cause)}") from error
        except RayError as error:
            raise WorkerDied(f"{self.name}: {_line(error)}") from None


class RemoteJudge:
    """A `Judge` that is an actor."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def judge(self, questions: Sequence[Question]) -> list[Judgement]:
        try:
            return await self._handle.judge.remote(questions)
        except RayActorError as error:
            raise JudgeDied(_line(error)) from None

    async def revive(self) -> None:
        try:
            async with asyncio.timeout(PING_S):
                await self._handle.ping.remote()
        except RayActorError as error:
            raise JudgeDied(_line(error)) from None
        except TimeoutError:
            ray.kill(self._handle, no_restart=False)
            raise


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
