"""A learner's weights and state as files, whole whatever the sharding: saved at one world size, restored at another.

    model/      a Hugging Face directory: config, safetensors, tokenizer
    learner/    state.json: the counters
                state-00000.safetensors, …: of each parameter `master.NAME`, `exp_avg.NAME`, `exp_avg_sq.NAME`

Parameters are gathered one at a time, so no rank but the writer ever holds the whole; the writer flushes a file every
few GB. Nothing here is pickled.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from envs.base import DataError
from trainers.compute import Compute

MOMENTS = ("exp_avg", "exp_avg_sq")
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


def gathered(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, copy on the host) of every parameter and persistent buffer, each shared one once. Collective."""
    seen: set[int] = set()
    for name, value in module.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            with _whole(value):
                # ZeRO-3 frees the gathered tensor on exit: copy inside the context
                copy = value.detach().to("cpu", copy=True)
            yield name, copy


def _whole(value: Tensor, *, writer: int | None = None) -> contextlib.AbstractContextManager[Any]:
    """Within: the whole parameter, under ZeRO-3 gathered from all ranks (and written back from `writer`)."""
    if not hasattr(value, "ds_id"):
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(value, modifier_rank=writer)


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
    if engine.zero_optimization() and _adam_step(engine):
        _link_moments(engine)
    pending: dict[str, Tensor] = {}
    files = 0
    for name, parameter in engine.module.named_parameters():
        tensors = _state_of(engine, parameter)
        if is_writer:
            pending |= {f"{kind}.{name}": tensor for kind, tensor in tensors.items()}
            if sum(t.nbytes for t in pending.values()) > FILE_BYTES:
                save_file(pending, directory / f"state-{files:05d}.safetensors")
                pending, files = {}, files + 1
    if is_writer:
        save_file(pending, directory / f"state-{files:05d}.safetensors")
        record = asdict(counters) | {"adam_step": _adam_step(engine)}
        (directory / "state.json").write_text(json.dumps(record, indent=1))


def load_state(engine: Any, directory: Path) -> Counters:
    """Bring an engine to a saved state. Every rank reads; under sharding each keeps its part.

    Raises:
        DataError: files are missing or belong to another model.
    """
    try:
        record = json.loads((directory / "state.json").read_text())
        files = sorted(directory.glob("state-*.safetensors"))
        missing = {name for name, _ in engine.module.named_parameters()}
        parameters = dict(engine.module.named_parameters())
        _make_moments(engine, record.pop("adam_step"))
        for file in files:
            for key, value in _by_parameter(load_file(file)):
                if key not in parameters:
                    raise DataError(f"{file}: holds {key}, which this model does not have; it is another model's state")
                _set_state(engine, parameters[key], value)
                missing.discard(key)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{directory}: the learner's state cannot be read: {error}") from None
    if missing:
        raise DataError(f"{directory}: the learner's state lacks {len(missing)} parameters, first {min(missing)}")
    _publish_master_weights(engine)
    return Counters(**{**record, "spent": Compute.from_dict(record["spent"])})


def _by_parameter(tensors: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        grouped.setdefault(name, {})[kind] = tensor
    yield from grouped.items()


# ---- what differs: without ZeRO torch's optimizer holds the parameters themselves, with it flat float32 shards ----


def _state_of(engine: Any, parameter: nn.Parameter) -> dict[str, Tensor]:
    if not engine.zero_optimization():
        state = engine.optimizer.state.get(parameter, {})
        found = {"master": parameter.detach()} | {kind: state[kind] for kind in MOMENTS if kind in state}
        return {kind: tensor.to("cpu", copy=True).contiguous() for kind, tensor in found.items()}
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    found = {"master": safe_get_full_fp32_param(parameter)}
    if _adam_step(engine):
        found |= {kind: safe_get_full_optimizer_state(parameter, kind) for kind in MOMENTS}
    return {kind: tensor.detach().to("cpu", copy=True).contiguous() for kind, tensor in found.items()}


def _set_state(engine: Any, parameter: nn.Parameter, tensors: dict[str, Tensor]) -> None:
    device = engine.device
    if not engine.zero_optimization():
        parameter.data.copy_(tensors["master"])
        for kind in MOMENTS:
            if kind in tensors:
                engine.optimizer.state[parameter][kind].copy_(tensors[kind])
        return
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    with _whole(parameter, writer=0):
        parameter.data.copy_(tensors["master"])
    safe_set_full_fp32_param(parameter, tensors["master"].to(device))
    for kind in MOMENTS:
        if kind in tensors:
            safe_set_full_optimizer_state(parameter, tensors[kind].to(device), kind)


def _adam(engine: Any) -> torch.optim.Optimizer:
    return engine.optimizer if not engine.zero_optimization() else engine.optimizer.optimizer


def _adam_step(engine: Any) -> int:
    """Updates the optimizer has made: AdamW's own count, the same for all its tensors."""
    return max((int(state["step"]) for state in _adam(engine).state.values() if "step" in state), default=0)


def _make_moments(engine: Any, adam_step: int) -> None:
    """Zero moments for every tensor of the optimizer, as torch makes them in its first step, at the given count."""
    adam = _adam(engine)
    shards = getattr(engine.optimizer, "fp32_partitioned_groups_flat", None)  # ZeRO-3 empties the groups between steps
    for tensor in shards or [tensor for group in adam.param_groups for tensor in group["params"]]:
        adam.state[tensor] = {kind: torch.zeros_like(tensor, requires_grad=False) for kind in MOMENTS}
        adam.state[tensor]["step"] = torch.tensor(float(adam_step), device=tensor.device)
    _link_moments(engine)


def _link_moments(engine: Any) -> None:
    """Let every parameter find its moments in the flat ones.

    ZeRO 1 and 2 link them once, after the first group's first step, when the second group has none yet: link again.
    """
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _publish_master_weights(engine: Any) -> None:
    """Round the restored master weights into the model's own, where ZeRO keeps both."""
    if hasattr(engine.optimizer, "update_lp_params"):
        engine.optimizer.update_lp_params()
