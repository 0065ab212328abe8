"""`viter replay`: what a quarantined episode says when it is judged, or played, once more."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.config import RunConfig
from cluster.quarantine import Artefact, Case, Death, artefact
from cluster.rollout import Quarantined
from cluster.rollout_spec import RolloutSpec
from envs.base import validated
from envs.task import Status
from services.cli import app
from services.replay import weights_of
from tests.services.conftest import commit
from trainers.nano.model import create

ENGINE = {"dtype": "float32", "prefix_cache": False, "max_model_len": 256, "kv_cache_gib": 0.1}
RUN = {"name": "run", "ppo": {"steps": 4, "viter": 2, "answer_tokens": 16}, "rollout": {"engine": ENGINE}}
SPEC = RolloutSpec.of(validated(RunConfig, RUN, source="test"), "nano-source")
DIED = Case(
    step=3, index=5, reason="5 died", time=1.0, worker="w", weight_version=3,
    deaths=(Death(worker="w", time=1.0, reason="killed"),),
)  # fmt: skip


def written(folder: Path, case: Case, spec: RolloutSpec = SPEC) -> Path:
    path = folder / "episode.json"
    path.write_text(artefact(case, spec, run="run-ppo").told())
    return path


def replayed(path: Path, *words: str) -> list[dict[str, object]]:
    result = CliRunner().invoke(app, ["replay", str(path), *words])
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_answer_that_no_verifier_could_judge_is_judged_here(tmp_path: Path):
    environment = SPEC.environment_at(3)
    task = environment.sample(0, "train", 3, 5)
    state = environment.start(task)
    answer = environment.expert(task, state, 0)
    outcome = Quarantined(task=task, status=Status.TIMEOUT, reason="slow", state=state, answer=answer)
    (line,) = replayed(written(tmp_path, replace(DIED, deaths=(), outcome=outcome)))
    assert (line["answer"], line["status"], line["terminated"]) == (answer, "correct", True)


def test_an_episode_whose_task_could_not_be_drawn_is_one_sentence(tmp_path: Path):
    path = written(tmp_path, DIED, replace(SPEC, environment="gone"))
    result = CliRunner().invoke(app, ["replay", str(path)])
    assert result.exit_code == 3
    assert "could not be drawn" in result.stderr


def test_the_weights_are_those_it_was_sampled_with_or_the_nearest_before(tmp_path: Path):
    for step in (2, 3, 4):
        commit(tmp_path, "run-ppo", step)
    said: list[str] = []

    def weights(version: int) -> str:
        return weights_of(episode.model_copy(update={"weight_version": version}), str(tmp_path), said.append)

    episode = Artefact.load(written(tmp_path, DIED))
    assert (weights(0), weights(3)) == ("nano-source", "run-ppo@step-000003")
    assert said == []
    assert (weights(1), weights(9)) == ("nano-source", "run-ppo@step-000004")
    assert ["step 1" in said[0], "step 9" in said[1]] == [True, True]


@pytest.mark.slow
def test_an_episode_that_killed_its_workers_is_played_again_with_the_same_tokens(tmp_path: Path):
    path, model = written(tmp_path, DIED), create(tmp_path / "nano", seed=0)
    first = replayed(path, "--checkpoint", str(model))
    assert 1 <= len(first) <= 2
    assert replayed(path, "--checkpoint", str(model)) == first
