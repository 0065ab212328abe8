"""RunConfig: one file that says a whole run, composed of each package's settings. Imports no torch, Ray or vLLM."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

import envs
from envs import suites
from envs.base import Config, ConfigError, validated
from trainers import curriculum
from trainers.config import LearnerConfig, ModelConfig, PpoConfig, SftConfig, StoreConfig

STAGES = ("sft", "sft_branch", "ppo")


class EnvironmentConfig(Config):
    """The task to train on."""

    name: str = "general_points"
    """A registered environment."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its own options, checked by the environment itself. `viter` stands in `ppo.viter`."""


class EngineConfig(Config):
    """One vLLM engine."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Arithmetic of the engine."""
    kv_cache_gib: float = Field(0.5, gt=0)
    """Key-value cache on CPU, in GiB."""
    gpu_memory_utilization: float = Field(0.85, gt=0, le=1)
    """Share of a GPU's memory, on GPUs."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs of one engine."""
    max_model_len: int = Field(1024, ge=64)
    """Longest prompt and answers together, in tokens."""
    max_num_seqs: int = Field(128, ge=1)
    """Sequences decoded together."""
    prefix_cache: bool = True
    """Reuse the cache of a shared history; off for bit-equal log-probs."""
    threads: int = Field(1, ge=1)
    """CPU threads of the engine's arithmetic."""


class RolloutConfig(Config):
    """Rollout workers and verifiers."""

    workers: int = Field(1, ge=1)
    """Rollout workers: one engine each. Training begins when all are there, and goes on while one is."""
    max_workers: int | None = Field(None, ge=1)
    """Rollout workers at most: those beyond `workers` join when the cluster has room for them, and may leave with their
    nodes. None is `workers`."""
    episodes_in_flight: int = Field(128, ge=1)
    """Episodes a worker plays at once."""
    verifiers: int = Field(1, ge=1)
    """Verifier actors."""
    verdict_deadline_s: float = Field(10.0, gt=0)
    """Seconds until a verdict is asked of another verifier. A verdict takes microseconds; this catches dead hosts."""
    weights: Literal["auto", "store", "broadcast"] = "auto"
    """How new weights reach the engines: through Ray's object store, once per node; or broadcast from the first learner rank
    straight into every engine, by NCCL on GPUs and gloo on CPUs. `auto` broadcasts where learner and engines have GPUs of
    their own."""
    engine: EngineConfig = EngineConfig()
    """The engine of each worker."""

    @model_validator(mode="after")
    def _more_is_more(self) -> Self:
        if self.max_workers is not None and self.max_workers < self.workers:
            raise ValueError(
                f"max_workers={self.max_workers} is less than workers={self.workers}; raise it or leave it out"
            )
        return self


class PlacementConfig(Config):
    """What each actor reserves."""

    learner_cpus: float = Field(1.0, gt=0)
    """CPUs of a learner rank."""
    learner_gpus: float = Field(0.0, ge=0)
    """GPUs of a learner rank."""
    rollout_cpus: float = Field(1.0, gt=0)
    """CPUs of a rollout worker."""
    rollout_gpus: float = Field(0.0, ge=0)
    """GPUs of a rollout worker; its engine's `tensor_parallel`."""
    verifier_cpus: float = Field(0.1, gt=0)
    """CPUs of a verifier actor."""
    learner_strategy: Literal["PACK", "STRICT_PACK", "SPREAD", "STRICT_SPREAD"] = "PACK"
    """How learner ranks lie on nodes."""
    rollout_strategy: Literal["PACK", "STRICT_PACK", "SPREAD", "STRICT_SPREAD"] = "SPREAD"
    """How rollout workers lie on nodes."""
    wait_s: float = Field(600.0, gt=0)
    """How long to wait for the cluster to have room, explaining itself every 15 s."""
    autoscales: bool = False
    """The cluster adds nodes on demand. Where it does not, a run that can never fit is refused at once."""


class EvaluationConfig(Config):
    """What is measured once training is done, through the served endpoint."""

    suites: tuple[str, ...] = ()
    """Suites by name; empty takes the environment's first ID and first OOD suite in the modality that is trained."""
    n: int = Field(512, ge=1)
    """Tasks of each suite for the final checkpoint of each stage."""
    curve_n: int = Field(256, ge=1)
    """Tasks of each suite for the checkpoints in between: the first of the same tasks."""
    viter: int = Field(5, ge=1)
    """Judged attempts per state, whatever `ppo.viter` is or becomes: all checkpoints are measured alike."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature; 0 decodes greedily."""

    def suites_for(self, environment: EnvironmentConfig) -> tuple[str, ...]:
        """The suites that are played. Raises DataError where one does not exist, or there is none in the modality."""
        for name in self.suites:
            suites.check(name)
        return self.suites or suites.default_suites(environment.name, suites.modality_of(environment.options))


class RunConfig(Config):
    """One run: an environment, a model, and the stages that train it, in the order sft, sft_branch, ppo."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    """Names the run. Each stage is kept as `NAME-STAGE`; the same name resumes."""
    environment: EnvironmentConfig = EnvironmentConfig()
    """The task."""
    model: ModelConfig = ModelConfig()
    """The model the first stage starts from."""
    sft: SftConfig | None = None
    """Makes the init checkpoint from `model`."""
    sft_branch: SftConfig | None = None
    """SFT continued from init: what RL is compared with."""
    ppo: PpoConfig | None = None
    """RL from init."""
    learner: LearnerConfig = LearnerConfig()
    """The learner group of every stage."""
    rollout: RolloutConfig = RolloutConfig()
    """Rollouts of PPO."""
    placement: PlacementConfig = PlacementConfig()
    """Resources."""
    store: StoreConfig = StoreConfig()
    """Where it is kept."""
    evaluation: EvaluationConfig | None = None
    """ID and OOD evaluation after training; null leaves it to `viter eval`."""

    @model_validator(mode="after")
    def _the_parts_fit(self) -> Self:
        if not self.stages:
            raise ValueError(f"a run needs at least one of the sections {', '.join(STAGES)}")
        longest = self.rollout.engine.max_model_len
        if self.ppo is not None and self.learner.row_tokens < longest:
            raise ValueError(
                f"learner.row_tokens={self.learner.row_tokens} is less than rollout.engine.max_model_len={longest}, "
                "and an episode that long would not fit a row; raise the one or lower the other"
            )
        self._a_broadcast_is_possible()
        if "viter" in self.environment.options:
            raise ValueError("environment.options.viter is set by ppo.viter; leave it out")
        envs.make(self.environment.name, **self.environment.options)
        if self.ppo is not None:
            self._environment_takes(curriculum.most(self.ppo.viter))
        if self.evaluation is not None:
            self.evaluation.suites_for(self.environment)  # what cannot be measured is not worth training
        return self

    def _environment_takes(self, viter: int) -> None:
        try:
            envs.make(self.environment.name, **self.environment.options, viter=viter)
        except ConfigError as error:
            raise ConfigError(f"ppo.viter: {viter}: {error}") from None

    def _a_broadcast_is_possible(self) -> None:
        gpus = (self.placement.learner_gpus, self.placement.rollout_gpus)
        if self.rollout.weights == "broadcast" and not (max(gpus) == 0 or min(gpus) >= 1):
            raise ValueError(
                "rollout.weights=broadcast needs learner and engines on CPUs, or each on whole GPUs of its own, not "
                f"placement.learner_gpus={gpus[0]:g} and placement.rollout_gpus={gpus[1]:g}; use store"
            )

    @property
    def broadcasts_weights(self) -> bool:
        """Whether new weights are broadcast to the engines: `rollout.weights`, decided."""
        gpus = min(self.placement.learner_gpus, self.placement.rollout_gpus)
        return self.rollout.weights == "broadcast" or (self.rollout.weights == "auto" and gpus >= 1)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages this run has, in the order they run."""
        return tuple(stage for stage in STAGES if getattr(self, stage) is not None)

    @classmethod
    def load(cls, path: Path, overrides: tuple[str, ...] = ()) -> Self:
        """The run of a YAML file, with `key.path=value` overrides applied.

        Raises:
            ConfigError: one sentence naming the file and key.
        """
        try:
            data = parsed_yaml(path.read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: not a text file in UTF-8; a run file is YAML") from None
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: a run file is a mapping of keys, not {type(data).__name__}")
        return validated(cls, assigned(overrides, flag="--set", onto=data), source=str(path))


def assigned(pairs: Iterable[str], *, flag: str, onto: dict[str, Any] | None = None) -> dict[str, Any]:
    """`onto`, with each `key.path=value` set in it; a value is YAML. `flag` is where people wrote them.

    Raises:
        ConfigError: a pair without `=`, a path through what is no section, a value that is no YAML.
    """
    data = {} if onto is None else onto
    for pair in pairs:
        source = f"{flag} {pair}"
        key, separator, value = pair.partition("=")
        if not separator:
            raise ConfigError(f"{source}: write it as key.path=value")
        assign(data, key, parsed_yaml(value, source), source=source)
    return data


def assign(data: dict[str, Any], key: str, value: Any, *, source: str) -> None:
    """Set `key.path` in `data` to `value`, making the sections on its way. Raises ConfigError through what is none."""
    *parents, leaf = key.split(".")
    for parent in parents:
        if data.get(parent) is None:
            data[parent] = {}
        data = data[parent]
        if not isinstance(data, dict):
            raise ConfigError(f"{source}: {parent} is not a section")
    data[leaf] = value


def parsed_yaml(text: str, source: str) -> Any:
    """YAML as plain data. A date that does not exist is a ValueError of PyYAML's, deep nesting a RecursionError."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())[:200]}") from None
