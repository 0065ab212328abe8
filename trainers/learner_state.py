"""A learner's weights and state as files, whole whatever the sharding: saved at one world size, restored at another.

    model/      a Hugging Face directory: config, safetensors, tokenizer and image processor
    learner/    state.json: the counters
                state-00000.safetensors, …: of each parameter `master.NAME`, `exp_avg.NAME`, `exp_avg_sq.NAME`

Parameters are gathered one at a time, so no rank but the writer ever holds the whole; the writer flushes a file every
few GB. Nothing here is pickled.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from envs.base import DataError
from trainers.compute import Compute
from trainers.deepspeed_engine import (
    adam_step,
    full_state,
    gathered,
    link_moments,
    make_moments,
    publish_master_weights,
    set_full_state,
)

FILE_BYTES = 4 << 30  # of one state file: bounds the writer's memory
TOKENIZER_FILES = (
    "*tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*",
    "*processor_config.json", "generation_config.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Where a learner stands, beside its tensors."""

    steps_done: int
    updates_done: int
    nonfinite_skips: int
    spent: Compute


def save_model(model: Any, source: Path, directory: Path, *, is_writer: bool) -> None:
    """The model as a Hugging Face directory, with the tokenizer files of `source`. Collective; one rank writes."""
    state = {name: tensor for name, tensor in gathered(model) if is_writer}
    if not is_writer:
        return
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory, state_dict=state)
    for pattern in TOKENIZER_FILES:
        for file in source.glob(pattern):
            shutil.copyfile(file, directory / file.name)


def save_state(engine: Any, counters: Counters, directory: Path, *, is_writer: bool) -> None:
    """Master weights and moments, gathered parameter by parameter. Collective; one rank writes."""
    if is_writer:
        directory.mkdir(parents=True, exist_ok=True)
    if engine.zero_optimization() and adam_step(engine):
        link_moments(engine)
    pending: dict[str, Tensor] = {}
    files = 0
    for name, parameter in _trained(engine):
        tensors = full_state(engine, parameter)
        if is_writer:
            pending |= {f"{kind}.{name}": tensor for kind, tensor in tensors.items()}
            if sum(t.nbytes for t in pending.values()) > FILE_BYTES:
                save_file(pending, directory / f"state-{files:05d}.safetensors")
                pending, files = {}, files + 1
    if is_writer:
        save_file(pending, directory / f"state-{files:05d}.safetensors")
        record = asdict(counters) | {"adam_step": adam_step(engine)}
        (directory / "state.json").write_text(json.dumps(record, indent=1))


def load_state(engine: Any, directory: Path) -> Counters:
    """Bring an engine to a saved state. Every rank reads; under sharding each keeps its part.

    Raises:
        DataError: files are missing or belong to another model.
    """
    try:
        record = json.loads((directory / "state.json").read_text())
        files = sorted(directory.glob("state-*.safetensors"))
        parameters = dict(_trained(engine))
        missing = set(parameters)
        make_moments(engine, record.pop("adam_step"))
        for file in files:
            for key, value in _by_parameter(load_file(file)):
                if key not in parameters:
                    raise DataError(
                        f"{file}: holds {key}, which this model does not have or does not train; it is the state of "
                        "another model, or of another setting of model.freeze"
                    )
                set_full_state(engine, parameters[key], value)
                missing.discard(key)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{directory}: the learner's state cannot be read: {error}") from None
    if missing:
        raise DataError(f"{directory}: the learner's state lacks {len(missing)} parameters, first {min(missing)}")
    publish_master_weights(engine)
    return Counters(**{**record, "spent": Compute.from_dict(record["spent"])})


def _trained(engine: Any) -> Iterator[tuple[str, Any]]:
    """The parameters that have a state: frozen ones stay as the model's files have them."""
    return ((name, value) for name, value in engine.module.named_parameters() if value.requires_grad)


def _by_parameter(tensors: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        grouped.setdefault(name, {})[kind] = tensor
    yield from grouped.items()
