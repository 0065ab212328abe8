"""Is this directory a model an engine can start from? Answered in milliseconds, before vLLM looks. No vLLM here."""

import json
from pathlib import Path
from typing import Any

from envs.base import DataError

TensorShapes = dict[str, tuple[int, ...]]


def read_config(model_dir: Path) -> dict[str, Any]:
    """The model's config.json.

    Raises:
        DataError: it is missing, unreadable or names no architecture.
    """
    if not model_dir.is_dir():
        raise DataError(f"{model_dir}: no such model directory; give one with config.json and *.safetensors")
    try:
        config = json.loads((model_dir / "config.json").read_text())
    except FileNotFoundError:
        raise DataError(f"{model_dir}: config.json is missing; give a directory in Hugging Face format") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{model_dir}/config.json: cannot be read ({error}); save the model again") from None
    if not isinstance(config, dict) or not config.get("architectures"):
        raise DataError(f"{model_dir}/config.json: names no architecture under `architectures`; save the model again")
    return config


def ties_embeddings(model_dir: Path, config: dict[str, Any]) -> bool:
    """Whether output and input embeddings are one tensor, by the config or, where it is silent, its class's default."""
    told = config.get("tie_word_embeddings", config.get("text_config", {}).get("tie_word_embeddings"))
    if told is not None:
        return bool(told)
    from transformers import AutoConfig

    try:
        return bool(AutoConfig.from_pretrained(str(model_dir)).tie_word_embeddings)
    except (ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{model_dir}/config.json: transformers does not know this model ({reason})") from None


def cache_bytes_per_token(model_dir: Path, width: int) -> int:
    """Bytes of keys and values that one token holds, `width` bytes a number; 0 where the config does not tell."""
    config = read_config(model_dir)
    config = config.get("text_config", config)
    layers, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    if not layers or not heads or not config.get("hidden_size"):
        return 0
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return int(2 * layers * (config.get("num_key_value_heads") or heads) * head_dim * width)


def tensor_shapes(model_dir: Path) -> TensorShapes:
    """Name and shape of every tensor of the directory's safetensors files.

    Raises:
        DataError: there are none, one that the index names is missing, or one is truncated.
    """
    from safetensors import SafetensorError, safe_open

    shapes: TensorShapes = {}
    for path in safetensors_files(model_dir):
        try:
            with safe_open(str(path), framework="numpy") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path}: not a whole safetensors file ({error}); copy or save the model again") from None
    return shapes


def safetensors_files(model_dir: Path) -> list[Path]:
    """The files that hold the weights, in order.

    Raises:
        DataError: there are none, or the index names one that is not there.
    """
    index = model_dir / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(map(str, json.loads(index.read_text())["weight_map"].values())))
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise DataError(f"{index}: not a weight index; save the model again") from None
        if odd := [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]:
            raise DataError(f"{index}: it names {odd[0]!r}, which is no *.safetensors beside it; save the model again")
        files = [model_dir / name for name in names]
    else:
        files = sorted(model_dir.glob("*.safetensors"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        what = f"{missing[0]} is missing" if missing else "holds no *.safetensors"
        raise DataError(f"{model_dir}: {what}; only safetensors are loaded, save the model in that format")
    return files
