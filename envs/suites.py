"""Frozen sets of tasks for evaluation, in distribution (ID) and out of it (OOD).

A suite is drawn from counters that training never uses, so it is the same on every machine and for every run. Task i
does not depend on how many are taken: a suite of 500 is the first half of the suite of 1,000.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Protocol, cast

import envs
from envs.base import ConfigError, DataError
from envs.task import Task

Kind = Literal["id", "ood"]
Headline = Literal["success", "per_step_accuracy"]


@dataclass(frozen=True, slots=True)
class SuiteSpec:
    """What an environment says of one of its suites: the kind, and the options its tasks are drawn with."""

    kind: Kind
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Tasks with a name and a digest. Equal digests are equal tasks in equal order."""

    name: str  # "general_points/ood-rule"
    kind: Kind
    environment: str
    options: Mapping[str, Any]
    tasks: tuple[Task, ...]
    digest: str  # sha256, 64 hexadecimal digits


class Measurable(Protocol):
    """What an environment's class says of measuring it. Every part may be left out."""

    suites: Mapping[str, SuiteSpec]
    """By name, ID first; left out, the environment as it comes is its one suite, `id`."""
    presentation: tuple[str, ...]
    """Options that show the same tasks in another way, which a caller may set for any suite; `("viter",)` if left out."""
    headline: Headline
    """The rate it is measured by: `success` of episodes, or `per_step_accuracy` of answers; `success` if left out."""
    tasks_word: str
    """What people call several of its tasks, e.g. "hands" or "routes"; "tasks" if left out."""


def suite_names(environment: str) -> tuple[str, ...]:
    """`("general_points/id", "general_points/ood-rule", …)`; an environment that names none has its default as `id`."""
    return tuple(f"{environment}/{name}" for name in _specs(environment))


def default_suites(environment: str, modality: str = "language") -> tuple[str, ...]:
    """The first ID suite and, where there is one, the first OOD suite, of those whose tasks are shown in `modality`.

    Raises:
        DataError: it has no suite in that modality.
    """
    first: dict[str, str] = {}
    for name, spec in _specs(environment).items():
        if modality_of(spec.options) == modality:
            first.setdefault(spec.kind, f"{environment}/{name}")
    if not first:
        raise DataError(f"environment {environment} has no suites in {modality}; name some of another modality")
    return tuple(first.values())


def modality_of(options: Mapping[str, Any]) -> str:
    """How an environment with these options shows its tasks: "language" or "vision"."""
    return str(options.get("modality", "language"))


def headline(environment: str) -> Headline:
    """The rate that the environment is measured by. See `Measurable`."""
    return cast(Headline, getattr(envs.factory(environment), "headline", "success"))


def tasks_word(environment: str) -> str:
    """What people call several of its tasks. See `Measurable`."""
    return str(getattr(envs.factory(environment), "tasks_word", "tasks"))


def presentation(environment: str) -> tuple[str, ...]:
    """Options that show the same tasks in another way. See `Measurable`."""
    return tuple(getattr(envs.factory(environment), "presentation", ("viter",)))


def check(name: str) -> None:
    """Raises DataError where there is no such suite, without drawing its tasks."""
    environment, _, short = name.partition("/")
    if short not in _specs(environment):
        raise DataError(f"suite {name!r} is unknown; suites of {environment} are {', '.join(suite_names(environment))}")


@lru_cache(maxsize=32)
def load(name: str, n: int) -> Suite:
    """The first `n` tasks of a suite.

    Raises:
        DataError: there is no such suite, or `n` is not positive.
    """
    check(name)
    if n < 1:
        raise DataError(f"suite {name}: n={n}: at least one task is needed")
    environment, _, short = name.partition("/")
    spec = _specs(environment)[short]
    game = envs.make(environment, **spec.options)
    tasks = tuple(game.sample("suite", short, index) for index in range(n))
    return Suite(
        name=name, kind=spec.kind, environment=environment, options=game.options.model_dump(), tasks=tasks,
        digest=digest(tasks),
    )  # fmt: skip


def presented(tasks: Iterable[Task], **options: Any) -> tuple[Task, ...]:
    """The same tasks of one environment, shown with other options, e.g. `viter=10` or `resolution=128`.

    Raises:
        ConfigError: an option that would deal other tasks, or a value that the environment refuses.
    """
    tasks = tuple(tasks)
    for environment in {task.environment for task in tasks}:
        allowed = presentation(environment)
        if foreign := sorted(options.keys() - set(allowed)):
            raise ConfigError(
                f"{environment} options: {foreign[0]}: a suite fixes it, since other values are other tasks; "
                f"what may be set for any suite is {', '.join(allowed)}"
            )
    shown = {id(task.options): _resolved(task, options) for task in tasks}  # one dict for many tasks
    return tuple(replace(task, options=shown[id(task.options)]) for task in tasks)


def _resolved(task: Task, options: Mapping[str, Any]) -> Mapping[str, Any]:
    return envs.make(task.environment, **{**task.options, **options}).options.model_dump(mode="json")


def shared(tasks: Iterable[Task], others: Iterable[Task]) -> frozenset[str]:
    """What both sets hold, by `Environment.identity` where the environment has one, else by the tasks' ids.

    Empty for a suite of unseen tasks and anything that training with `hands="train"` draws.
    """
    return frozenset(map(_identity, tasks)) & frozenset(map(_identity, others))


def _identity(task: Task) -> str:
    environment = envs.make(task.environment, **task.options)
    return environment.identity(task) if hasattr(environment, "identity") else task.id


def digest(tasks: Iterable[Task]) -> str:
    """sha256 over one line of canonical JSON per task."""
    found = hashlib.sha256()
    for task in tasks:
        row = {"environment": task.environment, "options": task.options, "id": task.id, "data": task.data}
        found.update(json.dumps(row, sort_keys=True, separators=(",", ":"), default=dict).encode() + b"\n")
    return found.hexdigest()


def _specs(environment: str) -> Mapping[str, SuiteSpec]:
    measurable = cast(Measurable, envs.factory(environment))
    return getattr(measurable, "suites", {"id": SuiteSpec("id", {})})
