"""DeepSpeed: started around a policy, and its state seen whole whatever the sharding. No other module imports it."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
import transformers
from torch import Tensor, nn

from trainers.config import LearnerConfig, ScheduleConfig
from trainers.policy import CriticSettings, Policy

MOMENTS = ("exp_avg", "exp_avg_sq")
BUCKET_ELEMENTS = 1024 * 50_000  # gradients reduced together, at most: DeepSpeed allocates this much up front


def join() -> torch.device:
    """This rank's device, in a process group: the one that exists, or one of this process alone."""
    has_gpu = torch.cuda.is_available()
    if not has_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if not dist.is_initialized():
        dist.init_process_group("nccl" if has_gpu else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    import deepspeed

    # its shared-memory all-reduce would be compiled at the first start: 30 s and a C++ compiler, to win microseconds
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # of names DeepSpeed calls
    os.environ.setdefault("LOCAL_RANK", "0")
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    deepspeed.init_distributed(dist_backend="nccl" if has_gpu else "gloo", auto_mpi_discovery=False, verbose=False)
    return torch.device("cuda", torch.cuda.current_device()) if has_gpu else torch.device("cpu")


def make_engine(
    policy: Policy, config: LearnerConfig, schedule: ScheduleConfig, critic: CriticSettings | None, *, bf16: bool
) -> Any:
    """DeepSpeed's engine around the policy, with a parameter group for the model and one for the critic."""
    import deepspeed

    trained = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    groups = [{"name": "policy", "params": trained, "lr": schedule.learning_rate}]
    if critic is not None and policy.critic is not None:
        groups.append({"name": "critic", "params": list(policy.critic.parameters()), "lr": critic.learning_rate})
    # fused: one kernel over all weights, where the default on CPU is a Python loop over each
    optimizer = torch.optim.AdamW(
        groups, lr=schedule.learning_rate, betas=config.betas, eps=config.adam_eps, weight_decay=config.weight_decay,
        fused=True,
    )  # fmt: skip
    parameters = sum(p.numel() for p in policy.parameters())
    with contextlib.redirect_stdout(io.StringIO()):  # it prints memory tables, whatever its log level
        engine, *_ = deepspeed.initialize(
            model=policy, optimizer=optimizer, config=_settings(config, parameters, bf16=bf16), dist_init_required=False
        )
    return engine


def _settings(config: LearnerConfig, parameters: int, *, bf16: bool) -> dict[str, Any]:
    """DeepSpeed's own configuration.

    In bfloat16, stage 0 runs as stage 1: there DeepSpeed keeps float32 master weights and sums gradients in float32.
    """
    stage = max(config.zero_stage, 1) if bf16 else config.zero_stage
    bucket = min(-(-parameters // 1024) * 1024, BUCKET_ELEMENTS)
    zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    if config.offload_optimizer and stage:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "steps_per_print": None,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # without ZeRO the learner clips itself, with torch, since it must see the norm before the step
        "gradient_clipping": config.max_grad_norm if stage else 0.0,
        **({"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}} if bf16 else {}),
    }


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


# ---- what differs: without ZeRO torch's optimizer holds the parameters themselves, with it flat float32 shards ----


def full_state(engine: Any, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Copies on the host of a parameter's float32 `master` and, once an update was made, its moments. Collective."""
    if not engine.zero_optimization():
        state = engine.optimizer.state.get(parameter, {})
        found = {"master": parameter.detach()} | {kind: state[kind] for kind in MOMENTS if kind in state}
        return {kind: tensor.to("cpu", copy=True).contiguous() for kind, tensor in found.items()}
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    found = {"master": safe_get_full_fp32_param(parameter)}
    if adam_step(engine):
        found |= {kind: safe_get_full_optimizer_state(parameter, kind) for kind in MOMENTS}
    return {kind: tensor.detach().to("cpu", copy=True).contiguous() for kind, tensor in found.items()}


def set_full_state(engine: Any, parameter: nn.Parameter, tensors: dict[str, Tensor]) -> None:
    """Put what `full_state` gave in its place. The moments must exist (`make_moments`). Collective."""
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


def adam_step(engine: Any) -> int:
    """Updates the optimizer has made: AdamW's own count, the same for all its tensors."""
    return max((int(state["step"]) for state in _adam(engine).state.values() if "step" in state), default=0)


def make_moments(engine: Any, steps: int) -> None:
    """Zero moments for every tensor of the optimizer, as torch makes them in its first step, after `steps` of them."""
    adam = _adam(engine)
    shards = getattr(engine.optimizer, "fp32_partitioned_groups_flat", None)  # ZeRO-3 empties the groups between steps
    for tensor in shards or [tensor for group in adam.param_groups for tensor in group["params"]]:
        adam.state[tensor] = {kind: torch.zeros_like(tensor, requires_grad=False) for kind in MOMENTS}
        adam.state[tensor]["step"] = torch.tensor(float(steps), device=tensor.device)
    link_moments(engine)


def link_moments(engine: Any) -> None:
    """Let every parameter find its moments in the flat ones.

    ZeRO 1 and 2 link them once, after the first group's first step, when the second group has none yet: link again.
    """
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def publish_master_weights(engine: Any) -> None:
    """Round the restored master weights into the model's own, where ZeRO keeps both."""
    if hasattr(engine.optimizer, "update_lp_params"):
        engine.optimizer.update_lp_params()
