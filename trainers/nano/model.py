"""A small Qwen3-shaped transformer with random weights, in the form every Hugging Face tool loads."""

import json
from pathlib import Path
from typing import Any

from envs.base import Config
from trainers.chat import ChatFormat
from trainers.nano import tokenizer


class NanoSize(Config):
    """Shape of a nano model. The default has about 0.8M parameters."""

    hidden: int = 128
    """Width of the residual stream."""
    layers: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads, of `hidden / heads` each."""
    intermediate: int = 256
    """Width of the SwiGLU."""
    max_positions: int = 1024
    """Longest sequence, in tokens."""


def create(directory: Path, *, seed: int = 0, size: NanoSize | None = None) -> Path:
    """`directory`, with weights, tokenizer and generation config. The same seed and size give the same bytes."""
    from trainers.nano.phrases import phrases

    size = size or NanoSize()
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(directory, phrases())
    chat = ChatFormat.load(directory)
    _random_model(size, chat.tokenizer, seed).save_pretrained(str(directory))
    generation = {
        "bos_token_id": chat.tokenizer.bos_token_id,
        "eos_token_id": chat.end_id,
        "pad_token_id": chat.tokenizer.pad_token_id,
    }
    (directory / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    return directory


def _random_model(size: NanoSize, words: Any, seed: int) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(words),
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        head_dim=size.hidden // size.heads,
        intermediate_size=size.intermediate,
        max_position_embeddings=size.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        tie_word_embeddings=False,  # vLLM's weight update of tied embeddings is silently wrong on CPU
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).float()
