"""What a step of PPO will take: memory, seconds, bubble, weight sync. From formulas for a card, or from a finished run.

    decode    a step reads all weights and each sequence's cache:  (weights + n·cache) / memory bandwidth
    prefill   2·N operations per token, at half the card's peak
    learner   (6·epochs + 2)·N operations per token, a third more with gradient checkpointing, at `MFU` of the peak
    sync      all weights once to each node, over its link

Every figure is for one synchronous step, and for one whose rollouts overlap the learning (`max_staleness` ≥ 1).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.bubble import EngineSpeed, Load, Played, play_step
from cluster.config import RunConfig
from cluster.placement import BYTES
from envs.base import ConfigError
from trainers import curriculum
from trainers.compute import FORWARD, TRAIN

PREFILL_SHARE = 0.5  # of peak operations; compute-bound
DECODE_SHARE = 0.7  # of peak bandwidth
MFU = 0.4  # of the learner; public figures of RL lie between 0.1 and 0.4, dense pre-training reaches 0.5
PAUSE_S = 0.1  # an engine's pause and resume around new weights
GPUS_A_NODE = 8
ORCHESTRATOR_S = 8e-6  # per episode, measured by `make bench`
VERDICT_S = 0.002  # an answer to its verifier actor and back


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An accelerator, by its data sheet."""

    memory_s: float  # bytes per second
    flops_s: float  # dense bfloat16
    link_s: float  # bytes per second into a node


CARDS = {
    "a100": Card(memory_s=2.0e12, flops_s=312e12, link_s=25e9),
    "h100": Card(memory_s=3.35e12, flops_s=989e12, link_s=50e9),
    "h200": Card(memory_s=4.8e12, flops_s=989e12, link_s=50e9),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast the parts of a run are."""

    engine: EngineSpeed
    learner_token_s: float  # seconds of the whole group per token of a packed row: scoring and every epoch
    sync_s: float  # new weights to every engine
    fixed_s: float = 0.0  # of a step, whatever its size: probe, logs, checkpoints left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """One step with `viter` verification iterations."""

    viter: int
    workers: int
    success: float
    attempts: float  # mean per position
    tokens: float  # decoded in the step
    rollout_s: float
    slots_idle: float  # while playing, with nothing to refill from
    learn_s: float
    sync_s: float
    synchronous_s: float  # rollout, learning and sync one after another
    overlapped_s: float  # rollouts of the next step meanwhile: the slower of the two, and the sync


def card_rates(config: RunConfig, parameters: int, card: Card, load: Load, *, cache_bytes: int = 0) -> Rates:
    """Rates by the formulas above.

    Args:
        parameters: of the model.
        cache_bytes: key-value cache of one token; 0 leaves it out.
    """
    ppo, rollout, learner = config.ppo, config.rollout, config.learner
    assert ppo is not None
    width = rollout.engine.tensor_parallel
    weights = parameters * BYTES[rollout.engine.dtype]
    context = load.prompt + load.attempts(curriculum.most(ppo.viter)) * (load.answer + load.feedback) / 2
    forwards = FORWARD * parameters
    read_s = width * card.memory_s * DECODE_SHARE
    compute_s = width * card.flops_s * PREFILL_SHARE
    backward = TRAIN + (FORWARD if config.model.gradient_checkpointing else 0)
    return Rates(
        engine=EngineSpeed(
            fixed_s=weights / read_s,
            sequence_s=max(cache_bytes * context / read_s, forwards / compute_s),
            prefill_s=forwards / compute_s,
            verdict_s=VERDICT_S,
        ),
        learner_token_s=parameters * (backward * ppo.epochs + FORWARD) / (learner.workers * card.flops_s * MFU),
        sync_s=PAUSE_S + parameters * BYTES[config.model.dtype] / card.link_s,
    )


def forecast(config: RunConfig, load: Load, rates: Rates, *, viter: int, scale: int = 1, seed: int = 0) -> Forecast:
    """A step of `config` with `viter` iterations, its rollouts simulated.

    Args:
        scale: so many times the rollout workers, the learner ranks and the episodes. Assumed then: ranks share the
            tokens evenly and reduce gradients behind the backward pass; weights spread from node to node, those that
            have them giving them on, so that n nodes take ⌈log₂(n + 1)⌉ transfers; one orchestrator handles every
            episode (`ORCHESTRATOR_S`), beside the rollouts; nothing fails.
    """
    ppo, rollout = config.ppo, config.rollout
    assert ppo is not None
    slots = min(rollout.episodes_in_flight, rollout.engine.max_num_seqs)
    workers, positions = scale * rollout.workers, round(scale * ppo.episodes * load.positions)
    played = play_step(
        workers=workers, slots=slots, episodes=positions, viter=viter, load=load, engine=rates.engine, seed=seed
    )
    handled_s = scale * ppo.episodes * ORCHESTRATOR_S
    attempts = played.turns / positions
    row = load.prompt + attempts * load.answer + (attempts - 1) * load.feedback
    learn_s = positions * row * rates.learner_token_s / scale
    transfers = math.ceil(math.log2(nodes(config, scale) + 1)) / math.ceil(math.log2(nodes(config, 1) + 1))
    sync_s = rates.sync_s * transfers
    return Forecast(
        viter=viter,
        workers=workers,
        success=load.success(viter),
        attempts=attempts,
        tokens=played.tokens,
        rollout_s=max(played.seconds, handled_s),
        slots_idle=played.slots_idle,
        learn_s=learn_s,
        sync_s=sync_s,
        synchronous_s=max(played.seconds, handled_s) + learn_s + sync_s + rates.fixed_s,
        overlapped_s=max(_full(played), handled_s, learn_s + rates.fixed_s) + sync_s,
    )


def nodes(config: RunConfig, scale: int) -> int:
    """Nodes that rollout workers fill, at `GPUS_A_NODE`; on CPU all of them share one."""
    gpus = scale * config.rollout.workers * config.placement.rollout_gpus
    return max(1, math.ceil(gpus / GPUS_A_NODE))


def _full(played: Played) -> float:
    """Seconds of the same work with every slot held all the time: what refilling from the next step gives."""
    return played.seconds * (1.0 - played.slots_idle)


def parameters_in(name: str) -> int | None:
    """Parameters by a model's name, as in `Llama-3.1-8B-Instruct`; None where it tells none."""
    found = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)[bB](?![\w])", name.replace("_", "-").replace("-", " "))
    return round(float(found[-1]) * 1e9) if found else None


def card_named(name: str) -> Card:
    """Raises ConfigError where the table has no such card."""
    if name.lower() not in CARDS:
        raise ConfigError(f"--card {name}: known are {', '.join(sorted(CARDS))}; give measured rates with --like RUN")
    return CARDS[name.lower()]


def table(rows: Sequence[Forecast]) -> str:
    """One line for each forecast, for people."""
    head = (
        f"{'viter':>5}{'workers':>9}{'solved':>8}{'attempts':>10}{'rollout':>10}{'idle':>7}{'learn':>9}{'sync':>8}"
        f"{'step':>9}{'overlapped':>12}"
    )
    lines = [
        f"{row.viter:>5}{row.workers:>9}{row.success:>8.2f}{row.attempts:>10.2f}{row.rollout_s:>8.1f} s{row.slots_idle:>7.0%}"
        f"{row.learn_s:>7.1f} s{row.sync_s:>6.2f} s{row.synchronous_s:>7.1f} s{row.overlapped_s:>10.1f} s"
        for row in rows
    ]
    return "\n".join([head, *lines])
