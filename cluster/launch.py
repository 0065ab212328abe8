"""From a run file to trained checkpoints: connect, place, assemble each stage, wait, and shut down in order.

The driver owns every actor it starts and ends them when it returns, however it returns. A stage that was cut off goes
on from its newest commit; a stage that is done is left alone.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import placement, quarantine, run_record
from cluster.config import RunConfig
from cluster.connection import connected
from cluster.metrics import RayMeters
from cluster.mirror import RunMirror
from cluster.rollout_spec import RolloutSpec
from cluster.stage_log import Progress
from envs.base import ConfigError, ViterError
from trainers.aliases import INIT, write_alias
from trainers.checkpoints import Checkpoint, CheckpointInfo, Checkpoints, resolve
from trainers.lease import Lease, holder
from trainers.storage import LocalStore, open_store

POLL_S = 0.5
STOP_GRACE_S = 40.0  # from a stop to a committed checkpoint; Ray Jobs allow 45 s

Tell = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run left behind: the last checkpoint of each stage."""

    name: str
    store: str
    checkpoints: dict[str, Checkpoint]


def run(config: RunConfig, *, progress: Tell, lease: Lease | None = None) -> RunResult:
    """Train every stage of `config`, resuming where an earlier attempt stopped.

    Args:
        lease: of the run, where the caller goes on with it afterwards; else it is taken for the time of the training.
    Raises:
        CapacityError: the cluster has no room.
        LeaseHeld: another driver trains this run.
        LeaseLost: another driver took it over, after this one was not heard of for a while.
        ViterError: whatever else a person can mend, in one sentence.
        KeyboardInterrupt: the run was stopped; the stage at work has committed a checkpoint if there was time.
    """
    config = _rooted(config)
    plan = placement.plan(config)
    done: dict[str, Checkpoint] = {}

    def waits(text: str) -> None:
        progress(Progress(stage="placement", step=0, steps=0, message=text))

    with contextlib.ExitStack() as stack:
        lease = lease or stack.enter_context(leased(config, progress))
        for stage in config.stages:
            lease.check()
            finished = _finished(config, stage)
            if finished is None:
                stack.enter_context(connected(plan, waits))  # once; a connected driver stays connected
                finished = _train_stage(config, stage, _parent(config, done, lease), lease, progress)
            else:
                progress(Progress(stage=stage, step=finished.step, steps=finished.step, message="done already"))
            done[stage] = finished
    return RunResult(name=config.name, store=config.store.uri, checkpoints=done)


@contextlib.contextmanager
def leased(config: RunConfig, progress: Tell) -> Iterator[Lease]:
    """The lease of a run, kept and then released: one driver at a time trains it, whichever machine it is on.

    What becomes of the run meanwhile is noted in its `run_record`.

    Raises:
        LeaseHeld: another driver has it.
    """
    store = open_store(_rooted(config).store.uri)
    if isinstance(store, LocalStore):
        try:
            store.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"store.uri {store.uri}: {error.strerror or error}") from None
    if before := holder(store, lease_path(config.name)):
        progress(Progress(stage="lease", step=0, steps=0, message=f"watching {before}, which may be gone"))
    with (
        Lease.take(store, lease_path(config.name), holder="the driver of this run").kept() as lease,
        run_record.noted(store, config, lease.fence),
    ):
        yield lease


def lease_path(name: str) -> str:
    """Where the lease of a run lies in its store."""
    return f"{name}/lease"


def _rooted(config: RunConfig) -> RunConfig:
    """The run with its local paths made absolute: actors work in directories of their own."""
    changed: dict[str, Any] = {}
    if "://" not in config.store.uri:
        changed["store"] = config.store.model_copy(update={"uri": str(Path(config.store.uri).resolve())})
    if Path(config.model.source).is_dir():
        changed["model"] = config.model.model_copy(update={"source": str(Path(config.model.source).resolve())})
    for stage in ("sft", "sft_branch"):
        settings = getattr(config, stage)
        if settings is not None and Path(settings.corpus).is_file():
            changed[stage] = settings.model_copy(update={"corpus": str(Path(settings.corpus).resolve())})
    return config.model_copy(update=changed)


def run_id(config: RunConfig, stage: str) -> str:
    """The id under which a stage is kept."""
    return f"{config.name}-{stage}"


def _finished(config: RunConfig, stage: str) -> Checkpoint | None:
    newest = Checkpoints(config.store.uri, run_id(config, stage)).newest()
    return newest if newest is not None and newest.step >= getattr(config, stage).steps else None


def _parent(config: RunConfig, done: dict[str, Checkpoint], lease: Lease) -> Checkpoint | None:
    """The checkpoint that a stage starts from: init, or the one that the run file names; None for any other model."""
    if "sft" in done:
        return done["sft"]
    if config.model.source == "nano":
        return _random_start(config, lease)
    return resolve(config.store.uri, config.model.source) if "@" in config.model.source else None


def _random_start(config: RunConfig, lease: Lease) -> Checkpoint:
    """A nano model made from scratch, kept in the store as `NAME-start`, so that every node finds the same one."""
    starts = Checkpoints(config.store.uri, f"{config.name}-start", fence=lease.fence)
    kept, environment = starts.newest(), config.environment
    sees = environment.options.get("modality") == "vision"
    if kept is not None:
        before = kept.info.config["environment"]
        if (before["name"], before["options"].get("modality") == "vision") != (environment.name, sees):
            raise ConfigError(
                f"name: {config.name}: {kept.name} of this store was made for {before['name']} with other words or eyes; "
                "give this run another name"
            )
        return kept
    from trainers.nano.model import create

    info = CheckpointInfo(parents=(), metrics={}, compute={}, config=config.model_dump(mode="json"), world_size=1)
    return starts.commit(0, lambda staged: create(staged / "model", environment=environment.name, sees=sees), info)


# ---- one stage ------------------------------------------------------------------------------------------------------


def _train_stage(config: RunConfig, stage: str, parent: Checkpoint | None, lease: Lease, progress: Tell) -> Checkpoint:
    import ray

    from cluster import learner_group
    from cluster.actors import StageLogActor

    run, settings = run_id(config, stage), getattr(config, stage)
    checkpoints = Checkpoints(config.store.uri, run)
    newest = checkpoints.newest()
    resumed_at = newest.step if newest is not None else 0
    words = "starting" if newest is None else f"resuming from {newest.name}"
    progress(Progress(stage=stage, step=resumed_at, steps=settings.steps, message=words))
    source = parent.name if parent is not None else config.model.source
    if parent is not None:
        write_alias(parent, INIT, run=run)
    log = StageLogActor.options(scheduling_strategy=here()).remote(  # type: ignore[attr-defined]
        config.store.uri, run, stage, settings.steps, config.model_dump(mode="json"), resumed_at
    )
    try:
        with _rollouts(config, stage, source) as orchestrator:
            job = learner_group.Job(
                run=run,
                stage=stage,
                config=config,
                source=source,
                digest=None if parent else config.model.digest,
                parents=(parent.digest,) if parent is not None else (),
                spent=parent.info.compute if parent is not None else {},
                log=log,
                fence=lease.fence,
                orchestrator=orchestrator,
            )
            mirror = RunMirror(RayMeters(), config, stage)
            mirror.begin(resumed_at, resumes=newest is not None)
            _follow(job, lease, mirror, progress)
    finally:
        ray.kill(log)
    last = checkpoints.newest()
    if last is None:
        raise ViterError(f"{run}: the stage ended without a checkpoint; see its log in {config.store.uri}/{run}")
    return last


@contextlib.contextmanager
def _rollouts(config: RunConfig, stage: str, source: str) -> Iterator[Any]:
    """The orchestrator of a PPO stage with its workers starting, or None for SFT. Ended in order on the way out."""
    if stage != "ppo":
        yield None
        return
    import ray

    from cluster.actors import OrchestratorActor

    orchestrator = OrchestratorActor.options(scheduling_strategy=here()).remote(config, source)  # type: ignore[attr-defined]
    try:
        ray.get(orchestrator.start.remote())  # engines start while the learner group does
        yield orchestrator
    finally:
        with contextlib.suppress(Exception):  # it may be what died
            ray.get(orchestrator.close.remote(), timeout=20)
        ray.kill(orchestrator)


def here() -> Any:
    """On this node: what the driver talks to all the time, and what writes its files."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def _follow(job: Any, lease: Lease, mirror: RunMirror, progress: Tell) -> None:
    """Run the learner group in a thread of its own, and tell what comes in until it ends.

    An interrupt (Ctrl-C, or SIGTERM from Ray Jobs) asks the learner to commit after its step, and then passes on.
    """
    import ray

    from cluster import learner_group

    failure: list[BaseException] = []
    ended = threading.Event()  # and no `join`: interrupted within one, Python takes a running thread for ended

    def train() -> None:
        try:
            learner_group.run(job)
        except BaseException as error:  # told to the driver below, in its own thread
            failure.append(error)
        finally:
            ended.set()

    threading.Thread(target=train, name=job.run, daemon=True).start()
    try:
        while not ended.wait(POLL_S):
            if lease.lost:
                raise lease.lost
            _tell_news(job, mirror, progress)
            mirror.watch(job.orchestrator)
    except KeyboardInterrupt:
        progress(Progress(stage=job.stage, step=-1, steps=job.settings.steps, message="stopping after this step"))
        job.log.stop.remote()
        ended.wait(STOP_GRACE_S)
        raise
    _tell_news(job, mirror, progress)
    mistake = ray.get(job.log.mistake.remote())
    if mistake is not None:
        raise mistake
    if failure:
        raise _told(failure[0])


def _tell_news(job: Any, mirror: RunMirror, progress: Tell) -> None:
    import ray
    from ray.exceptions import RayActorError

    if job.orchestrator is not None:
        with contextlib.suppress(RayActorError):  # Ray starts it again; whoever waits for it hears of it
            for event in ray.get(job.orchestrator.events.remote()):
                job.log.event.remote(event.kind, event.fields)
                if (case := event.case) is not None:
                    artefact = quarantine.artefact(case, RolloutSpec.of(job.config, job.source), run=job.run)
                    job.log.quarantined.remote(case.step, case.index, artefact.told())
    for news in ray.get(job.log.drain.remote()):
        mirror.tell(news)
        progress(news)


def _told(error: BaseException) -> BaseException:
    """The user's mistake at the bottom of what Ray and Ray Train wrapped around it, or the error as it is."""
    seen: list[Any] = [error]
    while seen:
        found = seen.pop()
        if isinstance(found, ViterError):
            return found
        nested = [getattr(found, name, None) for name in ("cause", "__cause__")]
        nested += list((getattr(found, "worker_failures", None) or {}).values())
        seen += [cause for cause in nested if isinstance(cause, BaseException)]
    return error
