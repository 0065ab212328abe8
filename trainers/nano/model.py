"""Small transformers with random weights, in the form every Hugging Face tool loads: one that reads, and one that sees.

reads   Qwen3-shaped                                              0.8M parameters
sees    Idefics3-shaped: a SigLIP-like tower ─► 4 patches to 1 ─► a Llama-shaped language model     1.4M
"""

import json
from pathlib import Path
from typing import Any

from envs.base import Config
from trainers.chat import ChatFormat
from trainers.nano import tokenizer


class NanoSize(Config):
    """Shape of a nano model. The default has about 0.8M parameters, and 0.6M more where it sees."""

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
    image_side: int = 128
    """Side of the pictures that it sees, in pixels; others are resized to it."""
    patch: int = 16
    """Side of a patch of the vision tower, in pixels. Four patches become one token."""
    vision_layers: int = 3
    """Transformer blocks of the vision tower, as wide as the language model."""


def create(
    directory: Path, *, seed: int = 0, size: NanoSize | None = None, environment: str = "general_points",
    sees: bool = False,
) -> Path:  # fmt: skip
    """`directory`, with weights, tokenizer and generation config. The same arguments give the same bytes.

    Args:
        environment: whose phrases the tokenizer holds as single tokens.
        sees: a vision-language model, with its image processor.
    """
    from transformers.utils import logging

    from trainers.nano.phrases import phrases

    logging.set_verbosity_error()  # it warns of Idefics3's own defaults, and draws a bar for each file
    logging.disable_progress_bar()
    size = size or NanoSize()
    directory.mkdir(parents=True, exist_ok=True)
    words = tokenizer.build(phrases(environment, sees=sees), sees=sees)
    if sees:
        _processor(size, words).save_pretrained(str(directory))
        _name_pillow(directory / "processor_config.json")
    else:
        words.save_pretrained(str(directory))
    chat = ChatFormat.load(directory)
    (_seeing_model if sees else _reading_model)(size, words, seed).save_pretrained(str(directory))
    generation = {
        "bos_token_id": chat.tokenizer.bos_token_id,
        "eos_token_id": chat.end_id,
        "pad_token_id": chat.tokenizer.pad_token_id,
    }
    (directory / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    return directory


def _reading_model(size: NanoSize, words: Any, seed: int) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(**_language(size, words), dtype="float32")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).float()


def _seeing_model(size: NanoSize, words: Any, seed: int) -> Any:
    import torch
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    config = Idefics3Config(
        text_config={"model_type": "llama", **_language(size, words)},
        vision_config={
            "hidden_size": size.hidden,
            "intermediate_size": size.intermediate,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": size.heads,
            "image_size": size.image_side,
            "patch_size": size.patch,
        },
        image_token_id=words.convert_tokens_to_ids(tokenizer.IMAGE),
        scale_factor=2,
        tie_word_embeddings=False,
        pad_token_id=words.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Idefics3ForConditionalGeneration(config).float()


def _language(size: NanoSize, words: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(words),
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "head_dim": size.hidden // size.heads,
        "intermediate_size": size.intermediate,
        "max_position_embeddings": size.max_positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "tie_word_embeddings": False,  # vLLM's weight update of tied embeddings is silently wrong on CPU
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }


def _processor(size: NanoSize, words: Any) -> Any:
    """The processor of pictures of one size, never cut into tiles."""
    from transformers import Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    side = {"longest_edge": size.image_side}
    eyes = Idefics3ImageProcessorPil(
        do_image_splitting=False, size=side, max_image_size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    tokens = (size.image_side // size.patch) ** 2 // 4
    return Idefics3Processor(eyes, words, image_seq_len=tokens, chat_template=words.chat_template)


def _name_pillow(path: Path) -> None:
    """Ask for the image processor that needs Pillow alone, so that every machine prepares the same numbers."""
    settings = json.loads(path.read_text())
    settings["image_processor"]["image_processor_type"] = "Idefics3ImageProcessorPil"
    path.write_text(json.dumps(settings, indent=2) + "\n")
