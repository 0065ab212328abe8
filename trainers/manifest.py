"""What a checkpoint says of itself: manifest.json and its digest. Pure: bytes in, values out."""

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from envs.base import DataError
from trainers.storage import FileRecord

FORMAT = 1
MODEL, LEARNER = "model/", "learner/"
RUN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}", re.ASCII)  # a run of 63 characters and its stage
ALIAS_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)


class CheckpointMissing(DataError):
    """No such run, step or alias in the store."""


class CheckpointDamaged(DataError):
    """A file of a checkpoint is not what its manifest says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """What a reader wants to know of a checkpoint without loading it."""

    parents: tuple[str, ...] = ()  # digests of the checkpoints its weights came from, oldest first
    metrics: dict[str, float] = field(default_factory=dict)  # of the step that made it; NaN where not finite
    compute: dict[str, Any] = field(default_factory=dict)  # `Compute.to_dict()`, ancestors included
    config: dict[str, Any] = field(default_factory=dict)  # the resolved run
    world_size: int = 1  # learner ranks that wrote the state


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The list of a checkpoint's files, and its info. Holds a sha256 of itself."""

    run: str
    step: int
    created: float  # seconds since 1970
    info: CheckpointInfo
    files: dict[str, FileRecord]  # by path: model/…, learner/…
    digest: str = field(init=False)
    """See `digest_of`. Every request to a service asks for it several times."""

    def __post_init__(self) -> None:
        sha256s = {name.removeprefix(MODEL): record.sha256 for name, record in self.model_files.items()}
        object.__setattr__(self, "digest", digest_of(sha256s))

    @property
    def model_files(self) -> dict[str, FileRecord]:
        return {name: record for name, record in self.files.items() if name.startswith(MODEL)}

    @property
    def size_bytes(self) -> int:
        return sum(record.size for record in self.files.values())

    def to_json(self) -> bytes:
        """The bytes of manifest.json."""
        info = self.info
        body = {
            "format": FORMAT,
            "run": self.run,
            "step": self.step,
            "digest": self.digest,
            "created": self.created,
            "parents": list(info.parents),
            "metrics": {name: value if math.isfinite(value) else None for name, value in info.metrics.items()},
            "compute": info.compute,
            "config": info.config,
            "world_size": info.world_size,
            "files": {name: {"size": r.size, "sha256": r.sha256} for name, r in sorted(self.files.items())},
        }
        return json.dumps({**body, "sha256": _own_sha256(body)}, indent=1, sort_keys=True, allow_nan=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Raises ValueError with the reason: not JSON, another format, or changed since it was written."""
        body = json.loads(data)
        if not isinstance(body, dict) or body.pop("sha256", None) != _own_sha256(body):
            raise ValueError("it does not match its own sha256")
        if body["format"] != FORMAT:
            raise ValueError(f"its format is {body['format']}, this version reads {FORMAT}")
        if not _is_well_typed(body):
            raise ValueError("a value in it is of another type than this version writes")
        info = CheckpointInfo(
            parents=tuple(body["parents"]),
            metrics={name: math.nan if value is None else value for name, value in body["metrics"].items()},
            compute=body["compute"],
            config=body["config"],
            world_size=body["world_size"],
        )
        files = {_checked(name): FileRecord(entry["size"], entry["sha256"]) for name, entry in body["files"].items()}
        return cls(run=body["run"], step=body["step"], created=body["created"], info=info, files=files)


def digest_of(sha256s: dict[str, str]) -> str:
    """sha256 over the sorted names and sha256 of a model's files: equal models have equal digests, in any run."""
    lines = [f"{name}\0{sha256}\n" for name, sha256 in sorted(sha256s.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def checked_name(name: str, pattern: re.Pattern[str], kind: str) -> str:
    """`name`, when it can be one path component and nothing else.

    Raises:
        DataError: any other name; what a network sends ends here, before any file is touched.
    """
    if not pattern.fullmatch(name) or ".." in name:
        seen = name if len(name) <= 60 else name[:57] + "..."
        raise DataError(f"{seen!r} is no {kind} name; use lower-case letters, digits and . _ - (at most 80)")
    return name


def _checked(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not name.startswith((MODEL, LEARNER)) or ".." in parts or "\\" in name or str(PurePosixPath(name)) != name:
        raise ValueError(f"it lists {name!r}, which is not below model/ or learner/")
    return name


def _is_well_typed(body: dict[str, Any]) -> bool:
    """Whether readers may rely on the types of `Manifest`; KeyError where something is missing."""
    numbers = [body["created"], *body["compute"].values(), *(v for v in body["metrics"].values() if v is not None)]
    sizes = [entry["size"] for entry in body["files"].values()]
    words = [body["run"], *body["parents"], *(entry["sha256"] for entry in body["files"].values())]
    return (
        isinstance(body["config"], dict)
        and all(isinstance(number, int | float) for number in numbers)
        and all(isinstance(size, int) for size in [*sizes, body["step"], body["world_size"]])
        and all(isinstance(word, str) for word in words)
    )


def _own_sha256(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
