"""Which checkpoints are what their manifests say. Asked at every listing; each file is read once.

    a folder ─► stamps, manifest, sizes ─► sha256 of model/, newest first ─► intact, or one sentence of damage
                (at once)                  (local stores, on a thread)

A verdict holds for (manifest, stamps of all files): what was written again is looked at again. Where the store is
remote, sha256 is left to those who fetch the files (`materialise`), and what they find comes back by `distrust`.
"""

import hashlib
import heapq
import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from envs.base import DataError
from trainers.checkpoint import Checkpoint, examine_model, examine_sizes, step_name
from trainers.checkpoints import CheckpointDamaged, CheckpointMissing, Checkpoints
from trainers.storage import Store

PATIENCE_S = 1.0  # how long a listing waits for what it has never seen: a small store is listed at once
LOCAL_AGE_S, REMOTE_AGE_S = 30.0, 600.0  # stamps are compared again after this long, and before a checkpoint is served
INSPECTION = "viter-inspection"  # the name of the thread that looks and reads
LOOKS = 3  # at a folder that changes while it is looked at

Place = tuple[str, int]  # run and step
logger = logging.getLogger("viter.registry")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a checkpoint's folder showed."""

    checkpoint: Checkpoint | None  # None where the manifest is damaged
    stamps: dict[str, str]
    key: str  # of the verdict
    damage: str | None  # in one sentence
    is_unread: bool  # sizes fit, and sha256 is still to be compared
    at: float

    @property
    def is_intact(self) -> bool:
        return self.damage is None and not self.is_unread


class Verdicts:
    """What was found by reading files, by key. With a file, it outlives the process and reaches those beside it."""

    def __init__(self, path: Path | None):
        self._path = path
        self._found: dict[str, str | None] = {}
        self._read_to = 0
        self._lock = threading.Lock()

    def find(self, key: str) -> tuple[bool, str | None]:
        """Whether it was found, and the damage."""
        with self._lock:
            self._catch_up()
            return key in self._found, self._found.get(key)

    def add(self, key: str, damage: str | None) -> None:
        with self._lock:
            self._found[key] = damage
            if self._path is None:
                return
            line = json.dumps({"key": key, "damage": damage}).encode() + b"\n"
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("ab", buffering=0) as file:
                    file.write(line)  # one write: lines of several processes do not mix
            except OSError as error:
                logger.warning("%s: %s; files are read again after a restart", self._path, error.strerror)
                self._path = None

    def _catch_up(self) -> None:
        try:
            if self._path is None or self._path.stat().st_size <= self._read_to:
                return
            with self._path.open("rb") as file:
                file.seek(self._read_to)
                data = file.read()
        except OSError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                self._found[str(entry["key"])] = entry["damage"]
            except (ValueError, KeyError, TypeError):  # torn by a kill: that file is read again
                continue


class Inspector:
    """The checkpoints of a store, as far as they are intact. Thread-safe; every method may read the store."""

    def __init__(self, store: Store, verdicts: Verdicts, *, reads: bool = True):
        """`reads` False compares sizes alone, for those whose engine verifies whatever it loads."""
        self.store = store
        self._verdicts = verdicts
        is_local = store.directory("") is not None
        self._reads = reads and is_local
        self._age_s = LOCAL_AGE_S if is_local else REMOTE_AGE_S
        self._seen: dict[Place, Seen] = {}
        self._turns: defaultdict[Place, threading.Lock] = defaultdict(threading.Lock)
        self._change = threading.Condition()  # of the three below
        self._line: list[tuple[tuple[bool, float], Place]] = []  # a heap: looks first, then reads, newest first
        self._open: set[Place] = set()  # in line or at work; `intact` waits for those it has never seen
        self._thread: threading.Thread | None = None  # ends when the line is empty; a daemon, it holds up no exit

    def intact(self, places: Collection[Place]) -> list[Checkpoint]:
        """Those of `places` that are known to be intact. The others are put in line, the new ones waited for a second."""
        known, now = dict(self._seen), time.monotonic()  # a copy: other threads go on
        new = {place for place in places if place not in known}
        old = {place for place in places if place in known and now - known[place].at > self._age_s}
        for place in known.keys() - set(places):
            self._seen.pop(place, None)
        with self._change:
            for place in (new | old) - self._open:
                self._put(place, is_read=False, order=-place[1])
            self._change.wait_for(lambda: self._open.isdisjoint(new), timeout=PATIENCE_S)
        known = dict(self._seen)
        found = [known[place] for place in places if place in known]
        return [seen.checkpoint for seen in found if seen.checkpoint is not None and seen.is_intact]

    def get(self, run: str, step: int) -> Checkpoint:
        """The checkpoint, looked at now and read where it never was.

        Raises:
            CheckpointMissing: no such step.
            CheckpointDamaged: what is wrong, and the newest earlier one that is known to be intact.
        """
        seen = self._examined((run, step))
        if seen is None:
            raise CheckpointMissing(f"{self.store.uri} holds no {run}@{step_name(step)}")
        if seen.damage is None and seen.checkpoint is not None:
            return seen.checkpoint
        earlier = [s for (r, s), other in list(self._seen.items()) if r == run and s < step and other.is_intact]
        way = f"the newest intact earlier one is {run}@{step_name(max(earlier))}" if earlier else "choose another"
        raise CheckpointDamaged(f"{seen.damage}; {way}")

    def newest(self, run: str) -> Checkpoint | None:
        """The newest intact checkpoint of a run; None where it has none at all.

        Raises:
            CheckpointDamaged: each of its checkpoints is; the newest is told.
        """
        damage = None
        for step in reversed(Checkpoints(self.store, run).candidates()):
            seen = self._examined((run, step))
            if seen is not None and seen.is_intact:
                return seen.checkpoint
            if seen is not None:
                damage = damage or seen.damage
        if damage:
            raise CheckpointDamaged(f"{run} holds no intact checkpoint: {damage}")
        return None

    def distrust(self, checkpoint: Checkpoint, damage: str) -> None:
        """Somebody who loaded it found it damaged. Believed until a file of it is written again."""
        place = checkpoint.run, checkpoint.step
        seen = self._examined(place)
        if seen is not None and seen.checkpoint is not None and seen.checkpoint.digest == checkpoint.digest:
            self._verdicts.add(seen.key, damage)
            self._seen[place] = replace(seen, damage=damage)
            logger.warning("%s is no longer listed: %s", checkpoint.name, damage)

    def _examined(self, place: Place) -> Seen | None:
        with self._turns[place]:  # whoever comes meanwhile waits, and then finds it known
            seen = self._look(place)
            if seen is not None and seen.is_unread:
                seen = self._read(seen)
            self._remember(place, seen)
            return seen

    def _remember(self, place: Place, seen: Seen | None) -> None:
        before = self._seen.get(place)
        if seen is None:
            self._seen.pop(place, None)
            return
        self._seen[place] = seen
        if seen.damage and (before is None or before.damage != seen.damage):
            logger.warning("not listed: %s", seen.damage)

    def _look(self, place: Place) -> Seen | None:
        """What the folder shows without reading the model; None where there is no checkpoint."""
        run, step = place
        name = f"{run}@{step_name(step)}"
        try:
            folder = f"{run}/checkpoints/{step_name(step)}"
            for _ in range(LOOKS):
                stamps = self.store.stamps(folder)
                seen = self._judged(place, stamps)
                if seen is None or seen.damage is None or stamps == self.store.stamps(folder):
                    break
            return seen
        except (FileNotFoundError, DataError):  # it went while it was looked at, or a link leads out of the store
            return None
        except OSError as error:
            return Seen(None, {}, "", f"{name} cannot be read: {error}", False, time.monotonic())

    def _judged(self, place: Place, stamps: dict[str, str]) -> Seen | None:
        before, now = self._seen.get(place), time.monotonic()
        if before is not None and before.stamps == stamps:
            is_known, damage = self._verdicts.find(before.key)
            return replace(before, at=now, damage=damage) if is_known else replace(before, at=now)
        try:
            checkpoint = Checkpoints(self.store, place[0]).load(place[1])
        except CheckpointMissing:
            return None
        except CheckpointDamaged as error:
            return Seen(None, stamps, "", str(error), False, now)
        key = _key(checkpoint, stamps)
        is_known, damage = self._verdicts.find(key)
        if not is_known:
            try:
                examine_sizes(checkpoint)
            except CheckpointDamaged as error:
                return Seen(checkpoint, stamps, key, str(error), False, now)
        return Seen(checkpoint, stamps, key, damage, self._reads and not is_known, now)

    def _read(self, seen: Seen) -> Seen:
        assert seen.checkpoint is not None
        damage = None
        try:
            examine_model(seen.checkpoint)
        except (DataError, OSError) as error:
            damage = str(error)
        self._verdicts.add(seen.key, damage)
        return replace(seen, damage=damage, is_unread=False)

    def _put(self, place: Place, *, is_read: bool, order: float) -> None:
        """Into the line, and wake or start who works on it. Called with `_change` held."""
        self._open.add(place)
        heapq.heappush(self._line, ((is_read, order), place))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=INSPECTION, daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            with self._change:
                if not self._line:
                    self._thread = None
                    return
                (is_read, _), place = heapq.heappop(self._line)
            try:
                seen = self._examined(place) if is_read else self._first_look(place)
            except Exception:  # the top of a thread: one folder must not hide the others
                logger.exception("%s@%s cannot be inspected", place[0], step_name(place[1]))
                seen = None
            with self._change:
                if seen is not None and seen.checkpoint is not None and seen.is_unread:
                    self._put(place, is_read=True, order=-seen.checkpoint.created)
                else:
                    self._open.discard(place)
                self._change.notify_all()

    def _first_look(self, place: Place) -> Seen | None:
        with self._turns[place]:
            seen = self._look(place)
            if seen is None or not seen.is_unread:
                self._remember(place, seen)
            return seen


def _key(checkpoint: Checkpoint, stamps: dict[str, str]) -> str:
    told = json.dumps([checkpoint.uri, checkpoint.digest, checkpoint.created, stamps], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()
