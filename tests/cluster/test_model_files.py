"""What is read of a model directory before vLLM looks at it."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cluster.engine.model_files import tensor_shapes
from envs.base import DataError

INDEX = "model.safetensors.index.json"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "store" / "model"
    path.mkdir(parents=True)
    for place in (path, tmp_path):
        save_file({"w": np.zeros((2, 3), np.float32)}, place / "a.safetensors")
    return path


def test_an_index_names_the_files_that_are_read(directory: Path):
    save_file({"left out": np.zeros(1, np.float32)}, directory / "b.safetensors")
    (directory / INDEX).write_text(json.dumps({"weight_map": {"w": "a.safetensors"}}))
    assert tensor_shapes(directory) == {"w": (2, 3)}


@pytest.mark.parametrize("name", ["../../a.safetensors", "/etc/hostname", "a.bin", "", "x/../a.safetensors", 3])
def test_an_index_that_leads_elsewhere_is_refused(directory: Path, name: object):
    (directory / INDEX).write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(DataError, match=r"which is no \*\.safetensors beside it"):
        tensor_shapes(directory)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"weight_map": 1}', "[" * 100_000, '{"weight_map": {"w": "no.safetensors"}}']
)
def test_an_index_that_is_none_is_one_sentence(directory: Path, text: str):
    (directory / INDEX).write_text(text)
    with pytest.raises(DataError):
        tensor_shapes(directory)
