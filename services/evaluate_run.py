"""Measuring through the served endpoint: what is ordered of a run's checkpoints, waited for, and kept.

    orders (init, every checkpoint of both branches) ─► service ─► Measured ─► evaluation.json

The same orders under the same keys find what an earlier attempt has already played.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cluster import interrupts
from cluster.config import EvaluationConfig, RunConfig
from cluster.launch import run_id
from cluster.stage_log import Progress
from envs import suites
from services.client import Client, saved_token
from services.config import LimitsConfig, ServiceConfig
from services.evaluations.orders import ENDED, Evaluation, Item, SuiteResult
from services.evaluations.settled import presented_by
from services.port import free_ports
from services.reports import measured
from services.reports.measured import Measured, Point, Stage
from trainers import curriculum
from trainers.checkpoints import Checkpoint, Checkpoints, resolve
from trainers.compute import Compute

SHOWN_EACH = 2  # episodes kept for people, of each suite and each way it can end
ANSWER_TOKENS = 256  # where no PPO section says how long an answer is

Show = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A checkpoint to be measured."""

    stage: Stage
    checkpoint: Checkpoint
    is_final: bool


def measure(config: RunConfig, settings: EvaluationConfig, show: Show) -> Measured:
    """Evaluate init and every checkpoint of both branches on the ID and OOD suites, and keep what came of it."""
    wanted = list(wanted_of(config))
    show(Progress(stage="evaluation", step=0, steps=0, message="starting the service"))
    with _service(config, len(wanted)) as client:
        ordered = [order(client, config, settings, each) for each in wanted]
        ended = wait_all(client, ordered, show)
        points = tuple(
            _point(each, evaluation, before=_spent_on_init(wanted), items=client.items(evaluation.id))
            for each, evaluation in zip(wanted, ended, strict=True)
        )
    found = Measured(
        run=config.name,
        environment=config.environment.name,
        tasks_word=suites.tasks_word(config.environment.name),
        options=presented_by(config.environment.name, config.environment.options),
        viter=settings.viter,
        curriculum=_curriculum(config),
        temperature=settings.temperature,
        deals={stage: getattr(config, stage).deals for stage in ("sft_branch", "ppo") if getattr(config, stage)},
        points=points,
    )
    measured.write(measured.home(config.store.uri, config.name), found)
    return found


def _curriculum(config: RunConfig) -> str:
    """The curriculum of a run's verification iterations in words; empty where it has none."""
    return curriculum.in_words(config.ppo.viter) if config.ppo and not isinstance(config.ppo.viter, int) else ""


def wanted_of(config: RunConfig) -> Iterator[Wanted]:
    """Init, then each branch's checkpoints. Without an SFT stage, init is the checkpoint that the run starts from."""
    if config.sft is not None:
        *_, init = Checkpoints(config.store.uri, run_id(config, "sft"))
        yield Wanted("init", init, True)
    elif "@" in config.model.source:
        yield Wanted("init", resolve(config.store.uri, config.model.source), True)
    branches: tuple[Stage, ...] = ("sft_branch", "ppo")
    for stage in branches:
        if getattr(config, stage) is not None:
            *between, last = Checkpoints(config.store.uri, run_id(config, stage))
            yield from (Wanted(stage, checkpoint, False) for checkpoint in between)
            yield Wanted(stage, last, True)


def order(client: Client, config: RunConfig, settings: EvaluationConfig, wanted: Wanted) -> Evaluation:
    """Order one evaluation, or find the one that an earlier attempt ordered, unless that one failed."""
    details: dict[str, Any] = {
        "environment": config.environment.name,
        "modality": suites.modality_of(config.environment.options),
        "suites": settings.suites_for(config.environment),
        "options": presented_by(config.environment.name, config.environment.options),
        "n": settings.n if wanted.is_final else settings.curve_n,
        "viter": settings.viter,
        "decoding": {
            "temperature": settings.temperature,
            "max_tokens": config.ppo.answer_tokens if config.ppo else ANSWER_TOKENS,
        },
    }
    name = wanted.checkpoint.name
    key = hashlib.sha256(json.dumps([name, wanted.checkpoint.digest, details]).encode()).hexdigest()
    found = client.evaluate(name, idempotency_key=key, **details)
    return found if found.status not in ("failed", "canceled") else client.evaluate(name, **details)


def one(client: Client, checkpoint: str, show: Show, **order: Any) -> Evaluation:
    """Measure one checkpoint through a running service, and wait for it. An interrupt cancels the evaluation.

    `order` are fields of `EvaluationOrder`.
    """
    evaluation = client.evaluate(checkpoint, **order)
    try:
        return wait_all(client, [evaluation], show)[0]
    except KeyboardInterrupt:
        client.cancel(evaluation.id)
        raise


def token(store: str) -> str | None:
    """The bearer token of a service: VITER_TOKEN, or what `viter serve` left in a local store."""
    return os.environ.get("VITER_TOKEN") or saved_token(store)


def table(rows: Sequence[tuple[str, SuiteResult]]) -> str:
    """Rates with their intervals, one line for each result, aligned; per step where an environment is measured so."""
    counts_steps = any(result.headline == "per_step_accuracy" for _, result in rows)
    head = ("", "suite", *(("per step",) if counts_steps else ()), "success", "first attempt", "recognition", "n")
    body = [
        (
            name,
            result.suite,
            *((measured.told(result.per_step_accuracy),) if counts_steps else ()),
            measured.told(result.success),
            measured.told(result.first_attempt),
            measured.told(result.recognition) if result.recognition else "-",
            str(result.n),
        )
        for name, result in rows
    ]
    return aligned([head, *body])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equally many cells as lines of a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def wait_all(client: Client, ordered: Sequence[Evaluation], show: Show) -> list[Evaluation]:
    """Each evaluation once it has ended, telling how many tasks of all are done: they take turns on the engines."""
    total = sum({evaluation.id: evaluation.counts.total for evaluation in ordered}.values())
    done = {evaluation.id: evaluation.counts.done for evaluation in ordered}
    ended: list[Evaluation] = []
    for place, evaluation in enumerate(ordered):
        behind = [other.id for other in ordered[place + 1 :]]

        def tell(now: Evaluation, behind: Sequence[str] = behind) -> None:
            done.update({each.id: each.counts.done for each in (now, *map(client.evaluation, behind))})
            what = f"{len(ended)} of {len(ordered)} checkpoints" if len(ordered) > 1 else now.model
            show(Progress(stage="evaluation", step=sum(done.values()), steps=total, message=what))

        ended.append(evaluation if evaluation.status in ENDED else client.wait(evaluation.id, tell))
    show(Progress(stage="evaluation", step=total, steps=total, message="done"))
    return ended


def _spent_on_init(wanted: Sequence[Wanted]) -> int:
    """FLOPs up to init, which every branch has in common; 0 where a run has no init."""
    return sum(Compute.from_dict(each.checkpoint.info.compute).flops for each in wanted if each.stage == "init")


def _point(wanted: Wanted, evaluation: Evaluation, *, before: int, items: Iterator[Item]) -> Point:
    checkpoint = wanted.checkpoint
    spent = Compute.from_dict(checkpoint.info.compute).flops - before
    return Point(
        stage=wanted.stage,
        checkpoint=checkpoint.name,
        digest=checkpoint.digest,
        step=checkpoint.step,
        flops=max(0, spent),
        is_final=wanted.is_final,
        results={result.suite: result for result in evaluation.results or ()},
        episodes=tuple(shown(items)) if wanted.is_final else (),
    )


def shown(items: Iterator[Item]) -> list[Item]:
    """The first few of each suite that were solved at once, solved after revision, and not solved."""
    taken: dict[tuple[str, str], list[Item]] = {}
    for item in sorted(items, key=lambda item: item.index):
        kind = "unsolved" if not item.success else "revised" if len(item.turns) > 1 else "at once"
        rows = taken.setdefault((item.suite, kind), [])
        if item.error is None and len(rows) < SHOWN_EACH:
            rows.append(item)
    return sorted((item for rows in taken.values() for item in rows), key=lambda item: item.suite)


@contextmanager
def _service(config: RunConfig, evaluations: int) -> Iterator[Client]:
    """A service of this run's store, on a free port, with the engines that its rollouts had; or the cluster's own."""
    from services import app

    settings = ServiceConfig(
        store=config.store.uri,
        state=str(measured.home(config.store.uri, config.name)) if "://" in config.store.uri else None,
        port=free_ports(1)[0],
        engine=config.rollout.engine,
        replicas=config.rollout.workers,
        replica_cpus=config.placement.rollout_cpus,
        replica_gpus=config.placement.rollout_gpus,
        episodes_in_flight=config.rollout.episodes_in_flight,
        limits=LimitsConfig(evaluations=max(64, 2 * evaluations)),
        training=False,
    )
    try:
        started = app.start(settings, reuse=True)
        interrupts.listen()
        with Client(started.url, started.token or token(str(started.state))) as client:
            yield client
    finally:
        app.stop()
