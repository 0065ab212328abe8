import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainers.nano.model import NanoSize, create


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return create(tmp_path_factory.mktemp("nano"), seed=3)


def test_the_model_loads_as_any_hugging_face_model_does(directory):
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert 500_000 < sum(p.numel() for p in model.parameters()) < 1_000_000
    assert model.dtype == torch.float32
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(directory))
    assert model.generation_config.eos_token_id == AutoTokenizer.from_pretrained(directory).eos_token_id


def test_its_embeddings_are_untied(directory):
    assert json.loads((directory / "config.json").read_text())["tie_word_embeddings"] is False
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert not torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight)


def test_the_seed_alone_decides_every_byte(directory, tmp_path):
    torch.manual_seed(99)
    untouched = torch.random.get_rng_state()
    again, other = create(tmp_path / "again", seed=3), create(tmp_path / "other", seed=4)
    assert torch.equal(torch.random.get_rng_state(), untouched)
    for file in directory.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name
    assert (other / "model.safetensors").read_bytes() != (directory / "model.safetensors").read_bytes()


def test_another_size_is_another_shape(tmp_path):
    small = AutoModelForCausalLM.from_pretrained(
        create(tmp_path, size=NanoSize(hidden=64, layers=2, heads=2, intermediate=96))
    )
    assert small.config.head_dim == 32
    assert small.num_parameters() < 200_000
