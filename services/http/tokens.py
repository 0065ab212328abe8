"""Who may do what: bearer tokens, kept as hashes in one file that a running service watches.

    read       lists, reads, samples, plays and judges: nothing of it stays
    evaluate   also starts and cancels evaluations
    train      also starts and stops runs, and moves aliases

Each scope holds those before it. Whatever is wrong with the file, it opens nothing: a damaged or vanished one locks
everybody out until it is mended, and the log says why.
"""

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, TypeAdapter, ValidationError

from envs.base import Config, ConfigError, DataError

Scope = Literal["read", "evaluate", "train"]
SCOPES: tuple[Scope, ...] = ("read", "evaluate", "train")
READING_POSTS = ("/v1/chat/", "/v1/completions", "/v1/episodes", "/v1/environments", "/v1/verify")
"""Where a POST leaves nothing behind: it samples, plays, draws or judges."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
TOKENS_FILE, TOKEN_FILE = "tokens.json", "token"
LOOK_S = 1.0  # a created or revoked token counts after this long
DAY_S = 86400.0

logger = logging.getLogger("viter.tokens")


class TokenRecord(Config):
    """A token as it is kept: its hash. A token is 256 random bits, so one round of sha256 cannot be searched."""

    name: str = Field(pattern=NAME.pattern, max_length=64)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scope: Scope
    created: float
    expires: float | None = None

    def allows(self, scope: Scope) -> bool:
        """Whether this token's scope holds `scope`."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)

    @property
    def has_expired(self) -> bool:
        return self.expires is not None and self.expires <= time.time()


RECORDS: TypeAdapter[tuple[TokenRecord, ...]] = TypeAdapter(tuple[TokenRecord, ...])


class Tokens:
    """The tokens that open a service: those of one file, read again when it changes."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.monotonic):
        self.path = path
        self._now = now
        self._records: tuple[TokenRecord, ...] = ()
        self._looked = -LOOK_S
        self._seen: tuple[int, ...] | None = None
        self._fault = ""

    @classmethod
    def load(cls, path: Path) -> Self:
        """The tokens of a file, or of the `tokens.json` in a directory.

        Raises:
            DataError: it is missing or damaged, now at the start.
        """
        file = path / TOKENS_FILE if path.is_dir() else path
        read(file)
        return cls(file)

    def find(self, token: str) -> TokenRecord | None:
        """The record of `token`, if it opens the service now."""
        self._look()
        return matching(self._records, token)

    def _look(self) -> None:
        if self._now() - self._looked < LOOK_S:
            return
        self._looked = self._now()
        try:
            state = self.path.stat()
            seen = (state.st_ino, state.st_mtime_ns, state.st_size)
            if seen != self._seen:
                self._records = read(self.path)
            self._seen, fault = seen, ""
        except (OSError, DataError) as error:
            self._records, self._seen = (), None
            fault = error.strerror or "unreadable" if isinstance(error, OSError) else str(error)
        if fault and fault != self._fault:
            logger.error("%s: nobody is let in: %s", self.path, fault)
        self._fault = fault


def read(path: Path) -> tuple[TokenRecord, ...]:
    """The records of a token file.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return RECORDS.validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: no tokens to read ({error.strerror}); `viter serve` makes the first one") from None
    except ValidationError:
        raise DataError(f"{path}: damaged; remove it, and `viter serve` makes a new token") from None


def matching(records: tuple[TokenRecord, ...], token: str) -> TokenRecord | None:
    """The living record of `token`. Compares with every record in constant time."""
    digest = _digest(token)
    matches = [record for record in records if hmac.compare_digest(record.sha256, digest)]
    return next((record for record in matches if not record.has_expired), None)


def needed_scope(method: str, path: str) -> Scope:
    """The scope that a request needs. A route this does not know needs the highest."""
    if method in ("GET", "HEAD") or path.startswith(READING_POSTS):
        return "read"
    return "evaluate" if path.startswith("/v1/evaluations") else "train"


def ensure_token(directory: Path) -> str | None:
    """Make the first token of a service, unless it has one. Returns it then, and only then.

    `tokens.json` keeps its hash for the service; `token` beside it, readable by its owner alone, is for the operator,
    who may move or delete it.

    Raises:
        ConfigError: the directory cannot be written.
    """
    with _writing(directory):
        if (directory / TOKENS_FILE).exists():
            return None
        token, record = _made("operator", "train", None)
        _write_private(directory / TOKEN_FILE, token + "\n")
        _save(directory, (record,))
        return token


def create(directory: Path, name: str, scope: Scope, days: float | None) -> str:
    """Make one more token and return it: it is told this once and kept as a hash.

    Raises:
        ConfigError: the name is taken or has another form, or the directory cannot be written.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"token name {name[:80]!r}: up to 64 letters, digits, dots, dashes and underscores")
    with _writing(directory):
        records = read(directory / TOKENS_FILE) if (directory / TOKENS_FILE).exists() else ()
        if any(record.name == name for record in records):
            raise ConfigError(f"token {name}: there is one of this name; take another, or first `viter token revoke`")
        token, record = _made(name, scope, days)
        _save(directory, (*records, record))
        return token


def revoke(directory: Path, name: str) -> None:
    """Take a token back. A running service follows within a second or two; a stream that has begun goes on.

    Raises:
        ConfigError: there is none of this name.
    """
    with _writing(directory):
        records = read(directory / TOKENS_FILE)
        left = tuple(record for record in records if record.name != name)
        if len(left) == len(records):
            known = ", ".join(record.name for record in records) or "none"
            raise ConfigError(f"token {name[:80]}: there is none of this name; known are: {known}")
        _save(directory, left)


def _made(name: str, scope: Scope, days: float | None) -> tuple[str, TokenRecord]:
    token, now = f"viter-{secrets.token_urlsafe(32)}", time.time()
    expires = None if days is None else now + days * DAY_S
    return token, TokenRecord(name=name, sha256=_digest(token), scope=scope, created=now, expires=expires)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _save(directory: Path, records: tuple[TokenRecord, ...]) -> None:
    told = [record.model_dump() for record in records]
    _write_private(directory / TOKENS_FILE, json.dumps(told, indent=1) + "\n")


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """One writer at a time. What the disk refuses is one sentence."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / ".tokens.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise ConfigError(f"{directory}: cannot keep the service's tokens here: {error.strerror}") from None


def _write_private(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(handle)
    os.replace(partial, path)
