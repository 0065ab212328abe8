"""Models from Hugging Face directories: loaded in the settings' type, and which of their parts are trained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.core_model_loading import revert_weight_conversion

from envs.base import ConfigError, DataError
from trainers.config import ModelConfig

VISION = ("vision_model", "vision_tower", "visual", "vision_encoder")
PROJECTOR = ("connector", "multi_modal_projector", "merger", "deepstack_merger_list", "mm_projector", "embed_vision")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_model(directory: Path, config: ModelConfig) -> Any:
    """The model of a Hugging Face directory, in the type and with the attention the settings name, frozen as they say.

    Raises:
        DataError: there is no such model, or its files are damaged.
        ConfigError: it has no such part to freeze.
    """
    try:
        sees = hasattr(AutoConfig.from_pretrained(directory), "vision_config")
        kind = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        model = kind.from_pretrained(
            directory, dtype=DTYPES[config.dtype], attn_implementation=config.attention, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{directory}: not a language model that transformers loads: {error}") from None
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    freeze(model, config.freeze)
    return model


def saved(model: Any, name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor of the model under the name, or names, that it has in files: engines read those.

    transformers renames the parts of some models while loading (Qwen-VL's language model among them).
    """
    yield from revert_weight_conversion(model, {name: tensor}).items()


def part_of(name: str) -> str:
    """`vision`, `projector` or `language`: the part of a vision-language model that a parameter belongs to, by its name.

    The projector comes first: Qwen's `visual.merger` lies within the tower and is what maps its features to tokens.
    """
    words = name.split(".")
    if any(word in PROJECTOR for word in words):
        return "projector"
    return "vision" if any(word in VISION for word in words) else "language"


def freeze(model: nn.Module, parts: tuple[str, ...]) -> None:
    """Let the parameters of these parts be. Raises ConfigError where the model lacks one, or nothing is left to train."""
    found = {name: part_of(name) for name, _ in model.named_parameters()}
    for part in parts:
        if part not in found.values():
            raise ConfigError(f"model.freeze: {part}: this model has no such part; it has {_told(set(found.values()))}")
    if parts and set(found.values()) <= set(parts):
        raise ConfigError(f"model.freeze: {_told(set(parts))}: nothing would be left to train")
    for name, parameter in model.named_parameters():
        if found[name] in parts:
            parameter.requires_grad_(False)


def _told(parts: set[str]) -> str:
    return ", ".join(sorted(parts))
