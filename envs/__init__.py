"""The tasks: what is asked of a model, what a verifier says of its answer, and what an expert would have said.

    make(name, **options) ─► Environment:  sample ─► Task ─► prompt ─► (answer) ─► verify ─► Verdict, State
                                                       └─► expert ─► corpus.expert_document ─► SFT
    suites.load(name, n)  ─► frozen ID and OOD tasks with a digest

An environment is one folder and one entry point in the group `viter.environments`, whose value is called with the
options and returns an `Environment` (see `task`). Everything here is pure: tasks are named by counters, verdicts depend
on their arguments alone, and no text of a model is ever executed.

Knows no torch, Ray, vLLM or HTTP. Start reading at `task`, then `general_points` and `virl`.
"""

import difflib
import importlib
import json
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.metadata import entry_points
from typing import Any

from envs.base import ConfigError
from envs.task import Environment

Factory = Callable[..., Environment]

ENTRY_POINTS = "viter.environments"
_built_in = {  # so that a checkout works uninstalled too
    "general_points": "envs.general_points:GeneralPoints",
    "virl": "envs.virl:Virl",
}
_registered: dict[str, Factory] = {}


def register(name: str, factory: Factory) -> None:
    """Make `factory` known as `name` in this process. Workers are other processes, which know only entry points."""
    _registered[name] = factory
    _made.cache_clear()


def names() -> tuple[str, ...]:
    """Every environment that `make` knows, sorted."""
    return tuple(sorted({*_built_in, *_entry_points(), *_registered}))


def factory(name: str) -> Factory:
    """What makes the environment `name`; an unknown name is a ConfigError."""
    if name in _registered:
        return _registered[name]
    path = _entry_points().get(name) or _built_in.get(name)
    if path is None:
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known environments are {', '.join(names())}"
        raise ConfigError(f"environment {name[:80]!r} is unknown; {hint}")
    return _load(path)


def make(name: str, /, **options: Any) -> Environment:
    """The environment `name` with these options; equal calls return the same object.

    Raises:
        ConfigError: unknown name, or options that the environment refuses.
    """
    try:
        canonical = json.dumps(options, sort_keys=True)
    except TypeError as error:
        raise ConfigError(f"{name}: options must be JSON values: {error}") from None
    return _made(name, canonical)


@lru_cache(maxsize=256)
def _made(name: str, canonical: str) -> Environment:
    return factory(name)(**json.loads(canonical))


@cache
def _entry_points() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


@cache
def _load(path: str) -> Factory:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
