"""What a driver notes of its run in the store: what it was asked, when it began, when and how it ended.

    <store>/<run>/run.json

Ray forgets its jobs with the cluster; this stays. A record that says `running` while nobody holds the run's lease is
that of a driver that was cut off.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from cluster.config import RunConfig
from envs.base import DataError
from trainers.lease import Fence, LeaseLost
from trainers.storage import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as its newest driver left it. Times are seconds since 1970."""

    config: dict[str, Any]  # the resolved run
    created: float  # when the first driver began
    started: float  # when this one did
    ended: float | None = None
    status: Literal["running", "finished", "stopped", "failed"] = "running"
    error: str | None = None  # what it failed of, in one sentence


def record_path(name: str) -> str:
    return f"{name}/run.json"


def parsed(data: bytes) -> RunRecord | None:
    """None for a file that is no record."""
    try:
        return RunRecord(**json.loads(data))
    except (ValueError, TypeError):
        return None


def read(store: Store, name: str) -> RunRecord | None:
    """The record of a run; None where it never had a driver, or the file is damaged."""
    try:
        return parsed(store.read(record_path(name)))
    except FileNotFoundError:
        return None


@contextmanager
def noted(store: Store, config: RunConfig, fence: Fence) -> Iterator[None]:
    """Note the beginning of a run and, on the way out, its end. A driver that lost the lease notes nothing more."""
    now, before = time.time(), read(store, config.name)
    record = RunRecord(config=config.model_dump(mode="json"), created=before.created if before else now, started=now)
    _write(store, config.name, record)
    end = replace(record, status="finished")
    try:
        yield
    except KeyboardInterrupt:
        end = replace(record, status="stopped")
        raise
    except BaseException as error:
        words = " ".join(str(getattr(error, "cause", None) or error).split()) or type(error).__name__
        end = replace(record, status="failed", error=words[:500])
        raise
    finally:
        with suppress(LeaseLost, OSError, DataError):  # the store may be what failed
            fence.check()
            _write(store, config.name, replace(end, ended=time.time()))


def _write(store: Store, name: str, record: RunRecord) -> None:
    store.put(record_path(name), json.dumps(asdict(record), indent=1).encode())
