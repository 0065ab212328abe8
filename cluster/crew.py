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
from cluster.placement import EXPLAIN_EVERY_S, Plan
from cluster.rollout_worker import PATIENCE_S
from cluster.tally import Tally
from cluster.verifiers import JudgeDied, Judgement, Question
from cluster.weights import Arrival
from cluster.worker import WeightsLost, Worker, WorkerDied
from envs.base import ConfigError, DataError

SILENCE_S = PATIENCE_S + 115.0  # a worker answers `collect` within its patience; one silent for longer hangs
START_S = 1800.0  # loading and compiling a large model may take this long
WEIGHTS_S = 600.0  # a worker that cannot take new weights in this time hangs
NODES_EVERY_S = 1.0
PING_S = 5.0  # a verifier that does not answer a ping in this time is ended, and Ray starts it again


class Crew:
    """Starts rollout workers as the orchestrator asks for them, where the plan wants them; verifiers at once.

    Workers of the plan lie in a placement group, whose bundles Ray moves when a node dies. Those beyond it take whatever
    room there is; until then they are what an autoscaler sees as demand.
    """

    def __init__(self, plan: Plan, rollout_actor: Any, verifier_actor: Any, spec: Any, tally: Tally) -> None:
        """Args: spec: what a rollout actor is told, with its name and the verifiers' handles."""
        self._spec, self._actor, self._tally = spec, rollout_actor, tally
        rollouts, verifiers = plan.group("rollout"), plan.group("verifier")
        self._bundle = rollouts.bundle
        self._group = ray.util.placement_group([rollouts.bundle] * rollouts.count, strategy=rollouts.strategy)
        options = {"num_cpus": verifiers.bundle["CPU"], "scheduling_strategy": verifiers.strategy}
        self._verifiers = [verifier_actor.options(**options).remote() for _ in range(verifiers.count)]
        self._workers: dict[str, RemoteWorker] = {}
        self._watching: asyncio.Task[None] | None = None

    async def spawn(self, place: int, name: str) -> Worker:
        """A rollout worker in the bundle of its place, its engine up. Waits for room as long as it takes.

        Raises:
            WorkerDied: or the user's mistake.
        """
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch_nodes())
        is_planned = place < self._group.bundle_count
        handle = self._actor.options(
            num_cpus=self._bundle["CPU"],
            num_gpus=self._bundle.get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, place) if is_planned else "SPREAD",
        ).remote(self._spec, name, self._verifiers)
        worker = RemoteWorker(handle, name)
        try:
            worker.node = await self._placed(worker, is_planned)
            worker.process = await worker.ask(handle.start.remote(), START_S)
        except BaseException:
            await worker.bury()
            raise
        self._workers[name] = worker
        return worker

    async def _placed(self, worker: "RemoteWorker", is_planned: bool) -> str:
        """The node that has room for the worker, once there is one. Where the plan promised it, says that it waits."""
        node = asyncio.ensure_future(worker.ask(worker.handle.node.remote(), None))
        try:
            while not (await asyncio.wait({node}, timeout=EXPLAIN_EVERY_S))[0]:
                if is_planned:
                    needs = " and ".join(f"{amount:g} {resource}" for resource, amount in self._bundle.items())
                    self._tally.event("worker_waits", worker=worker.name, reason=f"no node has {needs} free for it")
            return await node
        finally:
            node.cancel()

    async def _watch_nodes(self) -> None:
        """Tell workers that their node is dead: calls to it may hang where the network, and not the process, ended."""
        while True:
            await asyncio.sleep(NODES_EVERY_S)
            with contextlib.suppress(RayError):
                dead = {node["NodeID"] for node in await asyncio.to_thread(ray.nodes) if not node["Alive"]}
                for worker in self._living().values():
                    if worker.node in dead:
                        worker.lose_node()

    async def close(self) -> None:
        """Give back the workers' room: Ray would keep it for as long as the driver lives."""
        await asyncio.to_thread(ray.util.remove_placement_group, self._group)

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
        self.node = ""
        self.is_buried = False
        self._node_died = asyncio.Event()

    def lose_node(self) -> None:
        """Its node is dead: every call, open or to come, raises `WorkerDied`."""
        self._node_died.set()

    async def give(self, orders: Sequence[Order]) -> None:
        await self.ask(self.handle.give.remote(orders), SILENCE_S)

    async def collect(self) -> tuple[list[Receipt], Any]:
        # two returns: the receipts come here; the batch stays where it is, owned by this process and not by the worker
        receipts, batch = self.handle.collect.remote()
        return await self.ask(receipts, SILENCE_S), batch

    async def drop(self) -> None:
        await self.ask(self.handle.drop.remote(), SILENCE_S)

    async def update_weights(self, parcel: Any, version: int) -> Arrival:
        del version  # the parcel says it
        return await self.ask(self.handle.update_weights.remote(parcel), WEIGHTS_S)

    async def score(self, histories: list[History]) -> list[list[float]]:
        return await self.ask(self.handle.score.remote(histories), WEIGHTS_S)

    async def bury(self) -> None:
        self.is_buried = True
        with contextlib.suppress(RayError, ValueError):
            ray.kill(self.handle, no_restart=True)

    async def ask(self, reference: Any, within_s: float | None) -> Any:
        """The value of a reference, in the words of `Worker`. None waits for ever."""
        try:
            async with asyncio.timeout(within_s):
                return await self._unless_node_dies(reference)
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

    async def _unless_node_dies(self, reference: Any) -> Any:
        answer = asyncio.ensure_future(_value(reference))
        death = asyncio.ensure_future(self._node_died.wait())
        try:
            await asyncio.wait({answer, death}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise WorkerDied(f"{self.name}: its node {self.node[:8]} is dead")
            return answer.result()
        finally:
            answer.cancel()
            death.cancel()


async def _value(reference: Any) -> Any:
    return await reference


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
