"""What a sweep tells of each value: read off logs and evaluations, with no more claimed than the intervals allow."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.reports import measured
from services.sweeps import results
from services.sweeps.plan import Sweep, planned
from services.sweeps.results import Results
from tests.services.reports.synthetic import ID, OOD, evaluation, point
from tests.services.sweeps.test_plan import NANO
from trainers.runlog import RunLog

IDLE, STEP_S = (0.0, 0.8, 0.6), (30.0, 7.0, 5.0)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return planned(NANO, (f"store.uri={tmp_path}",), "ppo.max_staleness=0,1")


def log(store: Path, run: str, **more: Any) -> None:
    written = RunLog(store / f"{run}-ppo")
    for step in range(3):
        written.metrics(step + 1, {
            "step_s": STEP_S[step], "slots_idle": IDLE[step], "staleness_mean": 0.5 * step, "staleness_0": 1.0,
            "logp_gap": 0.001 * step, "tokens_sampled": 1000.0, "flops": 2e12 * (step + 1), **more,
        }, stage="ppo")  # fmt: skip
    written.close()


def measure(store: Path, run: str, success: float) -> None:
    points = [
        point("init", 4, 0, (0.41, 0.15, 0.05), n=512, is_final=True),
        point("ppo", 3, 6e12, (success, 0.16, 0.05), n=512, is_final=True),
    ]
    measured.write(store / run, evaluation(run).model_copy(update={"points": tuple(points)}))


def test_a_value_is_told_by_its_steps_and_its_last_checkpoint(tmp_path: Path, sweep: Sweep):
    synchronous, stale = (value.config.name for value in sweep.values)
    log(tmp_path, synchronous)
    log(tmp_path, stale, importance_weight=0.99, staleness_1=0.25, staleness_2=0.0)
    for run, success in ((synchronous, 0.62), (stale, 0.45)):
        measure(tmp_path, run, success)
    found = results.gathered(sweep, {})
    first, second = found.rows
    assert (first.step_s, first.slots_idle) == (6.0, pytest.approx(0.7))  # without the first step
    assert (first.staleness_mean, first.staleness_max, first.importance_weight) == (0.5, 0, None)
    assert (second.staleness_max, second.importance_weight) == (1, pytest.approx(0.99))
    assert (first.tokens_sampled, first.flops, first.logp_gap) == (3000, 6e12, pytest.approx(0.001))
    assert (first.success[ID].rate, second.success[ID].rate) == (
        pytest.approx(0.62, abs=1e-3),
        pytest.approx(0.45, abs=1e-3),
    )
    assert found.suites == {"id": ID, "ood": OOD}
    assert found.init[ID].rate == pytest.approx(0.41, abs=1e-3)

    told = results.table(found)
    head, start, *rows = told.splitlines()[:4]
    assert head.split()[:3] == ["ppo.max_staleness", "step", "stale"]
    assert start.split()[:7] == ["init", *"------"]
    assert measured.told(found.init[OOD]) in start
    assert "6.00 s" in rows[0]
    assert measured.told(first.success[ID]) in rows[0]
    assert rows[0].split()[-2:] == ["3,000", "6"]
    assert "ID success, against ppo.max_staleness=0: below it with 1 (0.62 and 0.45)." in told
    assert "OOD success, against ppo.max_staleness=0: no other value lies beyond noise." in told

    path = results.write(str(tmp_path), found)
    assert path.endswith("nano-gp-l-ppo.max_staleness/sweep.json")
    assert Results.model_validate(json.loads(Path(path).read_text())) == found


def test_a_value_that_came_to_no_end_says_why_and_holds_no_number_it_does_not_have(tmp_path: Path, sweep: Sweep):
    log(tmp_path, sweep.values[0].config.name)
    found = results.gathered(sweep, {sweep.values[1].config.name: "loss is not finite at step 1"})
    told = results.table(found)
    assert "1: loss is not finite at step 1" in told
    assert told.splitlines()[2].split() == ["1", "-", "-", "-", "-", "-", "-", "0", "0"]
    assert "beyond noise" not in told
