"""Evaluations at rest, in the store of the checkpoints they measure: what was ordered, each finished item, what came of it.

    <store>/evaluations/<id>/order.json     written first: with it the evaluation exists
                             items.jsonl    one line per finished item; on a disk, appended and synced in batches
                             items/…        in an object store, one object per batch until the evaluation ends
                             result.json    written last: with it the evaluation has ended
                             player/        the lease of whoever plays it
    <store>/evaluations/.managers/<id>/     the lease of a manager, held while it lives

A process that dies leaves at most one torn last line, which the next one cuts off. Each item stands once.
"""

import logging
import re
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from envs.base import ViterError
from services.evaluations.itemlog import ItemLog, item_log
from services.evaluations.orders import Evaluation, Item
from trainers import lease
from trainers.lease import Lease, LeaseHeld
from trainers.storage import Store, open_store

EVALUATION_ID = re.compile(r"eval-[0-9a-f]{8,64}", re.ASCII)
ROOT = "evaluations"
MANAGERS = f"{ROOT}/.managers"
HOLDER = "viter service"

logger = logging.getLogger("viter.evaluations")


class EvaluationMissing(ViterError):
    """No evaluation of that id."""


class EvaluationUnreadable(EvaluationMissing):
    """An evaluation whose files cannot be read, e.g. since another version wrote them."""


class Journal:
    """The evaluations of one store, which several services may share. Blocks: it reads and writes the store.

    Each evaluation is ordered with one manager and has one player at a time, by a lease. Another manager may play it
    once the one it was ordered with is gone. `start` before use, `close` after.
    """

    def __init__(self, store: str | Path | Store):
        self._store = open_store(store)
        self._manager = uuid.uuid4().hex
        self._lives = ExitStack()  # the lease that says this manager lives
        self._held: dict[str, tuple[ExitStack, Lease, ItemLog]] = {}
        self._claiming = threading.Lock()  # two threads of one process would take each other for strangers
        self._unreadable: set[str] = set()  # told once

    def start(self) -> None:
        """Say that this manager lives, and sweep away what says it of dead ones."""
        for manager in self._store.folders(MANAGERS):
            if lease.holder(self._store, f"{MANAGERS}/{manager}") is None:
                self._store.remove(f"{MANAGERS}/{manager}")
        self._lives.enter_context(Lease.take(self._store, _manager_path(self._manager), holder=HOLDER).kept())

    def close(self) -> None:
        """Let other managers play what has not ended."""
        for evaluation_id in list(self._held):
            self.release(evaluation_id)
        self._lives.close()
        self._store.remove(_manager_path(self._manager))

    def ids(self) -> list[str]:
        """Every evaluation there may be: some of them cannot be loaded."""
        return [name for name in self._store.folders(ROOT) if EVALUATION_ID.fullmatch(name)]

    def create(self, evaluation: Evaluation) -> None:
        """Write a new evaluation's order. From then on it exists."""
        evaluation.manager = self._manager
        self._put(evaluation, "order.json")

    def load(self, evaluation_id: str) -> Evaluation:
        """The evaluation as it was left: ended, or as it was ordered.

        Raises:
            EvaluationMissing: no such evaluation.
            EvaluationUnreadable: it cannot be read; the log tells that once.
        """
        for name in ("result.json", "order.json"):
            try:
                data = self._store.read(f"{_folder(evaluation_id)}/{name}")
            except FileNotFoundError:
                continue
            with self._told(evaluation_id, name):
                return Evaluation.model_validate_json(data)
        raise EvaluationMissing(f"no evaluation {evaluation_id}")

    def readable(self) -> Iterator[Evaluation]:
        """Every evaluation that can be loaded."""
        for evaluation_id in self.ids():
            with suppress(EvaluationMissing):
                yield self.load(evaluation_id)

    def is_orphan(self, evaluation: Evaluation) -> bool:
        """Whether neither the manager it was ordered with lives, nor anybody who plays it."""
        paths = _manager_path(evaluation.manager), _player_path(evaluation.id)
        return not any(lease.holder(self._store, path) for path in paths)

    def claim(self, evaluation_id: str) -> bool:
        """Become the one who plays it; False while another process is. The lease is renewed until `release`."""
        with self._claiming:
            if evaluation_id in self._held:
                return True
            try:
                held = Lease.take(self._store, _player_path(evaluation_id), holder=HOLDER)
            except LeaseHeld:
                return False
            stack = ExitStack()
            stack.enter_context(held.kept())
            self._held[evaluation_id] = stack, held, item_log(self._store, _folder(evaluation_id), held.token)
            return True

    def release(self, evaluation_id: str) -> None:
        """Let another process play it, if it has not ended."""
        if evaluation_id in self._held:
            stack, _, _ = self._held.pop(evaluation_id)
            stack.close()

    def append(self, evaluation_id: str, items: Sequence[Item]) -> None:
        """Add finished items, durably. Raises LeaseLost when another process plays it by now."""
        _, held, log = self._held[evaluation_id]
        held.check()
        log.append(b"".join(item.model_dump_json().encode() + b"\n" for item in items))

    def finish(self, evaluation: Evaluation) -> None:
        """Write what came of it. Raises LeaseLost as `append`."""
        _, held, log = self._held[evaluation.id]
        held.check()
        log.compact()
        self._put(evaluation, "result.json")
        self.release(evaluation.id)

    def repaired(self, evaluation_id: str) -> list[Item]:
        """The finished items of a claimed evaluation, in order, once a torn last line has been cut off."""
        self._held[evaluation_id][2].compact()
        return self.items(evaluation_id)

    def items(self, evaluation_id: str) -> list[Item]:
        """Its finished items, in order; changes nothing."""
        found: dict[str, Item] = {}
        with self._told(evaluation_id, "items.jsonl"):
            for line in item_log(self._store, _folder(evaluation_id), 0).lines():
                item = Item.model_validate_json(line)
                found.setdefault(item.id, item)
        return list(found.values())

    def _put(self, evaluation: Evaluation, name: str) -> None:
        self._store.put(f"{_folder(evaluation.id)}/{name}", evaluation.model_dump_json(indent=1).encode())

    @contextmanager
    def _told(self, evaluation_id: str, name: str) -> Iterator[None]:
        try:
            yield
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            told = f"{evaluation_id}: {name} cannot be read: {where}: {first['msg']}; remove its folder to be rid of it"
            if evaluation_id not in self._unreadable:
                self._unreadable.add(evaluation_id)
                logger.warning(told)
            raise EvaluationUnreadable(told) from None


def _folder(evaluation_id: str) -> str:
    if not EVALUATION_ID.fullmatch(evaluation_id):
        raise EvaluationMissing(f"no evaluation {evaluation_id[:80]!r}; an id looks like eval-0123456789abcdef")
    return f"{ROOT}/{evaluation_id}"


def _player_path(evaluation_id: str) -> str:
    return f"{_folder(evaluation_id)}/player"


def _manager_path(manager: str) -> str:
    return f"{MANAGERS}/{manager}"
