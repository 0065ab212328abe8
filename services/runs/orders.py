"""What is asked for over HTTP, checked as the command line does, and more strictly where it names files.

A client may hold no more of the service's machine than the store. A run of its making therefore names

    the model      `nano`, a checkpoint of the store, a model that is shipped, or a hub name OWNER/MODEL
    the corpus     a built-in one, or a file below the store, by its path there
    routes         (and whatever else an environment reads) likewise below the store
    the store      not at all: it is the service's
"""

import copy
import re
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

import cluster
from cluster.config import STAGES, RunConfig, assign, parsed_yaml
from envs.base import ConfigError, validated
from services.registry import nearest
from trainers.config import CORPORA
from trainers.storage import LocalStore, Store

DEPLOY = Path(cluster.__file__).parents[1] / "deploy"
HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
FILE_OPTIONS = ("routes", "panoramas")  # environment options that name files, whatever they look like
RESERVED = ("service", "evaluations")  # folders of the service's own in a store
SOURCE = "run"


class RunOrder(BaseModel):
    """A run to train: a run file's content, or the name of one that is shipped; and keys to set in it."""

    model_config = ConfigDict(extra="forbid")

    run: dict[str, Any] | None = None
    """The content of a run file. The store is the service's."""
    file: str | None = Field(None, max_length=100)
    """A shipped run file, e.g. `nano-gp-l`."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Keys to override, e.g. `{"ppo.viter": 10}`."""

    @model_validator(mode="after")
    def _names_one_run(self) -> Self:
        if (self.run is None) == (self.file is None):
            raise ValueError("give either `run`, the content of a run file, or `file`, the name of a shipped one")
        return self


def config_of(order: RunOrder, store: Store) -> RunConfig:
    """The run of an order, kept in `store`.

    Raises:
        ConfigError: one sentence naming the key, the value and what is allowed.
    """
    data = copy.deepcopy(order.run) if order.run is not None else _shipped(order.file or "")
    for key, value in order.set.items():
        assign(data, key, value, source=f"set {key[:80]}")
    _place_in(data, store)
    _check_model(data)
    _anchor_files(data, store)
    config = validated(RunConfig, data, source=SOURCE)  # reads files that options name: only after these are checked
    if config.name in RESERVED:
        raise ConfigError(f"{SOURCE}: name: {config.name!r} is a folder of the service's own; choose another")
    return config


def _shipped(name: str) -> dict[str, Any]:
    files = {path.stem: path for path in sorted((DEPLOY / "runs").glob("*.yaml"))}
    if name not in files:
        raise ConfigError(f"file: {name!r} is not shipped; the nearest are {', '.join(nearest(name, list(files)))}")
    data: dict[str, Any] = parsed_yaml(files[name].read_text(), f"deploy/runs/{name}.yaml")
    return data


def _place_in(data: dict[str, Any], store: Store) -> None:
    section = data.setdefault("store", {})
    if isinstance(section, dict):  # anything else is told with the other keys
        asked = section.setdefault("uri", store.uri)
        if asked not in (store.uri, "runs"):
            raise ConfigError(f"{SOURCE}: store.uri: {asked!r} is not this service's store; leave it out")
        section["uri"] = store.uri


def _check_model(data: dict[str, Any]) -> None:
    source = _section(data, "model").get("source")
    if not isinstance(source, str) or source == "nano" or "@" in source:
        return
    shipped = {f"deploy/models/{path.name}" for path in (DEPLOY / "models").iterdir() if path.is_dir()}
    if source not in shipped and not (HUB_NAME.fullmatch(source) and not (DEPLOY.parent / source).exists()):
        raise ConfigError(
            f"{SOURCE}: model.source: {source!r}: over HTTP a model is `nano`, RUN@step-000040 or RUN@ALIAS of the "
            f"store, a hub name OWNER/MODEL, or one of {', '.join(sorted(shipped))}"
        )


def _anchor_files(data: dict[str, Any], store: Store) -> None:
    """Paths below the store become absolute ones."""
    for stage in STAGES:
        section = _section(data, stage)
        corpus = section.get("corpus")
        if isinstance(corpus, str) and corpus not in CORPORA:
            section["corpus"] = _below(store, corpus, f"{stage}.corpus", f"one of {', '.join(CORPORA)}, or ")
    options = _section(_section(data, "environment"), "options")
    for key, value in options.items():
        if isinstance(value, str) and (key in FILE_OPTIONS or "/" in value or "\\" in value):
            options[key] = _below(store, value, f"environment.options.{key}", "")


def _section(data: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of the run; an empty one for what is none, which is told with the other keys."""
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _below(store: Store, path: str, key: str, others: str) -> str:
    where = f"{SOURCE}: {key}: {path[:80]!r}: over HTTP this is {others}the path of a file below the service's store"
    if not isinstance(store, LocalStore):
        raise ConfigError(f"{where}, which is remote here and holds no such files")
    root = store.root.resolve()
    found = (root / path).resolve() if "\0" not in path else root
    if Path(path).is_absolute() or found == root or not found.is_relative_to(root) or not found.exists():
        raise ConfigError(f"{where}; there is none at this path")
    return str(found)
