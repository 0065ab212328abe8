"""An EngineReplica in a process of its own, with vLLM and its verifiers. What Ray Serve deploys as `replica`."""

import asyncio
import logging
from pathlib import Path
from typing import Any

from cluster.actors import VerifierActor
from cluster.crew import RemoteJudge
from cluster.metrics import RayMeters
from cluster.verifiers import VerifierPool
from envs.base import ViterError
from services import logs
from services.config import ServiceConfig
from services.engines.replica import Completions, EngineReplica, ServedEngine
from services.registry import Registry

WARM_RETRY_S = 5.0
VERIFIER_CPUS = 0.1  # what a verifier reserves: a verdict takes microseconds

logger = logging.getLogger("viter.replica")


class Replica(EngineReplica):
    """An EngineReplica in a process of its own. It loads a checkpoint as soon as there is one."""

    def __init__(self, config: ServiceConfig):
        super().__init__(
            config,
            lambda directory, version: start_engine(config, directory, version),
            verifiers(config.verifiers),
            RayMeters(),
        )
        logs.join_serve()
        self._warming: asyncio.Task[None] | None = None  # ends once a checkpoint is held; starts with the first check

    async def check_health(self) -> None:
        if self._warming is None:
            self._warming = asyncio.create_task(self._warm())
        await super().check_health()

    async def record_routing_stats(self) -> dict[str, Any]:
        """What the router is told of this replica. Async, or Serve would start a thread for it each time."""
        state = self.state()
        return {"digest": state.digest, "users": state.users, "is_up": state.is_up}

    async def _warm(self) -> None:
        """Load the first checkpoint. A store without one is asked again; a request that comes first loads its own."""
        registry = Registry(self._config.store, reads=False)  # what is loaded is verified
        while self._engine is None:
            try:
                warm = self._config.warm
                checkpoint = await registry.resolve(warm) if warm else await registry.newest()
                if checkpoint is not None:
                    await self.warm(checkpoint)
                    return
            except ViterError as error:
                logger.warning("nothing is loaded yet: %s", error)
            await asyncio.sleep(WARM_RETRY_S)

    async def __del__(self) -> None:
        await self.close()


def verifiers(count: int) -> VerifierPool:
    """A pool of verifiers, each in a process of its own that ends with this one."""
    actor: Any = VerifierActor
    return VerifierPool([RemoteJudge(actor.options(num_cpus=VERIFIER_CPUS).remote()) for _ in range(count)])


async def start_engine(config: ServiceConfig, directory: Path, version: int) -> tuple[ServedEngine, Completions]:
    with logs.kept():  # vLLM configures logging when it starts
        from cluster.engine import Engine, OpenAi

        engine = await Engine.start(directory, config.engine, weight_version=version)
    return engine, OpenAi(engine, max_tokens=config.limits.max_tokens)
