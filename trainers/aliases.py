"""Aliases: names of a run that stand for a checkpoint, of this run or of another.

<store>/<run>/aliases/best     {"run": "gp-ppo", "step": 40, "digest": "…", "evidence": {…}}

`latest` is computed and never written. The system writes `init` (what a stage started from), `best` and `best-ood` (what
evaluations showed); every other name is the user's. A file is replaced whole: readers see the old alias or the new one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.base import DataError
from trainers.checkpoint import STEP_NAME, Checkpoint, step_name
from trainers.manifest import ALIAS_NAME, RUN_NAME, CheckpointDamaged, CheckpointMissing, checked_name
from trainers.storage import Store, open_store

LATEST, INIT, BEST, BEST_OOD = "latest", "init", "best", "best-ood"
RESERVED = {
    LATEST: "it always names the newest checkpoint",
    INIT: "it is written when a stage starts",
    BEST: "it is written when an evaluation completes",
    BEST_OOD: "it is written when an evaluation completes",
}


class AliasReserved(DataError):
    """An alias that nobody sets or deletes by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """What an alias stands for."""

    run: str  # of the checkpoint; the alias itself may belong to another
    step: int
    digest: str  # of the weights it was given to
    evidence: dict[str, Any] = field(default_factory=dict)  # why, where the system chose it

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint."""
        return f"{self.run}@{step_name(self.step)}"


def own_alias(alias: str) -> str:
    """`alias`, where a person may set and delete it.

    Raises:
        AliasReserved: the system keeps it.
        DataError: no name for an alias.
    """
    if alias in RESERVED:
        raise AliasReserved(f"{alias!r} cannot be set or deleted by hand: {RESERVED[alias]}; choose another name")
    return _written(alias)


def write_alias(
    checkpoint: Checkpoint, alias: str, *, run: str | None = None, evidence: Mapping[str, Any] | None = None
) -> None:
    """Let `run@alias` name this checkpoint from now on; `run` is the checkpoint's own where it is left out."""
    owner = checked_name(run or checkpoint.run, RUN_NAME, "run")
    entry = {"run": checkpoint.run, "step": checkpoint.step, "digest": checkpoint.digest, "evidence": evidence or {}}
    checkpoint.store.put(_path(owner, _written(alias)), json.dumps(entry, sort_keys=True).encode())


def remove_alias(store: str | Path | Store, run: str, alias: str) -> None:
    """Let `run@alias` name nothing. Raises CheckpointMissing where it names nothing already."""
    opened = open_store(store)
    path = _path(checked_name(run, RUN_NAME, "run"), _written(alias))
    try:
        opened.read(path)
    except FileNotFoundError:
        raise CheckpointMissing(f"there is no alias {alias!r} of {run}") from None
    opened.remove(path)


def read_alias(store: Store, run: str, alias: str) -> Alias:
    """What `run@alias` stands for.

    Raises:
        FileNotFoundError: there is no such alias.
        CheckpointDamaged: its file is.
    """
    owner = checked_name(run, RUN_NAME, "run")
    data = store.read(_path(owner, checked_name(alias, ALIAS_NAME, "alias")))
    try:
        entry = json.loads(data)
        target = checked_name(entry.get("run", owner), RUN_NAME, "run")  # files of before name their own run by silence
        evidence = dict(entry.get("evidence", {}))
        return Alias(run=target, step=int(entry["step"]), digest=str(entry["digest"]), evidence=evidence)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError):
        raise CheckpointDamaged(f"{run}@{alias}: the alias file is damaged; set the alias again") from None


def aliases(store: str | Path | Store, run: str) -> dict[str, Alias]:
    """The aliases of a run, by name. A file that cannot be read is left out."""
    opened = open_store(store)
    found = {}
    for name in sorted(opened.files(f"{checked_name(run, RUN_NAME, 'run')}/aliases")):
        if ALIAS_NAME.fullmatch(name):
            try:
                found[name] = read_alias(opened, run, name)
            except (DataError, OSError):
                continue
    return found


def _written(alias: str) -> str:
    checked_name(alias, ALIAS_NAME, "alias")
    if alias == LATEST or STEP_NAME.fullmatch(alias):
        raise DataError(f"{alias!r} cannot be an alias: it already means something; choose another name")
    return alias


def _path(run: str, alias: str) -> str:
    return f"{run}/aliases/{alias}"
