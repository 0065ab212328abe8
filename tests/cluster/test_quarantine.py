"""What a quarantined episode leaves: enough to draw its task, its seeds and its answers again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.config import RunConfig
from cluster.quarantine import Artefact, Case, Death, artefact
from cluster.rollout import Heard, Quarantined, turn_seeds
from cluster.rollout_spec import RolloutSpec
from envs.base import DataError, validated
from envs.task import Status
from tests.cluster.players import WRONG

PPO = {"steps": 4, "viter": [[0, 1], [2, 3]], "deals": 5, "seed": 7, "answer_tokens": 32, "temperature": 0.7}
CONFIG = validated(RunConfig, {"name": "run", "ppo": PPO}, source="test")
SPEC = RolloutSpec.of(CONFIG, "run-start@step-000000")
DEATHS = tuple(Death(worker=f"rollout-0.{n}", time=100.0 + n, reason="killed") for n in range(5))


def kept(case: Case, spec: RolloutSpec, folder: Path) -> Artefact:
    """As it comes back from its file."""
    path = folder / "episode.json"
    path.write_text(artefact(case, spec, run="run-ppo").told())
    return Artefact.load(path)


def test_an_episode_that_killed_its_workers_can_be_played_again(tmp_path: Path):
    case = Case(step=3, index=5, reason="5 died", time=105.0, worker="rollout-0.5", weight_version=3, deaths=DEATHS)
    found = kept(case, SPEC, tmp_path)
    assert found.task == SPEC.environment_at(3).sample(7, "train", 3, 5)
    assert found.task is not None
    assert (found.task.options["viter"], found.task.options["deals"]) == (3, 5)
    assert found.turn_seeds == tuple(turn_seeds(7, 3, 5)(turn) for turn in range(3))
    assert (found.decoding, found.engine, found.source) == (SPEC.decoding, SPEC.engine, "run-start@step-000000")
    assert (found.deaths, found.weight_version, found.answer, found.heard) == (DEATHS, 3, None, ())


def test_an_answer_that_no_verifier_could_judge_stands_in_it_with_the_turns_before(tmp_path: Path):
    environment = SPEC.environment_at(2)
    task = environment.sample(7, "train", 2, 0)
    start = environment.start(task)
    verdict, after = environment.verify(task, start, WRONG)
    turn = Heard(answer=WRONG, tokens=4, finish_reason="stop", verdict=verdict, before=start, after=after)
    outcome = Quarantined(
        task=task,
        status=Status.CRASHED,
        reason="boom",
        state=after,
        answer="\u2028 24",
        heard=(turn,),
        weight_version=1,
    )
    case = Case(step=2, index=0, reason="crashed: boom", time=1.0, worker="w", weight_version=1, outcome=outcome)
    found = kept(case, SPEC, tmp_path)
    assert (found.task, found.state, found.answer, found.heard) == (task, after, "\u2028 24", (turn,))
    assert (found.reason, found.deaths, found.weight_version) == ("crashed: boom", (), 1)


def test_a_task_that_cannot_be_drawn_leaves_the_rest(tmp_path: Path):
    """The draw may be what ended the workers: it does not end who writes the file."""
    case = Case(step=0, index=0, reason="5 died", time=1.0, worker="w", weight_version=0, deaths=DEATHS)
    found = kept(case, replace(SPEC, environment="gone"), tmp_path)
    assert found.task is None
    assert (found.seed, found.step, found.index) == (7, 0, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "No such file"), ("{", "not JSON"), ('{"run": "x"}', "required"), (json.dumps([1]), "top level")],
)
def test_a_file_that_is_none_is_one_sentence(tmp_path: Path, text: str | None, words: str):
    path = tmp_path / "odd.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=words):
        Artefact.load(path)
