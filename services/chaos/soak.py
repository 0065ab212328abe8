"""A soak: a PPO run with real engines, broken at random for as long as it is asked to go on."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from cluster.job_outcome import RETRY_EXIT
from services.chaos.outcome import Claim, Outcome
from services.chaos.runs import PPO, Training
from trainers.runlog import episode_steps, read_episodes

EVERY_S = 20.0
KINDS = {"rollout": "ray::RolloutActor", "verifier": "ray::VerifierActor", "learner": "ray::RayTrainWorker"}
DRIVER = ("driver killed", "driver told to stop")
ENOUGH = 20  # faults, before first and last can be compared
FLAT = 1.3  # what memory and open files of a run's own actors may grow by, from its first third to its last


def soak(times: int, seed: int, scratch: Path) -> Outcome:
    """One fault every 20 s, `times` of them: a worker, a verifier, the learner, the driver; at last what it came to."""
    dice, made = random.Random(seed), Counter[str]()
    run = Training(scratch / "rough", "ppo", {**PPO, "steps": 100_000, "checkpoint_every": 5})
    driver, sizes = run.start(), []
    for _ in range(times):
        time.sleep(dice.uniform(0.5, 1.5) * EVERY_S)
        sizes.append(_sizes(driver.pid))
        fault = dice.choices((*KINDS, *DRIVER), weights=(4, 4, 2, 1, 1))[0]
        if fault in DRIVER:
            os.kill(driver.pid, signal.SIGKILL if fault == DRIVER[0] else signal.SIGTERM)
            driver.wait(120)
            driver = run.start()
            made[fault] += 1
        elif victims := _processes(driver.pid, KINDS[fault]):
            dice.choice(victims).kill()
            made[fault] += 1
    os.kill(driver.pid, signal.SIGTERM)
    last_code = driver.wait(120)
    rows, digest = run.rows(), run.digest()
    whole = _whole_steps(run)
    calm = Training(scratch / "calm", "ppo", {**PPO, "steps": int(rows[-1]["step"]), "checkpoint_every": 5})
    calm_code = calm.finish()
    return Outcome(
        drill="soak",
        faults=made.total(),
        claims=(
            Claim("the run goes on, and ends in order with 75", (last_code, calm_code) == (RETRY_EXIT, 0)),
            Claim("every step once, in order", [row["step"] for row in rows] == list(range(1, len(rows) + 1))),
            Claim("every step's episodes whole, each once", whole),
            Claim("weights of an undisturbed run of as many steps, bit for bit", digest == calm.digest() != ""),
            *([Claim("no more memory, processes and open files at last than at first", all(
                _is_flat(sizes, name) for name in ("bytes", "processes", "files")))] if times >= ENOUGH else ()),
        ),
        numbers={
            "steps": len(rows), **{f"{kind} faults": count for kind, count in made.items()},
            "learner starts": len(run.events("learner_started")),
            "MiB at first": _of(sizes, "bytes")[0] / 2**20, "MiB at last": _of(sizes, "bytes")[1] / 2**20,
        },
    )  # fmt: skip


def _processes(driver: int, name: str) -> list[psutil.Process]:
    """Living descendants of the driver by the name that Ray gives them."""
    try:
        family = psutil.Process(driver).children(recursive=True)
    except psutil.Error:
        return []
    return [process for process in family if name in _command(process)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _sizes(driver: int) -> dict[str, int]:
    """Processes of the run, and bytes and open files of the orchestrator and the log, which live as long as it does."""
    steady = _processes(driver, "ray::OrchestratorActor") + _processes(driver, "ray::StageLogActor")
    found = {"processes": len(_processes(driver, "")), "files": 0, "bytes": 0}
    for process in steady:
        try:
            found["files"] += process.num_fds()
            found["bytes"] += process.memory_info().rss
        except psutil.Error:
            continue
    return found


def _of(sizes: list[dict[str, int]], name: str) -> tuple[float, float]:
    """The largest of the first third, and of the last: drivers start again, so that one reading says little."""
    third = max(1, len(sizes) // 3)
    return max(size[name] for size in sizes[:third]), max(size[name] for size in sizes[-third:])


def _is_flat(sizes: list[dict[str, int]], name: str) -> bool:
    first, last = _of(sizes, name)
    return last <= FLAT * first


def _whole_steps(run: Training) -> bool:
    """Whether the log holds each episode of each step once."""
    wanted: dict[int, Any] = dict.fromkeys(range(PPO["episodes"]), 1)  # type: ignore[call-overload]
    steps = episode_steps(run.directory)
    return bool(steps) and all(
        Counter(episode.index for episode in read_episodes(run.directory, step)) == wanted for step in steps
    )
