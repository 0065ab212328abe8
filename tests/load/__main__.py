"""`make loadtest`: a real service of a nano model under ten times the load that it admits.

It is asked first by as many clients as it admits, then by ten times as many, for the same time. Told are latencies of what was
accepted and of what was refused, what else was answered, and the memory of the service's processes before and after.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from cluster.config import EngineConfig
from services import app
from services.client import Client
from services.config import LimitsConfig, ServiceConfig
from services.evaluate_run import free_port
from tests.benchmarks.__main__ import machine
from trainers.checkpoints import CheckpointInfo, Checkpoints

BASE = Path(__file__).parents[2] / "deploy" / "models" / "nano-gp-base"
FACTOR = 10
PERCENTILES = ("50%", "99%")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--admitted", type=int, default=8, help="requests answered at once")
    parser.add_argument("--seconds", type=int, default=30, help="of each phase")
    parser.add_argument("--json", type=Path, default=Path("runs/loadtest.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="viter-load-") as folder:
        store = Path(folder) / "store"
        model = _commit(store)
        config = ServiceConfig(
            store=str(store),
            port=free_port(),
            engine=EngineConfig(dtype="float32", kv_cache_gib=0.5, max_model_len=512),
            limits=LimitsConfig(requests=arguments.admitted, token_share=1.0),
        )
        try:
            started = app.start(config)
            assert started.token is not None
            _wait_until_ready(started.url, started.token)
            phases = _phases(started.url, started.token, model, arguments.admitted, arguments.seconds, Path(folder))
        finally:
            app.stop()
    for phase in phases:
        print(_told(phase), flush=True)
    accepted = [phase["accepted"]["99%"] for phase in phases]
    refused = phases[-1].get("refused", {})
    found = {
        "machine": machine(),
        "phases": phases,
        "accepted_p99_ratio": accepted[-1] / accepted[0],
        "faults": sum(
            rows["count"] for phase in phases for name, rows in phase.items() if str(name).startswith("status 5")
        ),
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=1))
    print(
        f"at {FACTOR} times the admitted load: {found['faults']} answers of 5xx, p99 of what was accepted "
        f"{found['accepted_p99_ratio']:.2f} times that at the admitted load, refusals in {refused.get('99%', 0)} ms (p99), "
        f"memory {phases[-1]['memory_mib'] - phases[0]['memory_mib']:+.0f} MiB; written to {arguments.json}"
    )


def _commit(store: Path) -> str:
    import shutil

    info = CheckpointInfo(parents=(), metrics={}, compute={}, config={}, world_size=1)
    checkpoints = Checkpoints(store, "nano")
    return checkpoints.commit(1, lambda staged: shutil.copytree(BASE, staged / "model"), info).name


def _wait_until_ready(url: str, token: str) -> None:
    with Client(url, token) as client:
        while not client.is_ready():
            time.sleep(0.5)


def _phases(url: str, token: str, model: str, admitted: int, seconds: int, folder: Path) -> list[dict[str, Any]]:
    _locust(url, token, model, admitted, 5, folder)  # warms up every path
    return [
        {"clients": clients, **_locust(url, token, model, clients, seconds, folder), "memory_mib": _memory_mib()}
        for clients in (admitted, FACTOR * admitted)
    ]


def _locust(url: str, token: str, model: str, clients: int, seconds: int, folder: Path) -> dict[str, Any]:
    """Latencies in ms by outcome: accepted, refused, or another status."""
    prefix = folder / f"locust-{clients}-{seconds}"
    command = [
        sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py")), "--headless", "--host", url,
        "-u", str(clients), "-r", str(clients), "-t", f"{seconds}s", "--csv", str(prefix), "--only-summary",
        "--exit-code-on-error", "0",
    ]  # fmt: skip
    environment = {**os.environ, "VITER_TOKEN": token, "VITER_MODEL": model}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode:
        raise SystemExit(f"locust ended with {done.returncode}: {done.stderr[-500:]}")
    with Path(f"{prefix}_stats.csv").open() as file:
        return {
            row["Name"]: {"count": int(row["Request Count"]), **{p: float(row[p]) for p in PERCENTILES}}
            for row in csv.DictReader(file)
            if row["Name"] != "Aggregated"
        }


def _memory_mib() -> float:
    """Resident memory of everything that this process started."""
    return sum(child.memory_info().rss for child in psutil.Process().children(recursive=True)) / 2**20


def _told(phase: dict[str, Any]) -> str:
    outcomes = [
        f"{name}: {rows['count']} (p50 {rows['50%']:.0f} ms, p99 {rows['99%']:.0f} ms)"
        for name, rows in phase.items()
        if isinstance(rows, dict)
    ]
    return f"{phase['clients']:>4} clients  {'; '.join(outcomes)}; {phase['memory_mib']:.0f} MiB"


if __name__ == "__main__":
    main()
