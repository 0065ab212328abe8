"""Checkpoints, for those who read them: from a name to verified files. `run_checkpoints` writes them.

<store>/<run>/checkpoints/step-000040/model/         Hugging Face files: safetensors, config, tokenizer
                                      learner/       optimizer and random state; verified before unpickling
                                      manifest.json  size and sha256 of every file, metrics, compute, parents
<store>/<run>/aliases/best                           see `aliases`
"""

import difflib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from envs.base import DataError
from trainers.aliases import LATEST, aliases, read_alias, write_alias
from trainers.checkpoint import STEP_NAME, Checkpoint, examine, fetch, is_intact, model_digest
from trainers.disk import free_bytes, is_disk_full
from trainers.manifest import (
    ALIAS_NAME,
    RUN_NAME,
    CheckpointDamaged,
    CheckpointInfo,
    CheckpointMissing,
    checked_name,
)
from trainers.run_checkpoints import Checkpoints
from trainers.storage import Store, StoreFull, open_store

__all__ = [
    "Checkpoint",
    "CheckpointDamaged",
    "CheckpointInfo",
    "CheckpointMissing",
    "Checkpoints",
    "StoreFull",
    "aliases",
    "list_runs",
    "materialise",
    "model_digest",
    "resolve",
    "verify",
    "write_alias",
]


class Shelf(Protocol):
    """The checkpoints of one run, as far as a name needs them; `Checkpoints` is one."""

    def get(self, step: int) -> Checkpoint: ...

    def newest(self, verify: bool = ...) -> Checkpoint | None: ...


def verify(checkpoint: Checkpoint, *, learner: bool = True) -> None:
    """Read every file, or those of the model alone, and compare it with the manifest.

    Raises:
        CheckpointDamaged: the first file that differs, is missing or was added; and the newest intact step.
    """
    try:
        examine(checkpoint, learner=learner)
    except CheckpointDamaged as error:
        raise _with_way_out(checkpoint, error) from None


def materialise(checkpoint: Checkpoint, into: Path | None = None, *, learner: bool = True) -> Path:
    """A local directory with the verified `model/`, and with `learner` the `learner/` state.

    A checkpoint on this machine stays where it is. Others are fetched once into a folder of `into` (the user's cache by
    default), named by content, and verified again at each use.

    Raises:
        CheckpointDamaged: as `verify`.
    """
    folder = checkpoint.store.directory(checkpoint.folder)
    if folder is not None:
        verify(checkpoint, learner=learner)
        return folder
    cache = into or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "viter" / "checkpoints"
    target = cache / f"{checkpoint.digest[:32]}-{checkpoint.name if learner else 'model'}"
    try:
        if not is_intact(target, checkpoint, learner=learner):
            shutil.rmtree(target, ignore_errors=True)
            fetch(checkpoint, target, learner=learner)
    except CheckpointDamaged as error:
        raise _with_way_out(checkpoint, error) from None
    except OSError as error:
        if not is_disk_full(error, cache):
            raise
        raise StoreFull(
            f"{cache}: disk full: {checkpoint.name} needs {checkpoint.manifest.size_bytes} bytes and "
            f"{free_bytes(cache)} are available; free some space, older folders there may go"
        ) from error
    return target


def resolve(store: str | Path | Store, name: str, *, shelf: Callable[[Store, str], Shelf] = Checkpoints) -> Checkpoint:
    """The checkpoint of `run@step-000040`, `run@latest` or `run@ALIAS`, taken from the `shelf` of its run.

    Raises:
        DataError: a name that is none of these.
        CheckpointMissing: no such run, step or alias.
        CheckpointDamaged: a damaged manifest, or an alias whose step has other weights by now.
    """
    run, separator, reference = name.partition("@")
    if not separator:
        raise DataError(f"{name[:80]!r} names no checkpoint; write RUN@step-000040, RUN@latest or RUN@ALIAS")
    opened = open_store(store)
    checked_name(run, RUN_NAME, "run")
    if match := STEP_NAME.fullmatch(reference):
        return shelf(opened, run).get(int(match[1]))
    checked_name(reference, ALIAS_NAME, "alias")
    if reference == LATEST:
        newest = shelf(opened, run).newest(verify=False)
        if newest is None:
            raise CheckpointMissing(f"{opened.uri} holds no checkpoint of {run!r}; {_nearest_run(opened, run)}")
        return newest
    return _aliased(opened, run, reference, shelf)


def list_runs(store: str | Path | Store) -> list[str]:
    """Runs with at least one checkpoint, sorted. A folder that cannot be read is none, and hides no other."""
    opened = open_store(store)
    return [name for name in opened.folders("") if RUN_NAME.fullmatch(name) and _has_checkpoint(opened, name)]


def _has_checkpoint(store: Store, run: str) -> bool:
    try:
        return Checkpoints(store, run, on_damage=lambda _: None).newest(verify=False) is not None
    except (DataError, OSError):  # a link out of the store, a folder without permissions
        return False


def _with_way_out(checkpoint: Checkpoint, error: CheckpointDamaged) -> CheckpointDamaged:
    return CheckpointDamaged(f"{error}; {Checkpoints(checkpoint.store, checkpoint.run).way_out(checkpoint.step)}")


def _aliased(store: Store, run: str, alias: str, shelf: Callable[[Store, str], Shelf]) -> Checkpoint:
    try:
        meant = read_alias(store, run, alias)
    except FileNotFoundError:
        known = ", ".join([LATEST, *aliases(store, run)])
        raise CheckpointMissing(
            f"{store.uri} holds no alias {alias!r} of {run}; it knows {known} and step-NNNNNN"
        ) from None
    try:
        checkpoint = shelf(store, meant.run).get(meant.step)
    except CheckpointDamaged as error:
        raise CheckpointDamaged(f"{run}@{alias} names a damaged checkpoint: {error}") from None
    if checkpoint.digest != meant.digest:
        raise CheckpointDamaged(
            f"{run}@{alias}: it was given to weights {meant.digest[:12]}, but {checkpoint.name} now holds "
            f"{checkpoint.digest[:12]}; set the alias again"
        )
    return checkpoint


def _nearest_run(store: Store, run: str) -> str:
    known = list_runs(store)
    close = difflib.get_close_matches(run, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"its runs are {', '.join(known) or 'none'}"
