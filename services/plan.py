"""What a run would do, told before anything starts: the resolved run file, and whether this machine could hold it."""

import os
import shutil
from pathlib import Path

import yaml

import envs
from cluster.config import RunConfig
from cluster.launch import OVERSUBSCRIPTION
from cluster.placement import CapacityError, Plan, check
from envs.base import DataError
from trainers.checkpoints import resolve
from trainers.eyes import sees


def told(config: RunConfig, plan: Plan) -> str:
    """The run with every default filled in, those of its environment and its suites too, and what it reserves."""
    resolved = config.model_dump(mode="json")
    options = envs.make(config.environment.name, **config.environment.options).options.model_dump(mode="json")
    resolved["environment"]["options"] = {key: value for key, value in options.items() if key != "viter"}
    if config.evaluation is not None:
        resolved["evaluation"]["suites"] = list(config.evaluation.suites_for(config.environment))
    return f"{yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)}\n{plan}"


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
