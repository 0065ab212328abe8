"""Every drill of `viter chaos`, in its short form."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from services.chaos import drills, overflow
from services.chaos.outcome import Claim, Outcome, save, table
from services.cli import app

HERE = [name for name, drill in drills.DRILLS.items() if drill.plays_here]
ELSEWHERE = [name for name, drill in drills.DRILLS.items() if drill.short and not drill.plays_here]


@pytest.fixture(scope="module")
def cluster():
    with drills.cluster():
        yield


def check(outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n  {table([outcome]).splitlines()[-1]}")
    assert [claim.text for claim in outcome.claims if not claim.holds] == []
    assert outcome.claims
    assert outcome.faults >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_it_holds(name: str, cluster, capsys):
    check(drills.run(name, times=drills.DRILLS[name].short, seed=1), capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", ELSEWHERE)
def test_it_holds_on_its_own(name: str, capsys):
    check(drills.run(name, times=drills.DRILLS[name].short, seed=1), capsys)


def test_drills_are_chosen_by_name_and_number():
    assert drills.chosen(["poison=7"], long=False) == {"poison": 7}
    everything = drills.chosen([], long=True)
    assert everything == {name: drill.long for name, drill in drills.DRILLS.items()}


@pytest.mark.parametrize(
    ("word", "words"),
    [("nonsense", "unknown; there are rollout-kills"), ("poison=x", "no number of times"), ("poison=0", "no number")],
)
def test_a_drill_that_is_none_is_one_sentence(word: str, words: str):
    told = CliRunner().invoke(app, ["chaos", word])
    assert told.exit_code == 2
    assert words in told.stderr
    assert "\n" not in told.stderr.strip()


def test_every_drill_is_listed():
    told = CliRunner().invoke(app, ["chaos", "--list"])
    assert told.exit_code == 0
    assert [line.split()[0] for line in told.stdout.splitlines()] == list(drills.DRILLS)


def test_the_environment_that_overflows_is_known_by_its_entry_point_and_does_so_at_its_steps_alone(tmp_path):
    code = """import envs
game = envs.make("chaos-overflow", steps=[1])
for step, index in ((0, 0), (1, 0), (1, 1)):
    task = game.sample(7, "train", step, index)
    judge = envs.make(task.environment, **task.options)  # as a verifier does
    print(judge.verify(task, judge.start(task), "four")[0].reward)"""
    path = os.pathsep.join([str(overflow.installed(tmp_path / "known")), *sys.path])
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": path}
    )
    assert found.stdout.split() == ["1.0", "3e+38", "1.0"], found.stderr


def test_what_did_not_hold_is_seen(tmp_path):
    good = Outcome(drill="a", faults=2, claims=(Claim("it lives", True),), numbers={"lost": 0}, seconds=1.4)
    bad = Outcome(drill="b", faults=1, claims=(Claim("it lives", True), Claim("all there", False)))
    assert (good.held, bad.held) == (True, False)
    assert "| a | 2 | it lives | yes | lost 0 | 1 s |" in table([good, bad])
    assert "**not: all there** | **no** |" in table([good, bad])
    save([good, bad], tmp_path / "x" / "chaos.json")
    assert [each["drill"] for each in json.loads((tmp_path / "x" / "chaos.json").read_text())["drills"]] == ["a", "b"]
