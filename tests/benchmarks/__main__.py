"""`make bench [ONLY=envs,engine]`: run every benchmark, print one table, write runs/bench.json."""

import argparse
import importlib
import json
import logging
import os
import platform
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

MODULES = ("envs", "learner", "engine", "rollout", "pipeline", "services")


def machine() -> dict[str, Any]:
    cpu = subprocess.run(["sh", "-c", "grep -m1 'model name' /proc/cpuinfo"], capture_output=True, text=True).stdout
    return {
        "cores": os.cpu_count(),
        "cpu": cpu.partition(":")[2].strip(),
        "platform": platform.platform(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(MODULES), help="comma-separated: " + ", ".join(MODULES))
    parser.add_argument("--json", type=Path, default=Path("runs/bench.json"))
    arguments = parser.parse_args()

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    console = Console()
    rows: list[dict[str, Any]] = []
    for name in arguments.only.split(","):
        console.print(f"measuring {name} ...", style="dim")
        measured = importlib.import_module(f"tests.benchmarks.{name}").rows()
        rows += measured
        for row in measured:
            console.print(f"  {row['name']}: {_number(row['value'])} {row['unit']}  ({row['target']})", markup=False)
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))  # what a stop leaves
    table = Table("what", "measured", "unit", "at least / at most", "note")
    for row in rows:
        table.add_row(row["name"], _number(row["value"]), row["unit"], row["target"], row["note"])
    console.print(table)
    console.print(f"written to {arguments.json}")


def _number(value: float) -> str:
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
