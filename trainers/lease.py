"""A fenced lease on a path of a store: of all processes on all machines, one at a time does the work.

    <path>/000007            a local directory: created exclusively, so one process alone has each number
    <path>/000007-5f0c…      an object store: several may claim a number; after a pause the first by name has it

A claim is a small JSON file that its holder writes again every third of `ttl_s`. The claim with the highest number is
the one that counts, and numbers only grow: they are the fencing tokens. Whoever takes over creates a higher number, and
from then on the earlier holder's `check` fails, which it calls right before each commit.

A holder counts as gone when it released its claim, when it ran on this machine and its process is no more, or when its
claim was not written again while the taker watched for `ttl_s`. No clocks of two machines are compared.

What an object store must promise: a finished write is in every later listing, which S3, GCS and Azure do. There is no
conditional write in `pyarrow.fs`, so a claim is listed, written and, after `settle_s`, listed again. A claim that took
longer than half of `settle_s` to write is withdrawn: two that both stand have therefore seen each other.
"""

import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from envs.base import DataError, ViterError
from trainers.claim import Claim, claim_bytes, claim_of, start_of, this_place
from trainers.storage import LocalStore, Store, open_store

TTL_S = 30.0
SETTLE_S = 2.0  # on object stores: several times what one small write takes
RENEWALS = 3  # within a ttl, so that two may fail
ATTEMPTS = 5
CLAIM_NAME = re.compile(r"\d{6,}(-[0-9a-f]{32})?", re.ASCII)


class LeaseHeld(ViterError):
    """Another process holds the lease."""


class LeaseLost(ViterError):
    """Another process took the lease over; what this one still writes would be written twice."""


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to commit, checked from any process of the holder's. Travels by pickle."""

    store: Store
    path: str
    name: str  # of the claim

    def check(self) -> None:
        """Raises LeaseLost when a later claim exists, or this one was deleted."""
        if self.name not in _names(self.store, self.path):
            claims = map(claim_of, _standing(self.store, self.path).values())
            by = " and ".join(str(claim or "an unknown holder") for claim in claims)
            raise LeaseLost(
                f"{self.store.uri}/{self.path}: claim {self.name[:6]} was "
                f"{f'taken over by {by}' if by else 'deleted'}; nothing more is written under it"
            )


class Lease:
    """The right to work, held until `release`. Made by `take`."""

    def __init__(self, fence: Fence, claim: Claim):
        self.fence = fence
        self.lost: LeaseLost | None = None
        """Set by the thread of `kept` once another process took over."""
        self._claim = claim
        self._writing = threading.Lock()  # a renewal on its way must not undo a release

    @classmethod
    def take(
        cls, store: str | Path | Store, path: str, *, holder: str, ttl_s: float = TTL_S, settle_s: float = SETTLE_S
    ) -> Self:
        """The lease on `path`, which is a folder of its own. Returns at once where it is free.

        A holder elsewhere is watched until it shows life, for `ttl_s` at most; its silence is its end.

        Args:
            holder: what this process is, for those who are refused.
            ttl_s: how long this process may be silent before others take over.
            settle_s: see the module.
        Raises:
            LeaseHeld: names the holder, its host and process, and since when.
        """
        opened = open_store(store)
        now = time.time()
        claim = Claim(
            holder=holder, host=socket.gethostname(), pid=os.getpid(), place=this_place(), started=start_of(os.getpid()),
            since=now, renewed=now, ttl_s=ttl_s,
        )  # fmt: skip
        for _ in range(ATTEMPTS):
            before = _vacant(opened, path, ttl_s)
            number = 1 + max(map(_number, before), default=0)
            name = (
                _claim_exclusively(opened, path, number, claim)
                if isinstance(opened, LocalStore)
                else _claim_and_settle(opened, path, number, claim, before, settle_s)
            )
            if name is not None:
                for earlier in _all(opened, path):
                    if _number(earlier) < number:
                        opened.remove(f"{path}/{earlier}")
                return cls(Fence(opened, path, name), claim)
        raise LeaseHeld(
            f"{opened.uri}/{path}: others claimed the lease at the same time, or the store took more than "
            f"{settle_s / 2:g} s for a small write, {ATTEMPTS} times; try again"
        )

    @property
    def token(self) -> int:
        """The fencing token: higher than that of every earlier holder."""
        return _number(self.fence.name)

    def check(self) -> None:
        """Raises LeaseLost when another process took over. To be called right before each commit."""
        self.fence.check()

    def renew(self) -> None:
        """Show life. Raises LeaseLost as `check`."""
        with self._writing:
            self.check()
            self._claim = replace(self._claim, beat=self._claim.beat + 1, renewed=time.time())
            self._write()

    def release(self) -> None:
        """Let the next one take it at once. A lease that was lost stays with its holder."""
        with self._writing, suppress(LeaseLost):
            self.check()
            self._claim = replace(self._claim, is_released=True)
            self._write()

    @contextmanager
    def kept(self) -> Iterator[Self]:
        """Renewed by a thread of its own, which sets `lost` and ends when it cannot be; released on the way out."""
        is_over = threading.Event()
        thread = threading.Thread(target=self._keep, args=(is_over,), name=f"lease {self.fence.path}", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            is_over.set()
            with suppress(OSError):  # the store is away: the lease ends by its silence
                self.release()

    def _keep(self, is_over: threading.Event) -> None:
        while not is_over.wait(self._claim.ttl_s / RENEWALS):
            try:
                self.renew()
            except LeaseLost as lost:
                self.lost = lost
                return
            except (OSError, DataError):  # the store is away or full; as long as nobody takes over, nothing is lost
                continue

    def _write(self) -> None:
        self.fence.store.put(f"{self.fence.path}/{self.fence.name}", claim_bytes(self._claim))


def holder(store: str | Path | Store, path: str) -> Claim | None:
    """The claim that counts, if its holder seems alive: `is_fresh` for those elsewhere goes by this machine's clock."""
    claims = [claim_of(data) for data in _standing(open_store(store), path).values()]
    return next((claim for claim in claims if claim is not None and claim.is_fresh), None)


def _vacant(store: Store, path: str, ttl_s: float) -> dict[str, bytes]:
    """The claims of the highest number, once none of their holders is there any more. Raises LeaseHeld."""
    seen = _standing(store, path)
    claims = [claim_of(data) for data in seen.values()]
    for claim in claims:
        if claim is not None and claim.place == this_place() and claim.is_fresh:
            raise _held(store, path, claim)
    waiting = [claim for claim in claims if claim is None or not claim.is_gone]
    silence_s = max([claim.ttl_s if claim else ttl_s for claim in waiting], default=0.0)
    end = time.monotonic() + silence_s
    while time.monotonic() < end:
        time.sleep(min(1.0, silence_s / 10))
        now = _standing(store, path)
        living = [claim for name, data in now.items() if data != seen.get(name) and (claim := claim_of(data))]
        if living and not all(claim.is_gone for claim in living):
            raise _held(store, path, living[0])
        if living or now.keys() != seen.keys():
            return _vacant(store, path, ttl_s)
    return seen


def _held(store: Store, path: str, claim: Claim) -> LeaseHeld:
    return LeaseHeld(f"{store.uri}/{path}: held by {claim}; end that process, or wait until it has ended")


def _claim_exclusively(store: LocalStore, path: str, number: int, claim: Claim) -> str | None:
    name = f"{number:06d}"
    if not store.create(f"{path}/{name}", claim_bytes(claim)):
        return None
    if name in _names(store, path):
        return name
    store.remove(f"{path}/{name}")  # this process slept while others took and left higher numbers
    return None


def _claim_and_settle(
    store: Store, path: str, number: int, claim: Claim, before: dict[str, bytes], settle_s: float
) -> str | None:
    name, began = f"{number:06d}-{uuid.uuid4().hex}", time.monotonic()
    if _standing(store, path) != before:
        return None
    store.put(f"{path}/{name}", claim_bytes(claim))
    if time.monotonic() - began <= settle_s / 2:
        time.sleep(settle_s)
        if name == min(_names(store, path), default=""):
            return name
    store.remove(f"{path}/{name}")
    return None


def _standing(store: Store, path: str) -> dict[str, bytes]:
    """The claims of the highest number and their bytes: any of them may have a living holder."""
    while True:
        try:
            return {name: store.read(f"{path}/{name}") for name in _names(store, path)}
        except FileNotFoundError:  # withdrawn, or swept by a later holder, since it was listed
            continue


def _names(store: Store, path: str) -> list[str]:
    """Of the claims of the highest number, sorted."""
    names = _all(store, path)
    highest = max(map(_number, names), default=0)
    return sorted(name for name in names if _number(name) == highest)


def _all(store: Store, path: str) -> list[str]:
    return [name for name in store.files(path) if CLAIM_NAME.fullmatch(name)]


def _number(name: str) -> int:
    return int(name.partition("-")[0])
