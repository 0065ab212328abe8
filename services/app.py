"""The Ray Serve application: three deployments, and how they are started and stopped.

    HTTP ─► Gateway (routes, tokens, registry) ─► Replica (one engine) × replicas
                └────────────► EvaluationManager ──────┘

Deploy it with `serve deploy deploy/serve.yaml`, which calls `build`, or from Python and `viter serve` with `start`.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import HTTPOptions, RequestRouterConfig
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from cluster import metrics
from cluster.metrics import RayMeters
from cluster.verifiers import Judgement, Question, VerifierPool
from envs.base import ConfigError
from services import logs, own_ray, port
from services.config import ServiceConfig
from services.elsewhere import Elsewhere
from services.engines.account import VerifierAccount
from services.engines.calls import asked_again, replicas_of, told, told_once
from services.engines.deployment import Replica, verifiers
from services.engines.episodes import EpisodeEvent, EpisodeOrder
from services.engines.replica import Head, ReplicaState
from services.engines.router import STATS_EVERY_S, DigestRouter
from services.evaluations.jobs import Evaluations
from services.evaluations.journal import Journal
from services.evaluations.newcomers import Newcomers
from services.evaluations.orders import Item, PlayOrder
from services.http.service import EvaluationJobs
from services.http.tokens import Tokens, ensure_token
from services.http.traffic import Traffic
from services.http.web import web
from services.registry import Registry
from services.runs.jobs import RayCluster
from services.runs.runs import Runs
from trainers.checkpoints import Checkpoint

APPLICATION = "viter"
START_WAIT_S = 300.0
STATE_WAIT_S = 2.0  # a replica whose engine is starting does not answer at all
ENGINE_START_S = 900.0  # nor is it dead for that: vLLM keeps its thread busy until a large model is loaded
SHRINK_AFTER_S = 600.0  # an engine takes minutes to start, so a short lull ends none
LIGHT_CPUS = 0.1  # what the gateway and the evaluation manager reserve: they wait more than they work

logger = logging.getLogger("viter.app")
_owns_ray = False  # whether `start` began Ray in this process, so that `stop` ends it
_owns_serve = False  # whether `start` began Serve, so that `stop` leaves a service that was there before alone


class EvaluationManager(Evaluations):
    """Evaluations in a process of their own; played by the replicas. `since` is when the service started."""

    async def __init__(self, config: ServiceConfig, replica: DeploymentHandle, since: float):  # type: ignore[misc]  # Serve awaits it
        logs.join_serve()
        self._store, self._meters = config.store, RayMeters()
        registry = Registry(config.store, memory=_verdicts(config), reads=False)

        def play(order: PlayOrder) -> AsyncGenerator[list[Item], None]:
            return registry.watched(order.checkpoint, told(replicas_of(replica, order.checkpoint).play.remote(order)))

        super().__init__(
            Journal(config.store),
            registry,
            play,
            replicas=config.max_replicas or config.replicas,
            most_open=config.limits.evaluations,
            newcomers=Newcomers(registry, config.evaluate_new, since=since) if config.evaluate_new else None,
            meters=self._meters,
        )
        await self.start()

    def check_health(self) -> None:
        metrics.show_room(self._meters, self._store)
        self.check()

    async def __del__(self) -> None:
        await self.close()


@serve.ingress()
class Gateway:
    """The routes, and what they stand on."""

    def __init__(self, config: ServiceConfig, replica: DeploymentHandle, manager: DeploymentHandle):
        logs.join_serve()
        self._config = config
        self._replica = replica
        self.registry = Registry(config.store, memory=_verdicts(config))
        self.evaluations = cast(EvaluationJobs, Elsewhere(manager))
        self.runs = Runs(config.store, RayCluster(config.jobs) if config.training else None)
        self._verifiers: VerifierPool | None = None  # of answers that clients send; starts with the first
        meters = RayMeters()
        self._traffic, self._verifier_account = Traffic(meters), VerifierAccount(meters)

    def __serve_build_asgi_app__(self) -> FastAPI:
        is_open = self._config.auth == "none"
        tokens = None if is_open else Tokens.load(self._config.tokens_path)
        return web(self, tokens=tokens, limits=self._config.limits, traffic=self._traffic)

    async def check_health(self) -> None:
        self._traffic.show()
        if self._verifiers is not None:
            self._verifier_account.show(self._verifiers.stats)

    def complete(
        self, route: str, body: dict[str, Any], checkpoint: Checkpoint, deadline_s: float
    ) -> AsyncGenerator[Head | str, None]:
        is_stream, asked = bool(body.get("stream")), (route, body, checkpoint, deadline_s)
        replicas = replicas_of(self._replica, checkpoint, stream=is_stream)
        if is_stream:
            return asked_again(lambda: told(replicas.complete.remote(*asked)))
        return asked_again(lambda: told_once(replicas.whole.remote(*asked)))

    def episode(
        self, order: EpisodeOrder, checkpoint: Checkpoint, deadline_s: float
    ) -> AsyncGenerator[EpisodeEvent, None]:
        return told(replicas_of(self._replica, checkpoint).episode.remote(order, checkpoint, deadline_s))

    async def judge(self, questions: Sequence[Question]) -> list[Judgement]:
        if self._verifiers is None:
            self._verifiers = verifiers(1)
            self._verifiers.on_call = self._verifier_account.judged
        return list(await asyncio.gather(*(self._verifiers.verify(*question) for question in questions)))

    async def is_engine_up(self) -> bool:
        try:
            async with asyncio.timeout(STATE_WAIT_S):
                state: ReplicaState = await self._replica.state.remote()
        except TimeoutError:
            return False
        return state.is_up


def _verdicts(config: ServiceConfig) -> Path:
    """What reading checkpoints has shown: kept over a restart, and shared by the processes of a service."""
    return config.state_directory / "service" / "verdicts.jsonl"


def build(args: ServiceConfig) -> serve.Application:
    """The application of `deploy/serve.yaml`. Makes the first token if there is none; the state directory holds it."""
    config = args.anchored()
    _first_token(config)
    limits = config.limits
    at_once = limits.requests + limits.evaluations
    asked_at_once = limits.calls + limits.streams  # a stream waits at the manager for news
    # health checks also keep gauges from fading; each request has a line of ours, so that Serve's need not be there
    watched = {"health_check_period_s": metrics.REFRESH_S, "logging_config": _logging(config)}
    replica = serve.deployment(
        Replica,
        name="replica",
        **_how_many(config),
        max_ongoing_requests=at_once,
        **watched,
        health_check_timeout_s=ENGINE_START_S,
        request_router_config=RequestRouterConfig(
            request_router_class=DigestRouter,
            request_router_kwargs={"full": config.engine.max_num_seqs, "share": config.episodes_in_flight},
            request_routing_stats_period_s=STATS_EVERY_S,
        ),
        ray_actor_options={"num_cpus": config.replica_cpus, "num_gpus": config.replica_gpus},
    ).bind(config)
    light = {"ray_actor_options": {"num_cpus": LIGHT_CPUS}, **watched}
    manager = serve.deployment(EvaluationManager, name="evaluations", max_ongoing_requests=asked_at_once, **light).bind(
        config, replica, time.time()
    )
    # more than the guard lets in, so that the guard's 429 is the one that clients see
    let_in = 2 * (limits.requests + limits.streams + limits.calls)
    return serve.deployment(Gateway, name="gateway", max_ongoing_requests=let_in, **light).bind(
        config, replica, manager
    )


def _first_token(config: ServiceConfig) -> str | None:
    """The first token of a service that keeps its own, where this call made it. Damaged ones are told here."""
    if config.auth == "none":
        return None
    made = None if config.tokens else ensure_token(config.state_directory / "service")
    Tokens.load(config.tokens_path)
    return made


def _logging(config: ServiceConfig) -> dict[str, Any]:
    return {"encoding": config.logs.upper(), "enable_access_log": False}


def _how_many(config: ServiceConfig) -> dict[str, Any]:
    if config.max_replicas is None:
        return {"num_replicas": config.replicas}
    scaling = {
        "min_replicas": config.replicas,
        "max_replicas": config.max_replicas,
        "target_ongoing_requests": config.engine.max_num_seqs,  # more than these wait inside the engine
        "downscale_delay_s": SHRINK_AFTER_S,
    }
    return {"autoscaling_config": scaling}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A running service. `token` is there once in its life: at the very first start."""

    url: str
    token: str | None
    state: Path


def start(config: ServiceConfig, *, wait_s: float = START_WAIT_S, reuse: bool = False) -> Started:
    """Start the service on this machine's Ray, or the one RAY_ADDRESS names, and return when it answers.

    It answers /livez then; /readyz turns 200 when an engine holds a checkpoint. `stop` ends it.

    Args:
        reuse: take the service that the cluster has already, where it has one. `stop` leaves that alone.
    Raises:
        ConfigError: the port is taken, the store or state directory is unusable, or the cluster serves already.
    """
    global _owns_serve
    config = config.anchored()
    port.check_free(config.host, config.port)
    if "://" not in config.store and not Path(config.store).is_dir():
        raise ConfigError(f"store: {config.store} is no directory; train something first, or name another with --store")
    token = _first_token(config)
    _join_ray(config)
    if APPLICATION in serve.status().applications:
        if reuse:
            return Started(
                url=_url(serve.context._get_global_client().http_config), token=None, state=config.state_directory
            )
        raise ConfigError(
            "a service runs on this Ray cluster already; use it, end it with `serve shutdown`, "
            "or start this one on another cluster"
        )
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    _owns_serve = True
    options = HTTPOptions(host=config.host, port=config.port)
    serve.start(proxy_location="HeadOnly", http_options=options, logging_config=_logging(config))
    serve.run(build(config), name=APPLICATION, route_prefix="/", blocking=False)
    url = _url(options)
    port.wait_until_answered(f"{url}/livez", wait_s)
    return Started(url=url, token=token, state=config.state_directory)


def is_whole() -> bool:
    """Whether the cluster says that every deployment of the service has the healthy replicas it shall have."""
    application = serve.status().applications.get(APPLICATION)
    return application is not None and application.status == ApplicationStatus.RUNNING


def _url(options: HTTPOptions) -> str:
    return f"http://{'127.0.0.1' if options.host == '0.0.0.0' else options.host}:{options.port}"


def metrics_url() -> str:
    """Where Prometheus reads the numbers of this node. Every node of a cluster has such a port."""
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


def stop() -> None:
    """End the service, and Ray with it where `start` began it. Without one there is nothing to do."""
    global _owns_ray, _owns_serve
    if not ray.is_initialized():
        return
    if _owns_serve:
        with suppress(RayServeException):  # Serve is not running: `start` failed before that
            serve.delete(APPLICATION)  # lets replicas end what they do, and their engines with them
        serve.shutdown()  # else this process keeps a client of it, which Ray takes for that of its next cluster
    if _owns_ray:
        ray.shutdown()
    _owns_ray = _owns_serve = False


def _join_ray(config: ServiceConfig) -> None:
    """Join the Ray that RAY_ADDRESS names, or begin one."""
    global _owns_ray
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}  # all of it is in Ray's log files
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
    else:
        own_ray.begin(config, quiet)
        _owns_ray = True
