"""Checkpoints, for those who read them: from a name to verified files. `run_checkpoints` writes them.

<store>/<run>/checkpoints/step-000040/model/         Hugging Face files: safetensors, config, tokenizer
                                      learner/       optimizer and random state; verified before unpickling
                                      manifest.json  size and sha256 of every file, metrics, compute, parents
<store>/<run>/aliases/best                           {"step": 40, "digest": "…"}
"""

import difflib
import json
import os
import shutil
from pathlib import Path

from envs.base import DataError
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

LATEST = "latest"


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


def resolve(store: str | Path | Store, name: str) -> Checkpoint:
    """The checkpoint of `run@step-000040`, `run@latest` or `run@ALIAS`.

    Raises:
        DataError: a name that is none of these.
        CheckpointMissing: no such run, step or alias.
        CheckpointDamaged: a damaged manifest, or an alias whose step has other weights by now.
    """
    run, separator, reference = name.partition("@")
    if not separator:
        raise DataError(f"{name[:80]!r} names no checkpoint; write RUN@step-000040, RUN@latest or RUN@ALIAS")
    checkpoints = Checkpoints(store, run)
    if match := STEP_NAME.fullmatch(reference):
        return checkpoints.get(int(match[1]))
    checked_name(reference, ALIAS_NAME, "alias")
    if reference == LATEST:
        newest = checkpoints.newest(verify=False)
        if newest is None:
            raise CheckpointMissing(
                f"{checkpoints.store.uri} holds no checkpoint of {run!r}; {_nearest_run(checkpoints)}"
            )
        return newest
    return _aliased(checkpoints, reference)


def write_alias(checkpoint: Checkpoint, alias: str) -> None:
    """Let `run@alias` name this checkpoint from now on. Readers see the old one or this one, nothing between."""
    checked_name(alias, ALIAS_NAME, "alias")
    if alias == LATEST or STEP_NAME.fullmatch(alias):
        raise DataError(f"{alias!r} cannot be an alias: it already means something; choose another name")
    data = json.dumps({"step": checkpoint.step, "digest": checkpoint.digest}).encode()
    checkpoint.store.put(f"{checkpoint.run}/aliases/{alias}", data)


def aliases(store: str | Path | Store, run: str) -> dict[str, int]:
    """The aliases of a run and the steps they name."""
    opened = open_store(store)
    names = opened.files(f"{checked_name(run, RUN_NAME, 'run')}/aliases")
    return {name: _read_alias(opened, run, name)[0] for name in sorted(names) if ALIAS_NAME.fullmatch(name)}


def list_runs(store: str | Path | Store) -> list[str]:
    """Runs with at least one checkpoint, sorted."""
    opened = open_store(store)
    names = [name for name in opened.folders("") if RUN_NAME.fullmatch(name)]
    return [name for name in names if Checkpoints(opened, name, on_damage=lambda _: None).newest(verify=False)]


def _with_way_out(checkpoint: Checkpoint, error: CheckpointDamaged) -> CheckpointDamaged:
    return CheckpointDamaged(f"{error}; {Checkpoints(checkpoint.store, checkpoint.run).way_out(checkpoint.step)}")


def _aliased(checkpoints: Checkpoints, alias: str) -> Checkpoint:
    run = checkpoints.run
    try:
        step, digest = _read_alias(checkpoints.store, run, alias)
    except FileNotFoundError:
        known = ", ".join([LATEST, *aliases(checkpoints.store, run)])
        raise CheckpointMissing(
            f"{checkpoints.store.uri} holds no alias {alias!r} of {run}; it knows {known} and step-NNNNNN"
        ) from None
    checkpoint = checkpoints.get(step)
    if checkpoint.digest != digest:
        raise CheckpointDamaged(
            f"{run}@{alias}: it was given to weights {digest[:12]}, but {checkpoint.name} now holds "
            f"{checkpoint.digest[:12]}; set the alias again"
        )
    return checkpoint


def _read_alias(store: Store, run: str, alias: str) -> tuple[int, str]:
    try:
        entry = json.loads(store.read(f"{run}/aliases/{alias}"))
        return int(entry["step"]), str(entry["digest"])
    except (ValueError, KeyError, TypeError):
        raise CheckpointDamaged(f"{run}@{alias}: the alias file is damaged; set the alias again") from None


def _nearest_run(checkpoints: Checkpoints) -> str:
    known = list_runs(checkpoints.store)
    close = difflib.get_close_matches(checkpoints.run, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"its runs are {', '.join(known) or 'none'}"
