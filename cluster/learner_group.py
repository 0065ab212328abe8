"""The learner group: the training loop on every rank of a Ray Train worker group, restarted from the newest commit.

    run(job) ─► Ray Train ─► learn(job) on each rank ─► sft.train | ppo.train
                   ▲                                        │ a rank dies: the gang starts again,
                   └──── newest committed checkpoint ◄──────┘ and each rank restores

Ray Train starts the gang, joins the process group and restarts it; what was learned lives in the store alone.
"""

import os
import socket
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import envs
from cluster.config import RunConfig
from cluster.probe import Probe
from cluster.weight_sender import Publisher
from cluster.weights import pack_weights
from cluster.worker import WorkersFailed
from envs.base import ConfigError, DataError
from trainers import ppo, sft
from trainers.chat import ChatFormat
from trainers.checkpoint import Checkpoint
from trainers.checkpoints import CheckpointInfo, Checkpoints, materialise
from trainers.compute import Compute
from trainers.config import PpoConfig, SftConfig
from trainers.corpus import stream
from trainers.episode import Episode, Segment
from trainers.episode_arrow import from_batch, without_pictures
from trainers.journal import StageJournal
from trainers.learner import DivergedError, Learner
from trainers.lease import Fence, LeaseLost
from trainers.policy import CriticSettings
from trainers.sources import model_directory
from trainers.thoughts import thought_weighted

MAX_RESTARTS = (
    20  # of the gang from one and the same commit; a fault that lets nothing be learnt is a bug, not bad luck
)
GROUP_TIMEOUT_S = 600  # of one collective: longer than the slowest rank's slowest step


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One stage, as every rank needs it. Travels by pickle inside the cluster."""

    run: str  # the stage's own run id
    stage: str
    config: RunConfig
    source: str  # where its model starts, see `trainers.sources`
    digest: str | None  # what the starting weights must be
    parents: tuple[str, ...]  # digests of the checkpoints it comes from
    spent: dict[str, int]  # compute of those
    log: Any  # handle of the StageLog actor
    fence: Fence  # of the run's lease: commits need it
    orchestrator: Any = None  # handle of the Orchestrator actor, for PPO

    @property
    def settings(self) -> SftConfig | PpoConfig:
        settings: SftConfig | PpoConfig = getattr(self.config, self.stage)
        return settings


def run(job: Job) -> None:
    """Train the stage to its end; blocks. A dead rank restarts the gang from the newest commit by itself.

    Raises:
        Whatever a rank raised, once restarts are of no use.
    """
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as TrainConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    placement, learner = job.config.placement, job.config.learner
    resources = {"CPU": placement.learner_cpus, "GPU": placement.learner_gpus}
    trainer = TorchTrainer(
        learn,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if placement.learner_gpus else "gloo", timeout_s=GROUP_TIMEOUT_S),
        scaling_config=ScalingConfig(
            num_workers=learner.workers,
            use_gpu=placement.learner_gpus > 0,
            resources_per_worker={name: amount for name, amount in resources.items() if amount},
            placement_strategy=placement.learner_strategy,
        ),
        run_config=TrainConfig(
            name=job.run,
            storage_path=str(Path(tempfile.gettempdir()) / "viter-train"),  # Ray Train's own notes, not checkpoints
            failure_config=FailureConfig(max_failures=-1),  # `_count_start` bounds them
        ),
    )
    trainer.fit()


def learn(loop_config: dict[str, Job]) -> None:
    """What every rank runs, at the first start and after every restart.

    What a person must mend is noted before it is raised: the gang that Ray Train then starts again returns at once,
    on every rank, instead of meeting it again and again.
    """
    import ray

    job = loop_config["job"]
    if ray.get(job.log.mistake.remote()) is not None:
        return
    try:
        _count_start(job)
        _learn(job)
    except (ConfigError, DataError, DivergedError, WorkersFailed, LeaseLost) as mistake:
        plain = getattr(mistake, "cause", mistake)  # without what Ray puts around an actor's error
        ray.get(job.log.give_up.remote(plain))
        raise


def _learn(job: Job) -> None:
    learner, chat = _learner(job)
    job.log.event.remote("learner_started", {"rank": learner.rank, "pid": os.getpid(), "host": socket.gethostname()})
    checkpoints = Checkpoints(job.config.store.uri, job.run, fence=job.fence)
    if (newest := checkpoints.newest()) is not None:
        learner.restore(materialise(newest))
    rows = job.config.learner.row_tokens
    journal = _journal(job, learner, checkpoints)
    if isinstance(job.settings, SftConfig):
        environment = envs.make(job.config.environment.name, **job.config.environment.options)
        documents = stream(job.settings, environment, chat)
        sft.train(job.settings, learner, lambda step: _share(documents(step), learner), journal, row_tokens=rows)
    else:
        episodes = RemoteEpisodes(job, learner)
        weights = RemoteWeights(job, learner, Probe.of(job.config, chat))
        settings = job.settings
        ppo.train(
            settings, learner, episodes, weights, journal, row_tokens=rows,
            weigh=lambda batch: thought_weighted(batch, chat.decode, weight=settings.thought_weight)
            if settings.profile == "reference" else batch,
        )  # fmt: skip
    learner.close()


def _count_start(job: Job) -> None:
    """Raises WorkersFailed where the gang has died again and again since the newest commit."""
    import ray
    from ray import train

    if train.get_context().get_world_rank() > 0:
        return
    newest = Checkpoints(job.config.store.uri, job.run).newest()
    if ray.get(job.log.starts_from.remote(newest.step if newest else 0)) > MAX_RESTARTS:
        raise WorkersFailed(
            f"{job.run}: the learner died {MAX_RESTARTS} times in a row without a checkpoint in between"
        )


def _learner(job: Job) -> tuple[Learner, ChatFormat]:
    start = model_directory(job.source, store=job.config.store.uri, digest=job.digest)
    settings, critic = job.settings, None
    if isinstance(settings, PpoConfig):
        total, schedule = ppo.total_updates(settings), settings.schedule
        critic = CriticSettings(
            learning_rate=settings.critic_learning_rate,
            detached=settings.critic_detached,
            warmup_updates=ppo.critic_warmup_updates(settings),
        )
    else:
        total, schedule = settings.steps, settings.schedule
    learner = Learner.start(
        start, job.config.model, job.config.learner, schedule, total_updates=total, critic=critic,
        with_reference=isinstance(settings, PpoConfig) and settings.kl_coef > 0, seed=settings.seed,
    )  # fmt: skip
    return learner, ChatFormat.load(start)


def _journal(job: Job, learner: Learner, checkpoints: Checkpoints) -> StageJournal:
    import ray

    before = Compute.from_dict(job.spent)

    def info(metrics: dict[str, float]) -> CheckpointInfo:
        return CheckpointInfo(
            parents=job.parents,
            metrics=metrics,
            compute=(before + learner.spent).to_dict(),
            config=job.config.model_dump(mode="json"),
            world_size=learner.world_size,
        )

    def committed(checkpoint: Checkpoint, seconds: float) -> None:
        checkpoints.prune(job.config.store.keep_last)
        told = {"name": checkpoint.name, "digest": checkpoint.digest[:12], "bytes": checkpoint.manifest.size_bytes}
        job.log.event.remote("checkpoint", {**told, "seconds": round(seconds, 3)})

    return StageJournal(
        learner, checkpoints, steps=job.settings.steps, every=job.settings.checkpoint_every, info=info,
        # waits: when a step counts as done, its numbers are on disk
        metrics=lambda step, numbers: ray.get(job.log.metrics.remote(step, numbers)),
        on_commit=committed, is_stopping=lambda: ray.get(job.log.is_stopping.remote()),
    )  # fmt: skip


def _share(segments: Sequence[Segment], learner: Learner) -> Sequence[Segment]:
    """This rank's part of a step's documents, like lengths on every rank."""
    ordered = sorted(segments, key=lambda segment: -len(segment.token_ids))
    return ordered[learner.rank :: learner.world_size]


class RemoteEpisodes:
    """The EpisodeSource of one rank: asks the orchestrator, fetches what it names."""

    def __init__(self, job: Job, learner: Learner) -> None:
        self._orchestrator, self._log, self._learner = job.orchestrator, job.log, learner

    def take(self, count: int, *, step: int) -> list[Episode]:
        import ray

        started = time.perf_counter()
        share = ray.get(
            self._orchestrator.take.remote(
                count, step=step, rank=self._learner.rank, world_size=self._learner.world_size
            )
        )
        batches = ray.get([part.batch for part in share])
        if self._learner.rank == 0:
            self._learner.measured["slots_idle"] = ray.get(self._orchestrator.slots_idle.remote())
        self._learner.measured["rollout_wait_s"] = time.perf_counter() - started
        shares = list(zip(share, batches, strict=True))
        logged = [without_pictures(batch).take(part.rows) for part, batch in shares]
        self._log.episodes.remote(step, self._learner.world_size, logged)
        # read whole, then chosen from: `take` would copy the pictures out of the object store
        episodes = [played[row] for part, batch in shares for played in (from_batch(batch),) for row in part.rows]
        return sorted(episodes, key=lambda episode: episode.index)  # whatever the order of arrival


class RemoteWeights:
    """The WeightSink of one rank: the first rank packs and sends, then all compare learner and engines on a probe."""

    def __init__(self, job: Job, learner: Learner, probe: Probe) -> None:
        self._orchestrator, self._learner, self._probe = job.orchestrator, learner, probe
        self._publisher = Publisher(
            job.orchestrator,
            job.config,
            learner.device,
            on_failure=lambda reason: job.log.event.remote("broadcast_failed", {"reason": reason}),
        )

    def publish(self, weights: Iterable[tuple[str, Tensor]], *, version: int) -> None:
        started = time.perf_counter()
        if self._learner.rank == 0:
            sent = self._publisher.publish(pack_weights(weights, version=version))
            self._learner.measured["publish_bytes"] = float(sent.size_bytes)
            self._learner.measured["published_delta"] = float(sent.delta is not None)
            self._learner.measured["published_broadcast"] = float(sent.broadcast is not None)
        else:
            for _ in weights:  # collective: gives its shards
                pass
        self._learner.barrier()
        self._learner.measured["publish_s"] = time.perf_counter() - started
        self._probe.check(self._learner, self._orchestrator, version)
        self._learner.measured["probe_s"] = time.perf_counter() - started - self._learner.measured["publish_s"]
