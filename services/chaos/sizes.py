"""A drill on the learner group's size: a run is stopped, and goes on with another number of ranks.

It is compared with a run that went on undisturbed with as many ranks as both began with. Sums over ranks are rounded in
another order, so the weights agree to rounding. In PPO rounding may decide which of two tokens is drawn, and from there on
it is another run: it is compared for as long as its tokens agree.

Runs that begin with different numbers of ranks are farther apart: the first update of AdamW is the gradient over its own
size, so that a weight whose gradient is nothing but rounding moves as far as any other.
"""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from cluster.job_outcome import RETRY_EXIT
from services.chaos.outcome import Claim, Outcome
from services.chaos.play import told
from services.chaos.runs import ENDS_WITHIN_S, PPO, SFT, Training, wait_for
from trainers.checkpoints import Checkpoints
from trainers.runlog import episode_steps, read_episodes

ENOUGH = 1e-6  # ‖a − b‖ / ‖a‖ of every tensor
WAYS = ((1, 2), (2, 1))
STEPS = {"sft": 40, "ppo": 6}
STOPPED_AFTER = {"sft": 8, "ppo": 2}  # steps, or one or two more: those that are done when the signal comes
SETTINGS: Mapping[str, dict[str, Any]] = {
    "sft": SFT,
    "ppo": {**PPO, "minibatches": 1},  # each rank deals its own rows out: several hold other rows at another size
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """A run that went on at another size, beside the one that did not."""

    codes: tuple[int, int]
    stopped_at: int  # steps done
    alike: int  # steps with the same episodes, before the first that differs; for SFT all
    weights: float  # ‖a − b‖ / ‖a‖, the largest of any tensor
    element: float  # max |a − b| / max |a|, the largest of any tensor
    losses: float  # |a − b| / |a|, the largest of any step


def other_size(times: int, seed: int, scratch: Path) -> Outcome:  # noqa: ARG001 - nothing in it is random
    """A run is stopped and goes on with two ranks instead of one, the next with one instead of two, and so on."""
    ways = [WAYS[turn % 2] for turn in range(times)]
    whole = {
        (stage, ranks): Training(scratch / f"{stage}-{ranks}", stage, _settings(stage), learner=_ranks(ranks))
        for stage in STEPS
        for ranks in sorted({way[0] for way in ways})
    }
    codes = [run.finish() for run in whole.values()]
    found = {
        stage: [_resumed(scratch / f"{stage}-cut-{n}", whole[stage, way[0]], way) for n, way in enumerate(ways)]
        for stage in STEPS
    }
    sft, ppo = found["sft"], found["ppo"]
    to_the_end = [run for run in ppo if run.alike == STEPS["ppo"]]
    return Outcome(
        drill="other-size",
        faults=2 * times,
        claims=(
            Claim("the same command goes on", set(codes) == {0} and all(r.codes == (RETRY_EXIT, 0) for r in sft + ppo)),
            Claim("SFT: every tensor that of the run that kept its size, to 1e-6 of its norm, and every loss", all(
                max(run.weights, run.losses) <= ENOUGH for run in sft)),
            Claim("PPO: the tokens of two more steps the same", all(run.alike >= run.stopped_at + 2 for run in ppo)),
            Claim("tensors too, where all tokens are", all(run.weights <= ENOUGH for run in to_the_end)),
        ),
        numbers={
            "SFT tensors apart": max(run.weights for run in sft), "elements": max(run.element for run in sft),
            "losses": max(run.losses for run in sft), "PPO runs": len(ppo), "alike to the end": len(to_the_end),
            **({"their tensors apart": max(run.weights for run in to_the_end)} if to_the_end else {}),
            **({"SFT of 1 and of 2 ranks from the start": _apart(whole["sft", 1], whole["sft", 2])[0]} if times > 1 else {}),
        },
    )  # fmt: skip


def _settings(stage: str) -> dict[str, Any]:
    return {**SETTINGS[stage], "steps": STEPS[stage]}


def _ranks(number: int) -> dict[str, Any]:
    """The learner section: under ZeRO-2 the optimizer's state is dealt out anew at another size."""
    return {"row_tokens": 256, "workers": number, "zero_stage": 2}


def _resumed(folder: Path, whole: Training, way: tuple[int, int]) -> Resumed:
    run = Training(folder, whole.stage, _settings(whole.stage), learner=_ranks(way[0]))
    driver = run.start()
    wait_for(driver, lambda: len(run.rows()) >= STOPPED_AFTER[run.stage])
    driver.send_signal(signal.SIGTERM)
    stopped = driver.wait(ENDS_WITHIN_S)
    stopped_at = len(run.rows())
    run.change(learner=_ranks(way[1]))
    went_on = run.finish()
    weights, element = _apart(whole, run)
    return Resumed(
        codes=(stopped, went_on),
        stopped_at=stopped_at,
        alike=_alike(whole, run),
        weights=weights,
        element=element,
        losses=max(abs(a["loss"] - b["loss"]) / abs(a["loss"]) for a, b in zip(whole.rows(), run.rows(), strict=True)),
    )


def _apart(one: Training, other: Training) -> tuple[float, float]:
    """‖a − b‖ / ‖a‖ and max |a − b| / max |a|, each the largest of any tensor."""
    others = _weights(other)
    pairs = [(a, others[name]) for name, a in _weights(one).items()]
    return (
        max(float(np.linalg.norm(a - b) / np.linalg.norm(a)) for a, b in pairs),
        max(float(abs(a - b).max() / abs(a).max()) for a, b in pairs),
    )


def _weights(run: Training) -> dict[str, np.ndarray]:
    """Of the last checkpoint, in double precision, so that what is measured is theirs."""
    newest = Checkpoints(run.store, run.directory.name).newest()
    assert newest is not None
    return {name: w.astype(np.float64) for name, w in load_file(Path(newest.uri) / "model/model.safetensors").items()}


def _alike(whole: Training, run: Training) -> int:
    steps = episode_steps(whole.directory)
    for step in steps:
        if told(read_episodes(whole.directory, step)) != told(read_episodes(run.directory, step)):
            return step
    return len(steps)
