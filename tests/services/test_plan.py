from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import app

RUNS = Path(__file__).parents[2] / "deploy" / "runs"


def planned(*arguments: str):
    return CliRunner().invoke(app, ["plan", *arguments])


def test_a_plan_tells_memory_and_a_line_for_each_number_of_iterations():
    found = planned(str(RUNS / "llama-3.1-8b-gp-l.yaml"), "--viter", "1", "--viter", "10", "--card", "h200")
    assert found.exit_code == 0, found.output
    assert "8,000,000,000 parameters on H200 cards" in found.output
    assert "GiB (weights, gradients, AdamW at ZeRO 3" in found.output
    rows = [line.split() for line in found.output.splitlines() if line.strip().startswith(("1 ", "10 "))]
    assert [(row[0], row[1]) for row in rows] == [("1", "8"), ("10", "8")]


def test_a_curriculum_is_forecast_for_each_of_its_numbers_and_as_a_whole():
    found = planned(str(RUNS / "llama-3.1-8b-gp-l.yaml"), "--set", "ppo.viter=[[0, 2], [6, 7], [12, 2]]")
    assert found.exit_code == 0, found.output
    rows = [line.split() for line in found.output.splitlines() if line.strip().startswith(("2 ", "7 "))]
    assert [row[0] for row in rows] == ["2", "7"]
    few, many = (float(row[11]) for row in rows)  # seconds of a synchronous step
    last = found.output.splitlines()[-1]
    assert "viter 2 at first, 7 after 6 steps, 2 after 12 steps: " in last
    assert float(last.partition("steps: ")[2].split()[0]) == pytest.approx(14 * few + 6 * many, abs=2)


def test_what_cannot_be_forecast_is_one_sentence(tmp_path):
    found = planned(str(RUNS / "nano-base.yaml"))
    assert (found.exit_code, found.stderr) == (2, "viter: ppo: this run file has no PPO stage to forecast; add one\n")
    found = planned(str(RUNS / "nano-gp-l.yaml"), "--like", "nano-ppo", "--set", f"store.uri={tmp_path}")
    assert found.exit_code == 3
    assert "holds no PPO stage of that name" in found.stderr
