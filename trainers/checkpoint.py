"""One committed checkpoint: its name, its manifest, and whether its files are still what the manifest says."""

import os
import re
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainers.disk import STAGING
from trainers.manifest import LEARNER, MODEL, CheckpointDamaged, CheckpointInfo, Manifest, digest_of
from trainers.storage import LocalStore, Store

STEP_NAME = re.compile(r"step-(\d{6,9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed checkpoint. Crosses processes; its files are read through `materialise`."""

    run: str
    store: Store
    manifest: Manifest

    @property
    def step(self) -> int:
        return self.manifest.step

    @property
    def name(self) -> str:
        return f"{self.run}@{step_name(self.step)}"

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def info(self) -> CheckpointInfo:
        return self.manifest.info

    @property
    def created(self) -> float:
        return self.manifest.created

    @property
    def folder(self) -> str:
        return f"{self.run}/checkpoints/{step_name(self.step)}"

    @property
    def uri(self) -> str:
        return f"{self.store.uri}/{self.folder}"

    @property
    def has_learner_state(self) -> bool:
        """Whether training can go on from it; False once pruned."""
        return any(name.startswith(LEARNER) for name in self.manifest.files)


def examine(checkpoint: Checkpoint, *, learner: bool = True) -> None:
    examine_sizes(checkpoint, learner=learner)
    _examine_contents(checkpoint, checkpoint.manifest.files if learner else checkpoint.manifest.model_files)


def examine_model(checkpoint: Checkpoint) -> None:
    """Read every file of the model, whose sizes have been compared."""
    _examine_contents(checkpoint, checkpoint.manifest.model_files)


def _examine_contents(checkpoint: Checkpoint, names: Iterable[str]) -> None:
    for name in names:
        try:
            found = checkpoint.store.sha256(f"{checkpoint.folder}/{name}")
        except FileNotFoundError:  # it went meanwhile
            raise CheckpointDamaged(f"{checkpoint.name}: {name} is missing") from None
        _compare(checkpoint, name, found)


def examine_sizes(checkpoint: Checkpoint, *, learner: bool = True) -> None:
    """What can be told without reading a file: each is there with its size, and the model has no other."""
    present = checkpoint.store.files(checkpoint.folder)
    for name, record in (checkpoint.manifest.files if learner else checkpoint.manifest.model_files).items():
        if name not in present:
            raise CheckpointDamaged(f"{checkpoint.name}: {name} is missing")
        if present[name] != record.size:
            raise CheckpointDamaged(
                f"{checkpoint.name}: {name} has {present[name]} bytes, the manifest says {record.size}"
            )
    for name in present:
        if name.startswith(MODEL) and name not in checkpoint.manifest.files:
            raise CheckpointDamaged(f"{checkpoint.name}: {name} was added after the commit; move it elsewhere")


def _compare(checkpoint: Checkpoint, name: str, found: str) -> None:
    expected = checkpoint.manifest.files[name].sha256
    if found != expected:
        raise CheckpointDamaged(f"{checkpoint.name}: {name}: sha256 is {found[:12]}, the manifest says {expected[:12]}")


def fetch(checkpoint: Checkpoint, target: Path, *, learner: bool) -> None:
    partial = target.with_name(f"{STAGING}{target.name}-{uuid.uuid4().hex}")
    try:
        for name in checkpoint.manifest.files if learner else checkpoint.manifest.model_files:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                found = checkpoint.store.fetch(f"{checkpoint.folder}/{name}", partial / name)
            except FileNotFoundError:
                raise CheckpointDamaged(f"{checkpoint.name}: {name} is missing") from None
            _compare(checkpoint, name, found)
        if not target.is_dir():  # another process may have fetched the same meanwhile
            os.rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def is_intact(folder: Path, checkpoint: Checkpoint, *, learner: bool) -> bool:
    """Whether a folder of the cache still holds what was fetched."""
    cache = LocalStore(folder)
    wanted = checkpoint.manifest.files if learner else checkpoint.manifest.model_files
    return cache.files("") == {name: record.size for name, record in wanted.items()} and all(
        cache.sha256(name) == record.sha256 for name, record in wanted.items()
    )


def model_digest(directory: Path) -> str:
    """The digest that a checkpoint of exactly these model files has."""
    model = LocalStore(directory)
    return digest_of({name: model.sha256(name) for name in model.files("")})


def step_name(step: int) -> str:
    return f"step-{step:06d}"
