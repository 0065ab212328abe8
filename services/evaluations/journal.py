"""Evaluations at rest: what was ordered, each finished item, what came of it.

    <state>/evaluations/<id>/order.json      written first: with it the evaluation exists
                             items.jsonl     one line per finished item, appended and synced in batches
                             result.json     written last: with it the evaluation has ended

A process that dies leaves at most one torn last line, which the next one cuts off. Each item stands once.
"""

import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path

from envs.base import ViterError
from services.evaluations.orders import Evaluation, Item

EVALUATION_ID = re.compile(r"eval-[0-9a-f]{8,64}", re.ASCII)


class EvaluationMissing(ViterError):
    """No evaluation of that id."""


class Journal:
    """The evaluations of one state directory, which several services may share.

    Each evaluation has one player at a time: the process that holds its lock, which it loses when it dies.
    """

    def __init__(self, state: Path):
        self.root = state / "evaluations"
        self._locks: dict[str, int] = {}

    def claim(self, evaluation_id: str) -> bool:
        """Become the one who plays it; False while another process is."""
        if evaluation_id in self._locks:
            return True
        lock = os.open(self._folder(evaluation_id) / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._locks[evaluation_id] = lock
        return True

    def release(self, evaluation_id: str) -> None:
        """Let another process play it, if it has not ended."""
        if evaluation_id in self._locks:
            os.close(self._locks.pop(evaluation_id))

    def close(self) -> None:
        """Release all."""
        for evaluation_id in list(self._locks):
            self.release(evaluation_id)

    def create(self, evaluation: Evaluation) -> None:
        """Write a new evaluation's order, and claim it."""
        folder = self._folder(evaluation.id)
        folder.mkdir(parents=True, exist_ok=True)  # a kill right here leaves an empty one
        self.claim(evaluation.id)
        _replace(folder / "order.json", evaluation.model_dump_json(indent=1))

    def finish(self, evaluation: Evaluation) -> None:
        """Write what came of it."""
        _replace(self._folder(evaluation.id) / "result.json", evaluation.model_dump_json(indent=1))
        self.release(evaluation.id)

    def append(self, evaluation_id: str, items: Sequence[Item]) -> None:
        """Add finished items, durably."""
        with (self._folder(evaluation_id) / "items.jsonl").open("ab") as file:
            file.write(b"".join(item.model_dump_json().encode() + b"\n" for item in items))
            file.flush()
            os.fsync(file.fileno())

    def load(self, evaluation_id: str) -> Evaluation:
        """The evaluation as it was left: ended, or as it was ordered.

        Raises:
            EvaluationMissing: no such evaluation.
        """
        folder = self._folder(evaluation_id)
        for name in ("result.json", "order.json"):
            try:
                return Evaluation.model_validate_json((folder / name).read_bytes())
            except FileNotFoundError:
                continue
        raise EvaluationMissing(f"no evaluation {evaluation_id}")

    def repaired(self, evaluation_id: str) -> list[Item]:
        """Its finished items, in order, once a torn last line has been cut off."""
        path = self._folder(evaluation_id) / "items.jsonl"
        if not path.exists():
            return []
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(path, len(whole))
        return [Item.model_validate_json(line) for line in whole.splitlines()]

    def items(self, evaluation_id: str) -> list[Item]:
        """Its finished items, in order; changes nothing."""
        path = self._folder(evaluation_id) / "items.jsonl"
        data = path.read_bytes() if path.exists() else b""
        return [Item.model_validate_json(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]

    def ids(self) -> list[str]:
        """Every evaluation there is."""
        if not self.root.exists():
            return []
        folders = [entry.name for entry in self.root.iterdir() if EVALUATION_ID.fullmatch(entry.name)]
        return sorted(name for name in folders if (self.root / name / "order.json").exists())

    def _folder(self, evaluation_id: str) -> Path:
        if not EVALUATION_ID.fullmatch(evaluation_id):
            raise EvaluationMissing(f"no evaluation {evaluation_id[:80]!r}; an id looks like eval-0123456789abcdef")
        return self.root / evaluation_id


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
