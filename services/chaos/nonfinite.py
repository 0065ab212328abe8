"""A drill on gradients that are not finite: a whole run whose verifier overflows at some of its steps."""

import os
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from services.chaos import overflow
from services.chaos.outcome import Claim, Outcome
from services.chaos.play import nano
from services.chaos.runs import PPO, Training
from trainers.checkpoints import Checkpoints

EVERY = 3  # steps, one of which overflows: never so many updates in a row that the run would end as diverged
UPDATES = 1  # of a step: others of it, with other episodes, could well be finite
Tensors = dict[str, np.ndarray]


def nan_gradients(times: int, seed: int, scratch: Path) -> Outcome:
    """One step of three, chosen at random, has a reward whose square float32 does not hold, and so no finite gradient."""
    dice = random.Random(seed)
    bad = [EVERY * turn + dice.randrange(EVERY) for turn in range(times)]
    run = Training(
        scratch / "run",
        "ppo",
        {**PPO, "steps": EVERY * times, "checkpoint_every": 1, "minibatches": UPDATES},
        model={"source": str(nano(scratch)), "dtype": "float32"},
        environment={"name": overflow.NAME, "options": {"steps": bad}},
    )
    code = run.finish(lambda *words: list(words), {**os.environ, "PYTHONPATH": _path(scratch)})
    rows = run.rows()
    states = [load_file(nano(scratch) / "model.safetensors"), *(_state(run, step) for step in range(1, len(rows) + 1))]
    still = [step for step, (before, after) in enumerate(pairwise(states)) if _equal(before, after)]
    return Outcome(
        drill="nan-gradients",
        faults=len(bad),
        claims=(
            Claim("the run ends by itself, every step done", code == 0 and len(rows) == EVERY * times),
            Claim("every update of such a step skipped, and no other", [row["skipped"] for row in rows] == [
                float(step in bad) for step in range(len(rows))]),
            Claim("counted, and told in events", rows[-1]["nonfinite_skips"] == UPDATES * len(bad) and [
                event["step"] - 1 for event in run.events("updates_skipped")] == bad),
            Claim("weights and moments as they were after it, changed by any other step", still == bad),
            Claim("all finite at last", all(np.isfinite(value).all() for value in states[-1].values())),
        ),
        numbers={"steps": len(rows), "updates skipped": rows[-1]["nonfinite_skips"]},
    )  # fmt: skip


def _path(scratch: Path) -> str:
    """PYTHONPATH with the environment's entry point on it."""
    known = overflow.installed(scratch / "known")
    return os.pathsep.join([str(known), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])


def _state(run: Training, step: int) -> Tensors:
    """Weights and moments after a step: those of the model by their own names, the learner's beside them."""
    checkpoint = Path(Checkpoints(run.store, run.directory.name).get(step).uri)
    learner = {
        f"learner {k}": v for file in checkpoint.glob("learner/*.safetensors") for k, v in load_file(file).items()
    }
    return {**load_file(checkpoint / "model" / "model.safetensors"), **learner}


def _equal(before: Tensors, after: Tensors) -> bool:
    """In all that both have: at the start there is a model alone."""
    return all(np.array_equal(before[name], after[name]) for name in before.keys() & after.keys())
