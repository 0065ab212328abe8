"""From a run file and `--over KEY=V,V` to the runs of a sweep, all of them checked. Starts nothing."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config import RunConfig, parsed_yaml
from envs.base import ConfigError
from trainers.checkpoint import step_name

AFTER_INIT = ("ppo", "rollout", "evaluation")
"""Sections that cannot change what SFT makes of a model: where a key of theirs is swept, all values share one init."""
APART = ("name", "store")  # of every run its own, or the same for all
LONGEST_NAME = 63  # of a run, see `RunConfig.name`


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value of the swept key, and the run that trains with it."""

    told: str  # as people read it: `4`, `float32`, `[[0, 1], [6, 3]]`
    value: Any
    config: RunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The runs of a sweep, in order."""

    name: str
    key: str
    init: RunConfig | None  # trained first, where every value starts from it
    values: tuple[Value, ...]

    @property
    def runs(self) -> tuple[RunConfig, ...]:
        """Every run, in the order they are trained."""
        return (*([self.init] if self.init else []), *(value.config for value in self.values))


def planned(run_file: Path, overrides: tuple[str, ...], over: str) -> Sweep:
    """The sweep of a run file, its runs named `NAME-KEY-VALUE`.

    SFT is trained once, as `NAME-init`, where the key cannot change it. The SFT branch is left out: values of one key
    are compared by their RL.

    Raises:
        ConfigError: one sentence naming the key, the value and what is allowed.
    """
    key, values = _parsed(over)
    base = RunConfig.load(run_file, overrides)
    section = key.partition(".")[0]
    if base.ppo is None:
        raise ConfigError(f"{run_file}: a sweep compares runs of PPO, and this run file has no ppo section; add one")
    if section in (*APART, "sft_branch"):
        raise ConfigError(f"--over {key}: a sweep sets {', '.join(APART)} and leaves out sft_branch; sweep another key")
    init = None
    start = ["sft_branch=null"]
    if base.sft is not None and section in AFTER_INIT:
        init = RunConfig.load(
            run_file, (*overrides, f"name={base.name}-init", "sft_branch=null", "ppo=null", "evaluation=null")
        )
        source = f"{init.name}-sft@{step_name(base.sft.steps)}"
        start += ["sft=null", "model.digest=null", f"model.source={source}"]
    name = f"{base.name}-{key}".lower()
    runs: dict[str, Value] = {}
    for value in values:
        run = _run_name(name, value)
        if run in runs:
            raise ConfigError(
                f"--over {key}: {runs[run].told} and {_told(value)} would both be kept as {run}; leave one out"
            )
        sets = (*overrides, *start, f"{key}={json.dumps(value, default=str)}", f"name={run}")
        runs[run] = Value(told=_told(value), value=value, config=RunConfig.load(run_file, sets))
    return Sweep(name=name, key=key, init=init, values=tuple(runs.values()))


def differences(before: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """`ppo.steps is 16 there and 10 here` for each setting of two resolved runs that is not the same.

    Where runs are kept and what they reserve may change between two attempts at one run.
    """
    old, new = _flat(before), _flat(asked)
    differ = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    return [
        f"{key} is {_told(old.get(key))} there and {_told(new.get(key))} here"
        for key in differ
        if key.partition(".")[0] not in (*APART, "placement")
    ]


def _parsed(over: str) -> tuple[str, list[Any]]:
    """The key and its values: YAML each, so that commas within brackets part nothing."""
    key, separator, text = over.partition("=")
    if not separator or "." not in key:
        raise ConfigError(f"--over {over}: write it as section.key=VALUE,VALUE, e.g. ppo.viter=1,3,5,10")
    values = parsed_yaml(f"[{text}]", f"--over {over}")
    if not values:
        raise ConfigError(f"--over {over}: name at least one value, e.g. ppo.viter=1,3,5,10")
    return key, values


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _run_name(name: str, value: Any) -> str:
    """`nano-gp-l-ppo.viter-0-1-6-3`; of one that is too long the beginning and a digest."""
    run = f"{name}-{re.sub(r'[^a-z0-9.]+', '-', _told(value).lower()).strip('-.') or 'empty'}"
    if len(run) <= LONGEST_NAME:
        return run
    digest = hashlib.sha256(run.encode()).hexdigest()[:8]
    return f"{run[: LONGEST_NAME - 1 - len(digest)].rstrip('-.')}-{digest}"


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
