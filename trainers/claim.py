"""What the holder of a lease says of itself, and whether it still lives as far as this machine can tell."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a claim says of its holder."""

    holder: str  # what the process is, e.g. `viter train`
    host: str
    pid: int
    place: str  # where pids and this clock mean the same: one boot of one machine, one pid namespace
    started: str  # of the process, so that a reused pid is not taken for it
    since: float  # seconds since 1970, as is `renewed`
    renewed: float
    ttl_s: float
    beat: int = 0  # grows with each renewal
    is_released: bool = False

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        return f"{self.holder} on {self.host} (process {self.pid}, since {since})"

    @property
    def is_gone(self) -> bool:
        """Released, or its process has ended. False where this machine cannot know."""
        return self.is_released or (self.place == this_place() != "" and start_of(self.pid) != self.started)

    @property
    def is_fresh(self) -> bool:
        """Whether it was renewed in time, by the clock of this machine: exact for a holder here, a hint for others."""
        return not self.is_gone and abs(time.time() - self.renewed) < self.ttl_s


def claim_bytes(claim: Claim) -> bytes:
    return json.dumps(asdict(claim)).encode()


def claim_of(data: bytes) -> Claim | None:
    """None for a claim that is being written, or is damaged."""
    try:
        return Claim(**json.loads(data))
    except (ValueError, TypeError):
        return None


def this_place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux: only silence tells
        return ""


def start_of(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty where there is none, or a dead one that nobody has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
