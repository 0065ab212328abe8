"""What a run would do, told before anything starts: the resolved run file, and whether this machine could hold it."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

import envs
from cluster import forecast, placement, run_rates
from cluster.bubble import Load
from cluster.config import RunConfig
from cluster.connection import OVERSUBSCRIPTION
from cluster.placement import CapacityError, Plan, check, count_parameters
from envs.base import ConfigError, DataError
from trainers import curriculum
from trainers.checkpoints import resolve
from trainers.eyes import sees

PROMPT, FEEDBACK = 400, 60  # tokens of a text prompt and of a verdict's words, where no run tells them
VITERS = (1, 3, 5, 10)  # forecast where neither the caller nor a curriculum names others


def told(config: RunConfig, plan: Plan) -> str:
    """The run with every default filled in, those of its environment and its suites too, and what it reserves."""
    resolved = config.model_dump(mode="json")
    options = envs.make(config.environment.name, **config.environment.options).options.model_dump(mode="json")
    resolved["environment"]["options"] = {key: value for key, value in options.items() if key != "viter"}
    if config.evaluation is not None:
        resolved["evaluation"]["suites"] = list(config.evaluation.suites_for(config.environment))
    return f"{yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)}\n{plan}"


def forecasts(
    config: RunConfig, *, run: str | None, card: str, success: float, viters: Sequence[int], scales: Sequence[int]
) -> str:
    """What steps of the PPO stage will take: a table, and what it rests on.

    Args:
        run: a finished PPO stage of the store whose rates are taken; None takes those of `card`.
        success: chance that an attempt solves what is not solved yet; a finished run tells its own.
        viters: verification iterations to forecast; empty takes those of the run's curriculum, or `VITERS`.
    Raises:
        ConfigError: the run file has no PPO stage, the card is unknown, or the model's size cannot be told.
        DataError: the finished run is missing, or its rollouts overlapped its learning.
    """
    if config.ppo is None:
        raise ConfigError("ppo: this run file has no PPO stage to forecast; add one")
    size = count_parameters(Path(config.model.source)) or forecast.parameters_in(config.model.source)
    if run is not None:
        load, rates = run_rates.like(config.store.uri, run)
        source = f"rates, answers and chances of success as in {run}"
    else:
        if size is None:
            raise ConfigError(
                f"model.source {config.model.source}: its name tells no size; name a finished run with --like, "
                "or a directory of safetensors"
            )
        load = Load(
            prompt=PROMPT, answer=config.ppo.answer_tokens / 2, answer_spread=0.5, feedback=FEEDBACK, hazards=(success,)
        )
        rates = forecast.card_rates(config, size, forecast.card_named(card), load)
        source = (
            f"{size:,} parameters on {card.upper()} cards by the formulas of cluster/forecast.py; a prompt of {PROMPT} tokens, "
            f"answers of {load.answer:g}, feedback of {FEEDBACK}, each attempt solves {success:g} of what is not solved yet"
        )
    planned = curriculum.spans(config.ppo.viter, config.ppo.steps)
    changes = len(planned) > 1
    viters = viters or (sorted({count for count, _ in planned}) if changes else VITERS)
    rows = [forecast.forecast(config, load, rates, viter=v, scale=k) for k in scales for v in viters]
    reserved = placement.plan(config, parameters=size)
    note = "one step each; `overlapped` is with ppo.max_staleness of 1 or more"
    whole = [_whole_run(config, load, rates, scale) for scale in scales] if changes else []
    return "\n".join([f"{reserved}\n", forecast.table(rows), source, note, *whole])


def _whole_run(config: RunConfig, load: Load, rates: forecast.Rates, scale: int) -> str:
    """What all steps of a curriculum come to, since no one step stands for the others."""
    ppo = config.ppo
    assert ppo is not None
    spans = curriculum.spans(ppo.viter, ppo.steps)
    spent = [(count, forecast.forecast(config, load, rates, viter=viter, scale=scale)) for viter, count in spans]
    synchronous = sum(count * step.synchronous_s for count, step in spent)
    overlapped = sum(count * step.overlapped_s for count, step in spent)
    return (
        f"all {ppo.steps} steps with {scale * config.rollout.workers} workers, viter {curriculum.in_words(ppo.viter)}: "
        f"{synchronous:.0f} s, overlapped {overlapped:.0f} s"
    )


def check_this_machine(plan: Plan) -> None:
    """For a run that names no cluster.

    Raises:
        CapacityError: a cluster of this machine alone could never hold `plan`.
    """
    here = {"CPU": float(OVERSUBSCRIPTION * (os.cpu_count() or 1)), "GPU": _gpus()}
    if lack := check(plan, [here]):
        here_it_is = lack.replace("the cluster", "this machine").replace("the largest node", "this machine")
        raise CapacityError(
            f"placement: {here_it_is}; name a cluster with --address, "
            "or ask for less in rollout.*, learner.workers or placement.*"
        )


def check_source(config: RunConfig) -> None:
    """The model a run starts from, before a cluster is started for it.

    Raises:
        DataError: the checkpoint is missing or damaged, or reads text alone where the task has images.
    """
    source = config.model.source
    directory = Path(resolve(config.store.uri, source).uri) / "model" if "@" in source else Path(source)
    needs_eyes = config.environment.options.get("modality") == "vision"
    if needs_eyes and directory.is_dir() and not sees(directory):
        raise DataError(
            f"model.source {source}: this model reads text alone, and environment.options.modality is vision; "
            "use a vision-language model, or modality: language"
        )


def _gpus() -> float:
    """GPUs by their device files, since asking torch takes seconds. Where those say nothing, the driver's tool does."""
    count = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return float(count) if count or not shutil.which("nvidia-smi") else float("inf")
