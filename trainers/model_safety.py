"""What a model directory must not hold: refused before anything of it is loaded or runs. Imports without torch.

Only safetensors are loaded, code of a model's own never runs, and its one program that has to run, the chat template,
is tried first in a process with little time and memory. A template that waits for certain words before it misbehaves
passes this trial; the service's deadline is what is left against it.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from envs.base import DataError
from trainers import template_probe

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5")
SETTINGS = (
    "config.json", "generation_config.json", "tokenizer_config.json", "processor_config.json",
    "preprocessor_config.json", "video_preprocessor_config.json", "chat_template.json",
)  # fmt: skip
SETTINGS_BYTES = 16 << 20  # a tokenizer_config.json with its added tokens takes 1 or 2 MiB
TEMPLATE_CHARACTERS = 128 << 10  # the longest of known models take 20,000
TRIAL_S = 30.0  # of the clock, on a busy machine; the process itself stops after seconds of CPU


def refuse_unsafe(directory: Path) -> None:
    """Let a Hugging Face directory pass, or say what it must not hold.

    Raises:
        DataError: a pickle, code of its own, settings that are no JSON object, or a chat template out of bounds.
    """
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.suffix.lower() in PICKLES:
            raise DataError(
                f"{path}: {path.suffix} files are never loaded; keep safetensors alone in a model directory"
            )
    settings = {name: _settings(directory / name) for name in SETTINGS if (directory / name).exists()}
    for name, values in settings.items():
        if key := _asks_for_code(values):
            raise DataError(
                f"{directory / name}: `{key}` asks to run the model's own code, which is never done; "
                "use a model that transformers knows"
            )
    for name, template in _templates(directory, settings):
        if len(template) > TEMPLATE_CHARACTERS:
            raise DataError(
                f"{directory / name}: the chat template has {len(template)} characters, at most {TEMPLATE_CHARACTERS} "
                "are read; shorten it"
            )
        if not is_bounded(template):
            raise DataError(
                f"{directory / name}: the chat template does not end, or writes without end, on a few short messages; "
                "use the template of the model's family"
            )


@lru_cache(maxsize=64)
def is_bounded(template: str) -> bool:
    """Whether short conversations render in seconds and megabytes; tried in a process that ends with its limits."""
    command = [sys.executable, "-I", template_probe.__file__]
    try:
        return (
            subprocess.run(
                command, input=template.encode(errors="replace"), capture_output=True, timeout=TRIAL_S
            ).returncode
            == 0
        )
    except subprocess.TimeoutExpired:
        return False


def _settings(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > SETTINGS_BYTES:
            raise DataError(f"{path}: larger than {SETTINGS_BYTES} bytes, which no settings are; save the model again")
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: cannot be read ({reason}); save the model again") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: not a JSON object; save the model again")
    return values


def _asks_for_code(values: Any) -> str | None:
    """The key, at any depth, by which transformers would look for Python files of the model."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("auto_map"):
                return "auto_map"
            if value.get("trust_remote_code"):
                return "trust_remote_code"
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return None


def _templates(directory: Path, settings: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Every chat template of the directory, with the file it stands in."""
    for path in [directory / "chat_template.jinja", *sorted(directory.glob("additional_chat_templates/*.jinja"))]:
        if path.is_file():
            with path.open(errors="replace") as file:
                yield str(path.relative_to(directory)), file.read(TEMPLATE_CHARACTERS + 1)
    for name in ("tokenizer_config.json", "processor_config.json", "chat_template.json"):
        told = settings.get(name, {}).get("chat_template")
        named = told.values() if isinstance(told, dict) else told if isinstance(told, list) else [told]
        for entry in named:
            template = entry.get("template") if isinstance(entry, dict) else entry
            if isinstance(template, str):
                yield name, template
