"""What an order leaves open is filled in as the checkpoint trained, and what cannot be played is refused at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envs.base import ConfigError, DataError
from services.evaluations.orders import EvaluationOrder
from services.evaluations.settled import asks_for, settled
from tests.services.reports.walks import registered
from trainers.checkpoints import Checkpoint, CheckpointInfo, Checkpoints


@pytest.fixture(autouse=True)
def walks() -> Iterator[None]:
    with registered():
        yield


def checkpoint(store: Path, config: dict[str, Any]) -> Checkpoint:
    def write(directory: Path) -> None:
        (directory / "model").mkdir()
        (directory / "model" / "weights").write_text("w")

    info = CheckpointInfo(parents=(), metrics={}, compute={}, config=config, world_size=1)
    return Checkpoints(store, "a").commit(1, write, info)


def order(**fields: Any) -> EvaluationOrder:
    return EvaluationOrder(checkpoint="a@latest", n=2, viter=3, **fields)


@pytest.fixture
def trained(tmp_path: Path) -> Checkpoint:
    options = {"modality": "vision", "town": "here", "resolution": 64}
    return checkpoint(tmp_path, {"environment": {"name": "walks", "options": options}})


def test_an_order_that_names_only_a_checkpoint_is_played_as_it_trained(trained: Checkpoint):
    found = settled(order(), trained)
    assert (found.environment, found.modality) == ("walks", "vision")
    assert found.suites == ("walks/vision-id", "walks/vision-ood-rule")
    assert found.options == {"resolution": 64}


def test_what_an_order_says_stands(trained: Checkpoint):
    found = settled(order(modality="language", options={"resolution": 32}), trained)
    assert found.suites == ("walks/id", "walks/ood-rule")
    assert found.options == {"resolution": 32}


def test_suites_of_another_environment_take_nothing_of_the_training(trained: Checkpoint):
    assert settled(order(suites=["general_points/id"]), trained).options == {}
    assert settled(order(environment="general_points"), trained).suites == (
        "general_points/id",
        "general_points/ood-rule",
    )


def test_a_checkpoint_that_says_nothing_plays_general_points(tmp_path: Path):
    found = settled(order(), checkpoint(tmp_path, {}))
    assert found.suites == ("general_points/id", "general_points/ood-rule")


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"options": {"town": "there"}}, ConfigError, r"^walks options: town: a suite fixes it"),
        ({"options": {"resolution": 1}}, ConfigError, r"^walks options: resolution: 1: "),
        ({"suites": ["walks/nowhere"]}, DataError, r"^suite 'walks/nowhere' is unknown"),
        ({"environment": "chess"}, ConfigError, r"^environment 'chess' is unknown"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_sentence(trained: Checkpoint, fields: dict, error: type, says: str):
    with pytest.raises(error, match=says):
        settled(order(**fields), trained)


def test_viter_stands_in_its_own_key():
    with pytest.raises(ValueError, match="`viter` has a key of its own"):
        order(options={"viter": 2})


def test_the_same_order_is_known_again_and_another_is_not(trained: Checkpoint):
    known = settled(order(), trained)
    assert asks_for(order(), known)
    assert asks_for(order(options={"resolution": 64}, modality="vision"), known)
    assert not asks_for(order(options={"resolution": 32}), known)
    assert not asks_for(order(modality="language"), known)
    assert not asks_for(order(decoding={"seed": 1}), known)
