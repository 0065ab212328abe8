"""From the name of a model in a run file to a local Hugging Face directory. Imports without torch."""

import json
from pathlib import Path

from envs.base import ConfigError, DataError
from trainers import checkpoints
from trainers.checkpoint import model_digest
from trainers.model_safety import refuse_unsafe


def model_directory(source: str, *, store: str, digest: str | None = None) -> Path:
    """The directory that `ModelConfig.source` names: config.json, safetensors and tokenizer.

    Args:
        source: a directory, `RUN@step-000040` or `RUN@ALIAS` of the store, or a Hugging Face hub name.
        store: where checkpoints are looked up; one that is remote is fetched into this machine's cache.
        digest: if given, the weights must have it (`trainers.checkpoint.model_digest`).
    Raises:
        ConfigError: the name fits nothing.
        DataError: the model is missing, damaged or has another digest.
    """
    if "@" in source:
        directory = checkpoints.materialise(checkpoints.resolve(store, source), learner=False) / "model"
    elif Path(source).is_dir():
        directory = Path(source)
    else:
        directory = _from_hub(source)
    _check(directory, source)
    if digest and (found := model_digest(directory)) != digest:
        raise DataError(f"model.source {source}: its weights have digest {found[:12]}, the run file says {digest[:12]}")
    return directory


def _from_hub(name: str) -> Path:
    if name.startswith((".", "/")) or name.count("/") != 1:
        raise ConfigError(
            f"model.source {name}: no such directory; "
            "allowed are `nano`, a directory, RUN@step-000040, RUN@latest or a hub name OWNER/MODEL"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        raise DataError(
            f"model.source {name}: cannot be fetched from the hub ({type(error).__name__}); "
            "give a local directory instead"
        ) from None


def _check(directory: Path, source: str) -> None:
    try:
        json.loads((directory / "config.json").read_text())
    except (OSError, ValueError):
        raise DataError(f"model.source {source}: {directory}/config.json is missing or not JSON") from None
    if not any(directory.glob("*.safetensors")):
        raise DataError(f"model.source {source}: {directory} holds no safetensors; other weight formats are not read")
    refuse_unsafe(directory)
