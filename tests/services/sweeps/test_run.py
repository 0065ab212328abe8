"""A sweep as it goes: what is trained in which order, what is left alone, and what a failure means."""

from pathlib import Path
from typing import Any

import pytest

from cluster import run_record
from cluster.config import RunConfig
from envs.base import ConfigError, DataError, ViterError
from services import train_run
from services.sweeps import run
from services.sweeps.plan import Sweep, planned
from tests.services.sweeps.test_plan import NANO
from tests.services.sweeps.test_results import log, measure
from trainers.lease import Fence
from trainers.storage import open_store

NAMES = ["nano-gp-l-init", "nano-gp-l-ppo.max_staleness-0", "nano-gp-l-ppo.max_staleness-4"]


class DivergedError(ViterError):
    """Known by its name, as the exit codes know it."""


class Trainer:
    """Trains at once whatever it is given, but for the runs that have an error."""

    def __init__(self, store: Path, errors: dict[str, ViterError] | None = None) -> None:
        self.store, self.errors, self.trained = store, errors or {}, []

    def __call__(self, config: RunConfig) -> None:
        self.trained.append(config.name)
        with run_record.noted(open_store(str(self.store)), config, Anyone()):
            if config.name in self.errors:
                raise self.errors[config.name]
            if config.ppo:
                log(self.store, config.name)
                measure(self.store, config.name, 0.6)


class Anyone(Fence):
    """A right that nobody takes away."""

    def __init__(self) -> None:
        pass

    def check(self) -> None:
        pass


def sweep_of(store: Path, *overrides: str) -> Sweep:
    return planned(NANO, (f"store.uri={store}", *overrides), "ppo.max_staleness=0,4")


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Trainer(tmp_path)
    monkeypatch.setattr(train_run, "complete", made)
    return made


def test_init_comes_first_and_what_is_finished_is_not_trained_again(tmp_path: Path, trainer: Trainer, capsys):
    run.run(sweep_of(tmp_path))
    assert trainer.trained == NAMES
    assert (tmp_path / "nano-gp-l-ppo.max_staleness" / "sweep.json").exists()
    run.run(planned(NANO, (f"store.uri={tmp_path}",), "ppo.max_staleness=0,1,4"))
    assert trainer.trained == [*NAMES, "nano-gp-l-ppo.max_staleness-1"]
    said = capsys.readouterr().out
    assert "1 of 3: nano-gp-l-ppo.max_staleness-0 is finished already" in said
    assert "OOD success" in said


def test_a_value_that_diverges_is_told_and_the_others_go_on(tmp_path: Path, trainer: Trainer, capsys):
    trainer.errors[NAMES[1]] = DivergedError("step 2: the loss is not finite")
    with pytest.raises(DivergedError):
        run.run(sweep_of(tmp_path))
    assert trainer.trained == NAMES
    assert "0: step 2: the loss is not finite" in capsys.readouterr().out


def test_any_other_failure_ends_the_sweep_and_the_same_command_goes_on(tmp_path: Path, trainer: Trainer):
    trainer.errors[NAMES[1]] = DataError("the disk is full")
    with pytest.raises(DataError):
        run.run(sweep_of(tmp_path))
    assert trainer.trained == NAMES[:2]
    trainer.errors.clear()
    run.run(sweep_of(tmp_path))
    assert trainer.trained == [*NAMES[:2], *NAMES[1:]]


def test_runs_of_other_settings_are_not_taken_for_these(tmp_path: Path, trainer: Trainer):
    run.run(sweep_of(tmp_path))
    run.check(sweep_of(tmp_path))
    with pytest.raises(ConfigError, match=r"nano-gp-l-ppo.max_staleness-0: .* ppo.steps is 16 there and 9 here; give"):
        run.check(sweep_of(tmp_path, "ppo.steps=9"))
