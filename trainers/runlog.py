"""What a run leaves for people: numbers, events and episodes, in files that common tools read.

    metrics.jsonl       one object per line: step, stage, time (seconds since 1970) and numbers
    events.jsonl        one object per line: time, kind and what it says; never rewound, it is the history
    config.json         the resolved run          environment.json   versions, machine, revision
    tensorboard/        the same numbers          episodes/step-000001.parquet   one row per episode
    quarantine/step-000001-index-000005.json      an episode without a verdict, to be replayed; never rewound either

Lines are appended with one write each, so several processes may log events. A resumed run calls `rewind`, which drops
metrics and episodes after the checkpoint it goes on from.
"""

import errno
import json
import math
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envs.base import DataError
from trainers import environment
from trainers.disk import free_bytes, is_disk_full, write_atomically
from trainers.episode import Episode
from trainers.storage import LocalStore, Store, StoreFull, open_store

RESERVED = {"step", "stage", "time", "not_finite"}


class RunLog:
    """Writes the log of one run into a local directory. With a `mirror`, `sync` copies it into a remote store."""

    def __init__(self, directory: Path, *, mirror: Store | None = None, mirror_path: str = "") -> None:
        self.directory = directory
        self._mirror, self._mirror_path = mirror, mirror_path
        self._mirrored: dict[str, tuple[int, int]] = {}  # size and modification time of what was copied
        self._board: Any = None
        self._newest_step: int | None = None  # of a metrics row

    @classmethod
    def of(cls, store: str | Path | Store, run: str, *, staging: Path) -> "RunLog":
        """The log of `run`. For a remote store it is written in `staging`, where an earlier log is fetched first."""
        opened = open_store(store)
        if isinstance(opened, LocalStore):
            return cls(opened.at(run))
        log = cls(staging / run, mirror=opened, mirror_path=log_folder(opened, run))
        for name in opened.files(log._mirror_path):
            target = log.directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            opened.fetch(f"{log._mirror_path}/{name}", target)
            log._mirrored[name] = _stamp(target)
        return log

    def config(self, resolved: Mapping[str, Any]) -> None:
        self._replace("config.json", json.dumps(resolved, indent=1, default=str))

    def environment(self, **more: Any) -> None:
        """Versions, machine, command and revision of this process, and `more` that only the caller knows (devices)."""
        self._replace("environment.json", json.dumps({**environment.describe(), **more}, indent=1, default=str))

    def metrics(self, step: int, numbers: Mapping[str, float], *, stage: str) -> None:
        """One row. A number that is not finite is written as null, and its name listed under `not_finite`.

        A step that was logged before is being done again, after a restart: its rows and those after it go first.
        """
        values = {name: float(value) for name, value in numbers.items()}
        odd = sorted(name for name, value in values.items() if not math.isfinite(value))
        assert not values.keys() & RESERVED, f"a metric cannot be called {values.keys() & RESERVED}"
        if self._newest_step is not None and step <= self._newest_step:
            self._forget_metrics_after(step - 1)
        head = {"step": step, "stage": stage, "time": round(time.time(), 3)}
        self._append("metrics.jsonl", {**head, **values, **({"not_finite": odd} if odd else {})})
        for name in values.keys() - set(odd):
            self._tensorboard().add_scalar(f"{stage}/{name}", values[name], step)
        self._newest_step = step

    def event(self, kind: str, **fields: Any) -> None:
        """Something that happened, once: a worker replaced, a checkpoint committed, a disk full."""
        self._append("events.jsonl", {"time": round(time.time(), 3), "kind": kind, **fields})

    def episodes(self, step: int, episodes: Sequence[Episode]) -> None:
        """The episodes of a step, whole, with columns for people beside them: what was answered and what was heard."""
        import pyarrow as pa
        from pyarrow import parquet

        from trainers.episode_arrow import to_batch

        table = pa.Table.from_batches([to_batch(episodes)])
        for name, column in _for_people(episodes).items():
            table = table.append_column(name, column)
        target = self.directory / "episodes" / f"step-{step:06d}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(target, lambda partial: parquet.write_table(table, partial, compression="zstd"))
        except OSError as error:
            raise self._explained(error, target, table.nbytes) from error

    def quarantined(self, step: int, index: int, artefact: str) -> None:
        """What it takes to replay an episode that was quarantined, as JSON. One that is played anew takes its place."""
        self._replace(f"quarantine/step-{step:06d}-index-{index:06d}.json", artefact)

    def rewind(self, step: int) -> None:
        """Forget metrics and episodes after `step`, and a last line that a kill cut off."""
        events = read_events(self.directory)
        if events:
            self._replace("events.jsonl", _lines(events))
        for later in (s for s in episode_steps(self.directory) if s > step):
            _episode_file(self.directory, later).unlink()
        self._forget_metrics_after(step)

    def _forget_metrics_after(self, step: int) -> None:
        rows = read_metrics(self.directory)
        kept = [row for row in rows if row["step"] <= step]
        if rows:
            self._replace("metrics.jsonl", _lines(kept))
        self._close_board()
        self._newest_step = step
        if len(kept) < len(rows):
            self.event("rewound", step=step, dropped_rows=len(rows) - len(kept))

    def sync(self) -> None:
        """Make the remote store's copy, if there is one, equal to the directory: send what changed, drop what went."""
        if self._board is not None:
            self._board.flush()
        if self._mirror is None:
            return
        paths = {p.relative_to(self.directory).as_posix(): p for p in self.directory.rglob("*") if p.is_file()}
        for name, path in sorted(paths.items()):
            if self._mirrored.get(name) != (stamp := _stamp(path)):
                self._mirror.put(f"{self._mirror_path}/{name}", path.read_bytes())
                self._mirrored[name] = stamp
        for name in self._mirrored.keys() - paths.keys():
            self._mirror.remove(f"{self._mirror_path}/{name}")
            del self._mirrored[name]

    def close(self) -> None:
        self.sync()
        self._close_board()

    def _append(self, name: str, row: dict[str, Any]) -> None:
        path, line = self.directory / name, (json.dumps(_finite(row), default=str) + "\n").encode()
        self.directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            written = os.write(handle, line)
            if written < len(line):
                os.ftruncate(handle, os.fstat(handle).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError as error:
            raise self._explained(error, path, len(line)) from error
        finally:
            os.close(handle)

    def _replace(self, name: str, text: str) -> None:
        target = self.directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(target, lambda partial: partial.write_text(text))
        except OSError as error:
            raise self._explained(error, target, len(text)) from error

    def _explained(self, error: OSError, path: Path, needed: int) -> OSError | StoreFull:
        if not is_disk_full(error, self.directory):
            return error
        return StoreFull(
            f"{path}: disk full: the next entry needs {needed} bytes and {free_bytes(self.directory)} are available; "
            "what was logged is intact: free some space and run the same command again"
        )

    def _tensorboard(self) -> Any:
        if self._board is None:
            from tensorboardX import SummaryWriter  # imports torch where that is installed: only on first use

            purge_step = None if self._newest_step is None else self._newest_step + 1
            suffix = f".{uuid.uuid4().hex[:8]}"  # a file of its own, also for a second writer within the same second
            self._board = SummaryWriter(
                str(self.directory / "tensorboard"), purge_step=purge_step, flush_secs=10, filename_suffix=suffix
            )
        return self._board

    def _close_board(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None


def log_folder(store: Store, run: str) -> str:
    """Where the files of a run's log lie in its store."""
    return run if isinstance(store, LocalStore) else f"{run}/log"


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """Rows in the order they were written. None stands for a number that was not finite."""
    return _read_lines(directory / "metrics.jsonl")


def read_events(directory: Path) -> list[dict[str, Any]]:
    return _read_lines(directory / "events.jsonl")


def read_episodes(directory: Path, step: int) -> list[Episode]:
    """The episodes of a step, exactly as they were trained on.

    Raises:
        DataError: nothing was logged for that step, or the file is damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    from trainers.episode_arrow import from_batch

    path = _episode_file(directory, step)
    try:
        table = parquet.ParquetFile(path).read().combine_chunks()
    except FileNotFoundError:
        raise DataError(f"{path}: no episodes were logged; there are those of {episode_steps(directory)}") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {' '.join(str(error).split())[:200]}") from None
    return [episode for batch in table.to_batches() for episode in from_batch(batch)]


def episode_steps(directory: Path) -> list[int]:
    """Steps whose episodes were logged, ascending."""
    return sorted(int(path.stem.removeprefix("step-")) for path in (directory / "episodes").glob("step-*.parquet"))


def _episode_file(directory: Path, step: int) -> Path:
    return directory / "episodes" / f"step-{step:06d}.parquet"


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return parsed_lines(path.read_bytes(), source=str(path))
    except FileNotFoundError:
        return []


def parsed_lines(data: bytes, *, source: str) -> list[dict[str, Any]]:
    """Every whole line. A last one without its end was cut off by a kill and counts as never written."""
    *lines, _ = data.split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise DataError(f"{source}: line {number} is not JSON; remove that line") from None
    return rows


def _for_people(episodes: Sequence[Episode]) -> dict[str, Any]:
    import pyarrow as pa

    def of_turns(field: str) -> list[list[Any]]:
        return [[getattr(turn, field) for turn in episode.turns] for episode in episodes]

    return {
        "success": pa.array([episode.is_success for episode in episodes], pa.bool_()),
        "reward": pa.array([episode.reward for episode in episodes], pa.float64()),
        "answers": pa.array(of_turns("answer"), pa.list_(pa.string())),
        "feedback": pa.array(of_turns("feedback"), pa.list_(pa.string())),
        "statuses": pa.array(of_turns("status"), pa.list_(pa.string())),
    }


def _finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
