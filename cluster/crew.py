"""Actors seen from the orchestrator: starting them, asking them, and telling their failures in the house's own words."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import ray
import ray.util
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.engine.reply import History
from cluster.ledger import Order, Receipt
from cluster.orchestrator import WeightsLost, Worker, WorkerDied
from cluster.placement import Plan
from cluster.rollout_worker import PATIENCE_S
from cluster.verifiers import JudgeDied, Judgement, Question
from envs.base import ConfigError, DataError

SILENCE_S = PATIENCE_S + 115.0  # a worker answers `collect` within its patience; one silent for longer hangs
START_S = 1800.0  # loading and compiling a large model may take this long
WEIGHTS_S = 600.0  # a worker that cannot take new weights in this time hangs
PING_S = 5.0  # a verifier that does not answer a ping in this time is ended, and Ray starts it again


class Crew:
    """Starts rollout workers as the orchestrator asks for them, where the plan wants them; verifiers at once."""

    def __init__(self, plan: Plan, rollout_actor: Any, verifier_actor: Any, spec: Any) -> None:
        """Args: spec: what a rollout actor is told, with its name and the verifiers' handles."""
        self._spec, self._actor = spec, rollout_actor
        rollouts, verifiers = plan.group("rollout"), plan.group("verifier")
        self._bundle = rollouts.bundle
        self._group = ray.util.placement_group([rollouts.bundle] * rollouts.count, strategy=rollouts.strategy)
        options = {"num_cpus": verifiers.bundle["CPU"], "scheduling_strategy": verifiers.strategy}
        self._verifiers = [verifier_actor.options(**options).remote() for _ in range(verifiers.count)]
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

    async def score(self, histories: list[History]) -> list[list[float]]:
        return await self.ask(self.handle.score.remote(histories), WEIGHTS_S)

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
