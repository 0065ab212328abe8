"""A drill on a service: its head is killed and comes back, while clients ask at a node that stays.

head        Ray's state, in a folder that outlives it, and Serve's controller; no work, as on Kubernetes
two nodes   each with a proxy, an engine, and gateway or manager; the clients are on the first
"""

import json
import math
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from services import ingress
from services.chaos import rig
from services.chaos.outcome import Claim, Outcome
from services.chaos.rig import Rig, RigError
from services.runs.orders import DEPLOY
from trainers.checkpoints import CheckpointInfo, Checkpoints

SERVING = (2, 3)  # nodes; the first of them is asked
CLIENTS, ITEMS = 4, 400
STEP_WITHIN_S = 240.0  # anything that is waited for
BACK_WITHIN_S = 120.0
ANSWERS = 20  # between two faults, at least
WHOLE = f"""
import time, ray
from ray.exceptions import RayError
from services import app

def is_whole():
    try:
        return sum(node["Alive"] for node in ray.nodes()) == {1 + len(SERVING)} and app.is_whole()
    except (RayError, TimeoutError):
        return False

ray.init(log_to_driver=False, logging_level="error")
while not is_whole():
    time.sleep(0.5)
"""
"""What a process on a node waits for: every node, and all of the service. A controller that restarts answers with errors."""

Line = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A head's death and return, in seconds since the epoch."""

    killed: float
    restarted: float
    back: float
    """Ray's state was to be had again."""
    whole: float
    """Every node was there, and Serve's controller found all of the service."""


def head_kills(times: int, seed: int, scratch: Path) -> Outcome:
    """The head of a service is killed, with Ray's state server and Serve's controller, and started 5 to 30 s later."""
    if reason := rig.why_not():
        return Outcome(drill="head-kills", faults=0, claims=(Claim(f"may have namespaces ({reason})", False),))
    dice, store, faults = random.Random(seed), scratch / "runs", list[Fault]()
    model = _commit(store)
    with Rig(
        1 + len(SERVING), cpus=[0, 2, 2], variables={**ingress.EVERYWHERE, **rig.state_in(scratch / "state")}
    ) as on:
        _deploy(on, scratch, store)
        before = _serving(on)
        with _clients(on, store, model) as lines:
            for _ in range(times):
                _wait_for_more(lines, "answer", ANSWERS)
                _wait_for_more(lines, "ordered", 1)
                time.sleep(dice.uniform(0.0, 3.0))  # into the evaluation
                faults.append(_fault(on, dice.uniform(5.0, 30.0)))
            _wait_until(lines, lambda: _evaluation(lines, faults[-1]) is not None)
        after = _serving(on)
    return found(lines, faults, is_same=before == after != set())


def found(lines: Sequence[Line], faults: Sequence[Fault], *, is_same: bool) -> Outcome:
    """What clients were told, as claims. `is_same`: the service's processes were so throughout."""
    answers = [line for line in lines if line["kind"] == "answer"]
    evaluations = [line for line in lines if line["kind"] == "evaluated"]
    failed = Counter(line["status"] for line in answers if line["status"] != 200)
    headless = [a for a in answers if any(f.killed < a["began"] + a["seconds"] < f.back for f in faults)]
    back_s = [fault.back - fault.restarted for fault in faults]
    whole_s = [fault.whole - fault.restarted for fault in faults]
    return Outcome(
        drill="head-kills",
        faults=len(faults),
        claims=(
            Claim("every request answered with 200" + (f" {dict(failed)}" if failed else ""), bool(answers) and not failed),
            Claim("some while there was no head", bool(headless)),
            Claim("each prompt's answer and its weights the same throughout", _are_steady(answers)),
            Claim("proxies, gateways, replicas and the evaluations' manager are the processes they were", is_same),
            Claim("an evaluation went on through each fault, and each has every item once",
                  all(_evaluation(lines, fault) for fault in faults) and all(line["whole"] for line in evaluations)),
            Claim(f"head back and service whole within {BACK_WITHIN_S:g} s", max(whole_s) <= BACK_WITHIN_S),
        ),
        numbers={
            "requests": len(answers), "failed": failed.total(), "answered without a head": len(headless),
            "slowest answer s": max((answer["seconds"] for answer in answers), default=math.inf),
            "evaluations": len(evaluations), "head back s": max(back_s), "service whole s": max(whole_s),
        },
    )  # fmt: skip


def _fault(on: Rig, lasts_s: float) -> Fault:
    killed = time.time()
    on.kill(1)
    time.sleep(lasts_s)
    restarted = time.time()
    on.bring(1)
    back = time.time()
    on.favour(1)  # as on a machine of its own
    _run(on, sys.executable, "-c", WHOLE)
    return Fault(killed=killed, restarted=restarted, back=back, whole=time.time())


def _are_steady(answers: Sequence[Line]) -> bool:
    """Whether each client, which always asks the same, was always told the same."""
    said = {(line["client"], *line["text"]) for line in answers if line["text"]}
    return 0 < len(said) == len({client for client, *_ in said})


def _evaluation(lines: Sequence[Line], fault: Fault) -> Line | None:
    """The evaluation that was under way at a fault; None where there is none, or it has not ended."""
    ended = [line for line in lines if line["kind"] == "evaluated"]
    return next((each for each in ended if each["began"] < fault.killed < each["ended"]), None)


def _commit(store: Path) -> str:
    """The nano model that has practised GeneralPoints, as a checkpoint; its name."""
    base = DEPLOY / "models" / "nano-gp-base"
    info = CheckpointInfo(parents=(), metrics={}, compute={}, config={}, world_size=1)
    return Checkpoints(store, "nano").commit(1, lambda staged: shutil.copytree(base, staged / "model"), info).name


def _deploy(on: Rig, scratch: Path, store: Path) -> None:
    """deploy/serve.yaml, on CPUs and with small engines, an engine to a node. Returns once all of it runs; engines load on."""
    service = yaml.safe_load((DEPLOY / "serve.yaml").read_text())
    service["applications"][0]["args"] = {
        "store": str(store), "replicas": len(SERVING), "replica_cpus": 1.5, "training": False,
        "engine": {"dtype": "float32", "kv_cache_gib": 0.25, "max_model_len": 512, "prefix_cache": False},
    }  # fmt: skip
    file = scratch / "serve.yaml"
    file.write_text(yaml.safe_dump(service))
    _run(on, str(Path(sys.executable).with_name("serve")), "run", "--non-blocking", str(file))
    _run(on, sys.executable, "-c", WHOLE)


def _run(on: Rig, *command: str) -> None:
    """Run a command on a serving node. Raises RigError where it fails, or takes too long."""
    try:
        done = subprocess.run(
            on.command(*command, node=SERVING[0]), env=on.environment, cwd=Path(__file__).parents[2], capture_output=True,
            text=True, timeout=STEP_WITHIN_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RigError(f"the service was not whole within {STEP_WITHIN_S:g} s") from None
    if done.returncode:
        raise RigError(f"{Path(command[0]).name} ended with {done.returncode}: {done.stderr[-500:]}")


def _serving(on: Rig) -> set[psutil.Process]:
    """The processes of the service on the nodes that stay: proxies, gateways, engines' owners, the evaluations' manager."""
    everywhere = [process for node in SERVING for process in on.processes(node)]
    return {process for process in everywhere if _serves(process)}


def _serves(process: psutil.Process) -> bool:
    try:
        return process.name().startswith(("ray::ServeReplica", "ray::HAProxyManager"))
    except psutil.Error:
        return False


@contextmanager
def _clients(on: Rig, store: Path, model: str) -> Iterator[list[Line]]:
    """Lines of clients at work, as they come; at the end all of them."""
    words = ["http://127.0.0.1:8000", str(store), model, str(CLIENTS), str(ITEMS)]
    lines: list[Line] = []
    with subprocess.Popen(
        on.command(sys.executable, "-m", "services.chaos.clients", *words, node=SERVING[0]), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, env=on.environment, cwd=Path(__file__).parents[2],
    ) as process:  # fmt: skip
        assert process.stdin is not None
        reading = threading.Thread(target=lambda: lines.extend(map(json.loads, process.stdout or ())), daemon=True)
        reading.start()
        try:
            yield lines
        finally:
            process.stdin.close()
            try:
                process.wait(STEP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
            reading.join()


def _wait_until(lines: Sequence[Line], is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + STEP_WITHIN_S
    while not is_so():
        if time.monotonic() > until:
            raise RigError(f"clients tell nothing of it after {STEP_WITHIN_S:g} s; the last is {lines[-1:]}")
        time.sleep(0.2)


def _wait_for_more(lines: Sequence[Line], kind: str, count: int) -> None:
    """Until so many more lines of a kind have come."""
    wanted = _count(lines, kind) + count
    _wait_until(lines, lambda: _count(lines, kind) >= wanted)


def _count(lines: Sequence[Line], kind: str) -> int:
    return sum(line["kind"] == kind for line in lines)
