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
from envs.base import DataError
from envs.task import Task

Kind = Literal["id", "ood"]


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


class HasSuites(Protocol):
    """What a factory of environments offers where it has suites of its own: name -> SuiteSpec, ID first."""

    suites: Mapping[str, SuiteSpec]


def suite_names(environment: str) -> tuple[str, ...]:
    """`("general_points/id", "general_points/ood-rule", …)`; an environment that names none has its default as `id`."""
    return tuple(f"{environment}/{name}" for name in _specs(environment))


def default_suites(environment: str) -> tuple[str, ...]:
    """The first ID suite and, where there is one, the first OOD suite."""
    first: dict[str, str] = {}
    for name, spec in _specs(environment).items():
        first.setdefault(spec.kind, f"{environment}/{name}")
    return tuple(first.values())


@lru_cache(maxsize=32)
def load(name: str, n: int) -> Suite:
    """The first `n` tasks of a suite.

    Raises:
        DataError: there is no such suite, or `n` is not positive.
    """
    environment, _, short = name.partition("/")
    specs = _specs(environment)
    if short not in specs:
        raise DataError(f"suite {name!r} is unknown; suites of {environment} are {', '.join(suite_names(environment))}")
    if n < 1:
        raise DataError(f"suite {name}: n={n}: at least one task is needed")
    spec = specs[short]
    game = envs.make(environment, **spec.options)
    tasks = tuple(game.sample("suite", short, index) for index in range(n))
    return Suite(
        name=name, kind=spec.kind, environment=environment, options=game.options.model_dump(), tasks=tasks,
        digest=digest(tasks),
    )  # fmt: skip


def with_viter(tasks: Iterable[Task], viter: int) -> tuple[Task, ...]:
    """The same tasks with another number of verification iterations."""
    tasks = tuple(tasks)
    changed = {id(task.options): {**task.options, "viter": viter} for task in tasks}  # one dict for many tasks
    return tuple(replace(task, options=changed[id(task.options)]) for task in tasks)


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
    specs = cast(HasSuites, envs.factory(environment))
    return getattr(specs, "suites", {"id": SuiteSpec("id", {})})
