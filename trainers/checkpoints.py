"""The one writer of checkpoints, and everything that reads them.

    <store>/<run>/checkpoints/step-000040/model/         Hugging Face files: safetensors, config, tokenizer
                                          learner/       optimizer and random state; verified before unpickling
                                          manifest.json  size and sha256 of every file, metrics, compute, parents
    <store>/<run>/aliases/best                           {"step": 40, "digest": "…"}

A checkpoint is there whole or not at all (see `storage`), and nothing without a valid manifest is ever listed.
Written twice, a step is replaced: between its two renames a kill leaves that step absent, never half of it.
"""

import difflib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from envs.base import DataError
from trainers.checkpoint import Checkpoint, examine, fetch, is_intact, model_digest, step_name
from trainers.manifest import (
    ALIAS_NAME,
    LEARNER,
    RUN_NAME,
    CheckpointDamaged,
    CheckpointInfo,
    CheckpointMissing,
    Manifest,
    checked_name,
)
from trainers.storage import (
    MANIFEST,
    Store,
    StoreFull,
    free_bytes,
    is_disk_full,
    open_store,
    used_bytes,
)

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

LEFTOVER_AGE_S = 3600  # a writer touches its staging more often than this
LATEST = "latest"
STEP_NAME = re.compile(r"step-(\d{6,9})", re.ASCII)

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(
        self, store: str | Path | Store, run: str, *, on_damage: Callable[[str], object] = logger.warning
    ) -> None:
        """`on_damage` hears one sentence for each damaged checkpoint that `newest` steps over."""
        self.store = open_store(store)
        self.run = checked_name(run, RUN_NAME, "run")
        self._on_damage = on_damage

    def commit(self, step: int, write: Callable[[Path], object], info: CheckpointInfo) -> Checkpoint:
        """Let `write` fill a directory with `model/` and perhaps `learner/`, then publish it.

        Raises:
            StoreFull: nothing was published, staging is gone, and what was committed before is intact.
        """
        staged = self.stage(step)
        try:
            write(staged)
        except BaseException as error:
            self.abandon(step, staged, error)
            raise
        return self.publish(step, staged, info)

    def stage(self, step: int) -> Path:
        """A directory to fill, for ranks that write together: one stages, all write, one publishes or abandons.

        With a remote store it lies in `TMPDIR` of this machine, which all ranks must then share.

        Raises:
            StoreFull: there is less room than the run's newest checkpoint takes.
        """
        self.store.collect(self._folder, older_than_s=LEFTOVER_AGE_S)
        staged = self.store.stage(self._folder_of(step))
        if free_bytes(staged) < self._usual_bytes():
            self.abandon(step, staged)
            raise self._full(step, self._usual_bytes(), staged.parent)
        return staged

    def publish(self, step: int, staged: Path, info: CheckpointInfo) -> Checkpoint:
        """Make what was staged durable and visible. On any failure it is abandoned."""
        folder = self._folder_of(step)
        try:
            files = self.store.settle(staged, folder)
            manifest = Manifest(run=self.run, step=step, created=time.time(), info=info, files=files)
            if not manifest.model_files:
                raise DataError(f"{self.run}@{step_name(step)}: nothing was written to model/")
            self.store.seal(staged, folder, manifest.to_json())
        except BaseException as error:
            self.abandon(step, staged, error)
            raise
        return Checkpoint(self.run, self.store, manifest)

    def abandon(self, step: int, staged: Path, cause: BaseException | None = None) -> None:
        """Remove a staging directory.

        Raises:
            StoreFull: `cause` came of a full disk.
        """
        is_full, written = cause is not None and is_disk_full(cause, staged.parent), used_bytes(staged)
        shutil.rmtree(staged, ignore_errors=True)
        if is_full:
            raise self._full(step, max(written, self._usual_bytes()), staged.parent) from cause

    def steps(self) -> list[int]:
        """Steps with a valid manifest, ascending."""
        return [checkpoint.step for checkpoint in self]

    def __iter__(self) -> Iterator[Checkpoint]:
        """Checkpoints with a valid manifest, ascending. No file but the manifests is read."""
        for step in self._candidates():
            try:
                yield self.get(step)
            except (CheckpointDamaged, CheckpointMissing):
                continue

    def get(self, step: int) -> Checkpoint:
        """The checkpoint of one step. Its files are verified by `verify` or `materialise`.

        Raises:
            CheckpointMissing: no such step.
            CheckpointDamaged: its manifest is missing, damaged or that of another step.
        """
        try:
            return self._load(step)
        except CheckpointDamaged as error:
            raise CheckpointDamaged(f"{error}; {self._way_out(step)}") from None

    def newest(self, verify: bool = True) -> Checkpoint | None:
        """The newest checkpoint, with `verify` the newest whose every file is as it was committed; None without one."""
        return self._newest_before(None, verify=verify, on_damage=self._on_damage)

    def prune(self, keep_last: int) -> list[int]:
        """Take the learner state from all but the newest `keep_last`; the models stay. Returns the steps it changed."""
        changed = []
        for checkpoint in list(self)[:-keep_last]:
            manifest, learner = checkpoint.manifest, f"{checkpoint.folder}/{LEARNER.rstrip('/')}"
            if checkpoint.has_learner_state:
                slim = Manifest(
                    run=manifest.run,
                    step=manifest.step,
                    created=manifest.created,
                    info=manifest.info,
                    files=manifest.model_files,
                )
                self.store.put(f"{checkpoint.folder}/{MANIFEST}", slim.to_json())  # before the files go
                changed.append(checkpoint.step)
            self.store.remove(learner)  # also what a kill after the line above left
        return changed

    def _newest_before(
        self, step: int | None, *, verify: bool, on_damage: Callable[[str], object]
    ) -> Checkpoint | None:
        for candidate in reversed([c for c in self._candidates() if step is None or c < step]):
            try:
                checkpoint = self._load(candidate)
                if verify:
                    examine(checkpoint)
            except (CheckpointDamaged, CheckpointMissing) as error:
                on_damage(f"{error}; it is skipped")
                continue
            return checkpoint
        return None

    def _load(self, step: int) -> Checkpoint:
        name, folder = f"{self.run}@{step_name(step)}", self._folder_of(step)
        if not self.store.is_sealed(folder):
            known = ", ".join(map(str, self._candidates()[-8:])) or "no steps at all"
            raise CheckpointMissing(f"{self.store.uri} holds no {name}; of {self.run} it holds {known}")
        try:
            manifest = Manifest.from_json(self.store.read(f"{folder}/{MANIFEST}"))
            if manifest.step != step:
                raise ValueError(f"it is the one of step {manifest.step}")
        except FileNotFoundError:
            raise CheckpointDamaged(f"{name}: {MANIFEST} is missing") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointDamaged(f"{name}: {MANIFEST} is damaged: {error}") from None
        return Checkpoint(self.run, self.store, manifest)

    def _candidates(self) -> list[int]:
        names = (STEP_NAME.fullmatch(name) for name in self.store.folders(self._folder))
        return sorted(int(match[1]) for match in names if match)

    def _way_out(self, step: int) -> str:
        intact = self._newest_before(step, verify=True, on_damage=lambda _: None)
        return f"the newest intact earlier one is {intact.name}" if intact else "no earlier one is intact"

    def _usual_bytes(self) -> int:
        newest = self._newest_before(None, verify=False, on_damage=lambda _: None)
        return newest.manifest.size_bytes if newest else 0

    def _full(self, step: int, needed: int, disk: Path) -> StoreFull:
        return StoreFull(
            f"{disk}: disk full: {self.run}@{step_name(step)} needs at least {needed} bytes and {free_bytes(disk)} are "
            "available; all earlier checkpoints are intact: free some space and run the same command again"
        )

    @property
    def _folder(self) -> str:
        return f"{self.run}/checkpoints"

    def _folder_of(self, step: int) -> str:
        return f"{self._folder}/{step_name(step)}"


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
    return CheckpointDamaged(f"{error}; {Checkpoints(checkpoint.store, checkpoint.run)._way_out(checkpoint.step)}")


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
