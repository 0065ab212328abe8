"""Where a model comes from, and every way in which it can be unusable."""

import json
from pathlib import Path

import pytest

from envs.base import ConfigError, DataError
from trainers.checkpoint import model_digest
from trainers.checkpoints import CheckpointInfo, Checkpoints
from trainers.sources import model_directory


def model(directory: Path, **config: object) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


def test_a_directory_is_itself(tmp_path: Path):
    assert model_directory(str(model(tmp_path / "m")), store=str(tmp_path)) == tmp_path / "m"


def test_a_checkpoint_is_named_by_run_and_step(tmp_path: Path):
    info = CheckpointInfo(parents=(), metrics={}, compute={}, config={}, world_size=1)
    Checkpoints(tmp_path, "init").commit(3, lambda staged: model(staged / "model"), info)
    for name in ("init@step-000003", "init@latest"):
        assert (model_directory(name, store=str(tmp_path)) / "model.safetensors").read_bytes() == b"weights"


def test_weights_of_another_digest_are_refused(tmp_path: Path):
    directory = model(tmp_path / "m")
    assert model_directory(str(directory), store=str(tmp_path), digest=model_digest(directory)) == directory
    with pytest.raises(DataError, match="its weights have digest"):
        model_directory(str(directory), store=str(tmp_path), digest="0" * 64)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "just-a-word"])
def test_a_name_that_fits_nothing_says_what_does(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match="allowed are `nano`, a directory"):
        model_directory(name, store=str(tmp_path))


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="init"):
        model_directory("init@step-000040", store=str(tmp_path))


def test_a_model_that_would_run_its_own_code_is_refused(tmp_path: Path):
    directory = model(tmp_path / "m", auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(DataError, match="auto_map"):
        model_directory(str(directory), store=str(tmp_path))


def test_pickled_weights_are_not_read(tmp_path: Path):
    directory = model(tmp_path / "m")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(DataError, match="holds no safetensors"):
        model_directory(str(directory), store=str(tmp_path))
