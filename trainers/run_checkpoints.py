"""The checkpoints of one run: the one writer of checkpoints, and the list of what it wrote.

A checkpoint is there whole or not at all (see `storage`), and nothing without a valid manifest is ever listed.
Written twice, a step is replaced: between its two renames a kill leaves that step absent, never half of it.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from envs.base import DataError
from trainers.checkpoint import STEP_NAME, Checkpoint, examine, step_name
from trainers.disk import free_bytes, is_disk_full, used_bytes
from trainers.lease import Fence
from trainers.manifest import (
    LEARNER,
    RUN_NAME,
    CheckpointDamaged,
    CheckpointInfo,
    CheckpointMissing,
    Manifest,
    checked_name,
)
from trainers.storage import MANIFEST, Store, StoreFull, open_store

LEFTOVER_AGE_S = 3600  # a writer touches its staging more often than this

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(
        self, store: str | Path | Store, run: str, *, on_damage: Callable[[str], object] = logger.warning,
        fence: Fence | None = None,
    ) -> None:  # fmt: skip
        """Args:
        on_damage: hears one sentence for each damaged checkpoint that `newest` steps over.
        fence: the writer's right to commit, checked right before each. Readers need none.
        """
        self.store = open_store(store)
        self.run = checked_name(run, RUN_NAME, "run")
        self._on_damage, self._fence = on_damage, fence

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
        usual = self._usual_bytes()
        try:
            self.store.collect(self._folder, older_than_s=LEFTOVER_AGE_S)
            staged = self.store.stage(self._folder_of(step))
        except OSError as error:
            raise DataError(
                f"{self.store.uri}: {error.strerror or error}; choose a store.uri that can be written"
            ) from error
        if free_bytes(staged) < usual:
            self.abandon(step, staged)
            raise self._full(step, usual, free_bytes(staged.parent), staged.parent)
        return staged

    def publish(self, step: int, staged: Path, info: CheckpointInfo) -> Checkpoint:
        """Make what was staged durable and visible. On any failure it is abandoned.

        Raises:
            LeaseLost: another process took over this run's lease.
        """
        folder = self._folder_of(step)
        try:
            self._check_fence()  # a bucket's files go to their final place at once
            files = self.store.settle(staged, folder)
            manifest = Manifest(run=self.run, step=step, created=time.time(), info=info, files=files)
            if not manifest.model_files:
                raise DataError(f"{self.run}@{step_name(step)}: nothing was written to model/")
            self._check_fence()
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
        is_full = cause is not None and is_disk_full(cause, staged.parent)
        written = used_bytes(staged)
        available = free_bytes(staged.parent) + written  # counted before: a failed writer may hold its file open
        shutil.rmtree(staged, ignore_errors=True)
        if is_full:
            needed = max(self._usual_bytes(), available + 1)
            raise self._full(step, needed, available, staged.parent) from cause

    def steps(self) -> list[int]:
        """Steps with a valid manifest, ascending."""
        return [checkpoint.step for checkpoint in self]

    def __iter__(self) -> Iterator[Checkpoint]:
        """Checkpoints with a valid manifest, ascending. No file but the manifests is read."""
        for step in self.candidates():
            if self.store.is_sealed(self._folder_of(step)):
                try:
                    yield self.load(step)
                except CheckpointDamaged:
                    continue

    def get(self, step: int) -> Checkpoint:
        """The checkpoint of one step. Its files are verified by `verify` or `materialise`.

        Raises:
            CheckpointMissing: no such step.
            CheckpointDamaged: its manifest is missing, damaged or that of another step.
        """
        try:
            return self.load(step)
        except CheckpointMissing as error:
            known = ", ".join(map(str, self.steps()[-8:])) or "no steps at all"
            raise CheckpointMissing(f"{error}; of {self.run} it holds {known}") from None
        except CheckpointDamaged as error:
            raise CheckpointDamaged(f"{error}; {self.way_out(step)}") from None

    def load(self, step: int) -> Checkpoint:
        """As `get`, by the one manifest alone: what it raises names no other step."""
        name, folder = f"{self.run}@{step_name(step)}", self._folder_of(step)
        if not self.store.is_sealed(folder):
            raise CheckpointMissing(f"{self.store.uri} holds no {name}")
        try:
            manifest = Manifest.from_json(self.store.read(f"{folder}/{MANIFEST}"))
            if manifest.step != step:
                raise ValueError(f"it is the one of step {manifest.step}")
        except FileNotFoundError:
            raise CheckpointDamaged(f"{name}: {MANIFEST} is missing") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointDamaged(f"{name}: {MANIFEST} is damaged: {error}") from None
        return Checkpoint(self.run, self.store, manifest)

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
        for candidate in reversed([c for c in self.candidates() if step is None or c < step]):
            try:
                checkpoint = self.load(candidate)
                if verify:
                    examine(checkpoint)
            except CheckpointMissing:  # an upload that is not committed
                continue
            except CheckpointDamaged as error:
                on_damage(f"{error}; it is skipped")
                continue
            return checkpoint
        return None

    def candidates(self) -> list[int]:
        """Steps that have a folder, ascending; what lies in it is not looked at."""
        names = (STEP_NAME.fullmatch(name) for name in self.store.folders(self._folder))
        return sorted(int(match[1]) for match in names if match)

    def way_out(self, step: int) -> str:
        """What to say after a damaged `step`: the newest earlier one whose files all verify."""
        intact = self._newest_before(step, verify=True, on_damage=lambda _: None)
        return f"the newest intact earlier one is {intact.name}" if intact else "no earlier one is intact"

    def _usual_bytes(self) -> int:
        newest = self._newest_before(None, verify=False, on_damage=lambda _: None)
        return newest.manifest.size_bytes if newest else 0

    def _full(self, step: int, needed: int, available: int, disk: Path) -> StoreFull:
        return StoreFull(
            f"{disk}: disk full: {self.run}@{step_name(step)} needs at least {needed} bytes and {available} are "
            "available; all earlier checkpoints are intact: free some space and run the same command again"
        )

    def _check_fence(self) -> None:
        if self._fence is not None:
            self._fence.check()

    @property
    def _folder(self) -> str:
        return f"{self.run}/checkpoints"

    def _folder_of(self, step: int) -> str:
        return f"{self._folder}/{step_name(step)}"
