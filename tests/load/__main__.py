"""`make loadtest`: a real service of a nano model under ten times the load that it admits.

Unloaded, it is asked by one client; then by as many as it admits, then by ten times as many. Told of each phase are latencies of
what was accepted, also as ratios to those of the unloaded service, and of what was refused; what else was answered; memory;
and who used how many cores: on a small machine the clients take theirs from the service.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.config import EngineConfig
from services import app
from services.client import Client
from services.config import LimitsConfig, ServiceConfig
from services.port import free_ports
from tests.benchmarks.__main__ import machine
from trainers.checkpoints import CheckpointInfo, Checkpoints

BASE = Path(__file__).parents[2] / "deploy" / "models" / "nano-gp-base"
FACTOR = 10
PER_CORE = 2  # one request keeps half a core busy, more than two wait for one: at four, answers take 2.5 times as long
ARRIVAL_S = 3  # clients come one by one and count once all are there: starting them costs their process seconds
PERCENTILES = ("50%", "99%")
PROCESSES = {"ProxyActor": "proxy", "viter:gateway": "gateway", "viter:replica": "replica", "EngineCore": "engine"}

Answers = dict[str, dict[str, float]]
Phase = dict[str, Any]


@dataclass(frozen=True)
class Asking:
    """Clients of one service, in a process of their own."""

    url: str
    token: str
    model: str
    folder: Path

    def during(self, clients: int, seconds: int) -> Answers:
        """Latencies in ms by outcome: accepted, refused, or another status."""
        prefix = self.folder / f"locust-{clients}-{seconds}"
        command = [
            sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py")), "--headless",
            "--host", self.url, "-u", str(clients), "-r", str(clients / ARRIVAL_S), "-t", f"{seconds + ARRIVAL_S}s",
            "--csv", str(prefix), "--only-summary", "--reset-stats", "--exit-code-on-error", "0",
        ]  # fmt: skip
        environment = {**os.environ, "VITER_TOKEN": self.token, "VITER_MODEL": self.model}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds + ARRIVAL_S + 60
        )
        if done.returncode:
            raise SystemExit(f"locust ended with {done.returncode}: {done.stderr[-500:]}")
        with Path(f"{prefix}_stats.csv").open() as file:
            return {
                row["Name"]: {"count": int(row["Request Count"]), **{p: float(row[p]) for p in PERCENTILES}}
                for row in csv.DictReader(file)
                if row["Name"] != "Aggregated"
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    at_once = PER_CORE * (os.cpu_count() or 1)
    parser.add_argument("--admitted", type=int, default=at_once, help="requests answered at once")
    parser.add_argument("--seconds", type=int, default=30, help="of each phase")
    parser.add_argument("--json", type=Path, default=Path("runs/loadtest.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="viter-load-") as folder:
        phases = _measured(Path(folder), arguments.admitted, arguments.seconds)
    print(*map(_told, phases), sep="\n")
    found = {"machine": machine(), "admitted": arguments.admitted, "phases": phases}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=1))
    print(f"written to {arguments.json}")


def _measured(folder: Path, admitted: int, seconds: int) -> list[Phase]:
    """The phases, each on the same service."""
    store = folder / "store"
    model = _commit(store)
    config = ServiceConfig(
        store=str(store),
        port=free_ports(1)[0],
        engine=EngineConfig(dtype="float32", kv_cache_gib=0.5, max_model_len=512),
        limits=LimitsConfig(requests=admitted, token_share=1.0),
    )
    try:
        started = app.start(config)
        assert started.token is not None
        _wait_until_ready(started.url, started.token)
        ask = Asking(started.url, started.token, model, folder)
        ask.during(admitted, 5)  # warms up every path
        crowds = {"unloaded": 1, "full": admitted, f"{FACTOR} times": FACTOR * admitted}
        phases = [_phase(name, ask, clients, seconds) for name, clients in crowds.items()]
    finally:
        app.stop()
    return [{**phase, "ratios": _ratios(phase, phases[0])} for phase in phases]


def _commit(store: Path) -> str:
    import shutil

    info = CheckpointInfo(parents=(), metrics={}, compute={}, config={}, world_size=1)
    checkpoints = Checkpoints(store, "nano")
    return checkpoints.commit(1, lambda staged: shutil.copytree(BASE, staged / "model"), info).name


def _wait_until_ready(url: str, token: str) -> None:
    with Client(url, token) as client:
        while not client.is_ready():
            time.sleep(0.5)


def _phase(name: str, ask: Asking, clients: int, seconds: int) -> Phase:
    began, service, generator = time.monotonic(), _cpu_seconds(), resource.getrusage(resource.RUSAGE_CHILDREN)
    answers = ask.during(clients, seconds)
    ended, elapsed_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    used = {who: total - service.get(who, 0.0) for who, total in _cpu_seconds().items()}
    used["clients"] = ended.ru_utime + ended.ru_stime - generator.ru_utime - generator.ru_stime
    return {
        "phase": name,
        "clients": clients,
        "answers": answers,
        "faults": sum(rows["count"] for outcome, rows in answers.items() if outcome.startswith("status 5")),
        "memory_mib": _memory_mib(),
        "cores": {who: total / elapsed_s for who, total in sorted(used.items(), key=lambda pair: -pair[1])},
    }


def _ratios(phase: Phase, unloaded: Phase) -> dict[str, float]:
    """Of what was accepted, to the unloaded service."""
    now, then = (each["answers"]["accepted"] for each in (phase, unloaded))
    return {p: now[p] / then[p] for p in PERCENTILES}


def _cpu_seconds() -> dict[str, float]:
    """CPU seconds of this service's processes until now, by what they are."""
    seconds: Counter[str] = Counter()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            title, times = " ".join(child.cmdline()), child.cpu_times()
            who = next((who for mark, who in PROCESSES.items() if mark in title), "the rest of Ray")
            seconds[who] += times.user + times.system
    return dict(seconds)


def _memory_mib() -> float:
    """Resident memory of everything that this process started."""
    return sum(child.memory_info().rss for child in psutil.Process().children(recursive=True)) / 2**20


def _told(phase: Phase) -> str:
    outcomes = [
        f"{outcome}: {rows['count']} (p50 {rows['50%']:.0f} ms, p99 {rows['99%']:.0f} ms)"
        for outcome, rows in phase["answers"].items()
    ]
    ratios = ", ".join(f"p{p[:2]} {ratio:.2f}" for p, ratio in phase["ratios"].items())
    cores = ", ".join(f"{who} {used:.2f}" for who, used in phase["cores"].items())
    return (
        f"{phase['phase']}, {phase['clients']} clients: {'; '.join(outcomes)}; accepted ÷ unloaded: {ratios}; "
        f"5xx: {phase['faults']}; {phase['memory_mib']:.0f} MiB; cores: {cores}"
    )


if __name__ == "__main__":
    main()
