"""Drills on whole runs: `viter train` with the real engine and learner, killed in many places and run again."""

import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.job_outcome import RETRY_EXIT
from services.chaos.outcome import Claim, Outcome
from trainers.checkpoints import Checkpoints
from trainers.runlog import read_events, read_metrics

ENDS_WITHIN_S = 1200.0  # a run of these sizes, faults included
EVERY = 2  # steps between checkpoints of PPO
GRACE_S = 45.0  # what Ray Jobs and Kubernetes allow between SIGTERM and SIGKILL
PPO = {
    "episodes": 8, "viter": 2, "answer_tokens": 16, "minibatches": 2, "epochs": 1, "checkpoint_every": EVERY,
    "schedule": {"learning_rate": 1e-4}, "unit": "token", "probe_tolerance": 0.001,
}  # fmt: skip
SFT = {"documents": 16, "checkpoint_every": 1000, "schedule": {"learning_rate": 1e-3}}
ENGINE = {"dtype": "float32", "prefix_cache": False, "max_model_len": 256, "max_num_seqs": 16}

Numbers = list[dict[str, float]]


class Training:
    """One stage of a small run, in processes of its own."""

    def __init__(
        self, folder: Path, stage: str, settings: dict[str, Any], *, workers: int = 1, **sections: dict[str, Any]
    ) -> None:
        """Args: sections: others of the run file, in place of those that it has."""
        folder.mkdir(parents=True)
        self.store, self.stage = folder / "runs", stage
        self._file, self._log = folder / "run.yaml", folder / "log"
        self._run: dict[str, Any] = {
            "name": "chaos",
            "model": {"source": "nano", "dtype": "float32"},
            "learner": {"row_tokens": 256},
            "rollout": {"workers": workers, "episodes_in_flight": 8, "engine": ENGINE},
            "store": {"uri": str(self.store)},
            stage: settings,
        }
        self.change(**sections)

    def change(self, **sections: dict[str, Any]) -> None:
        """Put other sections into the run file: what the next start reads."""
        self._run |= sections
        self._file.write_text(yaml.safe_dump(self._run))

    @property
    def directory(self) -> Path:
        return self.store / f"chaos-{self.stage}"

    def start(
        self,
        command: Callable[..., list[str]] = lambda *words: list(words),
        environment: Mapping[str, str] = os.environ,
    ) -> "subprocess.Popen[bytes]":
        """The driver, in a process group of its own; `command` and `environment` say where, if not here."""
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command(sys.executable, "-m", "services.cli", "train", str(self._file)), stdout=log, stderr=log,
                cwd=Path(__file__).parents[2], start_new_session=True,
                env={**environment, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def finish(self, *where: Any) -> int:
        """Run, or go on with, the training to its end. Returns the exit code."""
        return self.start(*where).wait(ENDS_WITHIN_S)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in read_events(self.directory) if event["kind"] == kind] if self._began else []

    def rows(self) -> Numbers:
        return read_metrics(self.directory) if self._began else []

    def digest(self) -> str:
        """Of the newest checkpoint; empty where there is none."""
        newest = Checkpoints(self.store, f"chaos-{self.stage}").newest() if self._began else None
        return newest.digest if newest else ""

    def last_words(self, codes: Sequence[int]) -> str:
        """Exit codes that should not have been, with the errors that its drivers told; nothing where there are none."""
        told = [line for line in self._log.read_text(errors="replace").splitlines() if "rror" in line]
        return f", not {', '.join(map(str, codes))} ({' | '.join(told)[-600:]})" if codes else ""

    @property
    def _began(self) -> bool:
        return self.directory.is_dir()


def learner_kills(times: int, seed: int, scratch: Path) -> Outcome:
    """The learner of a PPO run is killed at random phases of its steps; nobody starts anything again."""
    settings = {**PPO, "steps": 4 + 8 * times}
    calm, rough = (Training(scratch / name, "ppo", settings) for name in ("calm", "rough"))
    calm_code = calm.finish()
    dice, driver = random.Random(seed), rough.start()
    killed: list[int] = []
    killed_at: list[float] = []
    recoveries: list[float] = []

    def kill() -> bool:
        lives = rough.events("learner_started")
        if not lives or lives[-1]["pid"] in killed:
            return False
        if killed:
            recoveries.append(lives[-1]["time"] - killed_at[-1])
        time.sleep(dice.uniform(0.5, 10.0))
        killed.append(lives[-1]["pid"])
        killed_at.append(time.time())
        return _signal(lives[-1]["pid"], signal.SIGKILL)

    made = _while_it_runs(driver, kill, times)
    code = driver.wait(ENDS_WITHIN_S)
    redone = [event["dropped_rows"] for event in rough.events("rewound") if "dropped_rows" in event]
    return Outcome(
        drill="learner-kills",
        faults=made,
        claims=(
            Claim("the run ends by itself, nobody started it again", (calm_code, code) == (0, 0)),
            Claim("its weights are those of an undisturbed run, bit for bit", rough.digest() == calm.digest() != ""),
            Claim("its curve too", _curve(rough) == _curve(calm)),
            Claim("at most one checkpoint interval learnt again", max(redone, default=0) <= EVERY),
        ),
        numbers={
            "steps": len(rough.rows()), "steps again": sum(redone), "median recovery s": statistics.median(recoveries or [0.0]),
            "longest s": max(recoveries, default=0.0),
        },
    )  # fmt: skip


def driver_kills(times: int, seed: int, scratch: Path) -> Outcome:
    """The driver of a PPO run is killed, with the Ray that it started; the same command goes on."""
    settings = {**PPO, "steps": 2 + 2 * times, "checkpoint_every": 1}
    calm, rough = (Training(scratch / name, "ppo", settings) for name in ("calm", "rough"))
    calm_code = calm.finish()
    dice = random.Random(seed)
    made = 0
    code = RETRY_EXIT
    while code != 0 and made <= times:
        driver, steps = rough.start(), len(rough.rows())
        if made < times:
            wait_for(driver, lambda steps=steps: len(rough.rows()) > steps)  # type: ignore[misc]
            time.sleep(dice.uniform(0.0, 2.0))
            made += _signal(driver.pid, signal.SIGKILL)
        code = driver.wait(ENDS_WITHIN_S)
    return Outcome(
        drill="driver-kills",
        faults=made,
        claims=(
            Claim("the same command goes on, with no step by hand", (calm_code, code) == (0, 0)),
            Claim("weights of an undisturbed run, bit for bit", rough.digest() == calm.digest() != ""),
            Claim("its curve too", _curve(rough) == _curve(calm)),
        ),
        numbers={"steps": len(rough.rows()), "starts": len(rough.events("learner_started"))},
    )


def sigterm(times: int, seed: int, scratch: Path) -> Outcome:
    """SIGTERM at random moments of an SFT run, as from `ray job stop` or a node that goes; the same command goes on."""
    dice = random.Random(seed)
    rough = Training(scratch / "rough", "sft", {**SFT, "steps": 100_000})
    codes, took, kept = [], [], []
    for _ in range(times):
        driver, steps = rough.start(), len(rough.rows())
        wait_for(driver, lambda steps=steps: len(rough.rows()) > steps)  # type: ignore[misc]
        time.sleep(dice.uniform(0.0, 1.0))
        asked = time.monotonic()
        _signal(driver.pid, signal.SIGTERM)
        codes.append(driver.wait(ENDS_WITHIN_S))
        took.append(time.monotonic() - asked)
        newest = Checkpoints(rough.store, "chaos-sft").newest()
        kept.append(newest is not None and newest.step == rough.rows()[-1]["step"])
    steps = int(rough.rows()[-1]["step"])
    calm = Training(scratch / "calm", "sft", {**SFT, "steps": steps})
    calm_code = calm.finish()
    others = [code for code in codes if code != RETRY_EXIT]
    return Outcome(
        drill="sigterm",
        faults=times,
        claims=(
            Claim(f"exit code 75{rough.last_words(others)}", not others and calm_code == 0),
            Claim("the last step committed each time", all(kept)),
            Claim(f"within {GRACE_S:g} s", max(took) <= GRACE_S),
            Claim("weights of an undisturbed run, bit for bit", rough.digest() == calm.digest() != ""),
        ),
        numbers={"steps": steps, "median stop s": statistics.median(took), "longest s": max(took)},
    )


def _while_it_runs(driver: "subprocess.Popen[bytes]", fault: Callable[[], bool], times: int) -> int:
    """Make faults until there are so many or the driver has ended. Returns how many were made."""
    made = 0
    while made < times and driver.poll() is None:
        made += fault()
        time.sleep(0.2)
    return made


def wait_for(driver: "subprocess.Popen[bytes]", is_so: Callable[[], bool]) -> None:
    """Until something is so, or the driver has ended."""
    until = time.monotonic() + ENDS_WITHIN_S
    while driver.poll() is None and not is_so() and time.monotonic() < until:
        time.sleep(0.2)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _curve(of: Training) -> list[tuple[float, ...]]:
    """What was learnt, step by step, without what time it took."""
    return [tuple(row.get(name, 0.0) for name in ("step", "loss", "policy_loss", "value_loss", "reward_mean",
                                                  "grad_norm")) for row in of.rows()]  # fmt: skip
