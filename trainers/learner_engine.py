"""DeepSpeed, started: the process group, the device, and the engine around a policy."""

import contextlib
import io
import logging
import os
import warnings
from typing import Any

import torch
import torch.distributed as dist
import transformers

from trainers.config import LearnerConfig, ScheduleConfig
from trainers.policy import CriticSettings, Policy

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
    import deepspeed

    groups = [{"name": "policy", "params": list(policy.model.parameters()), "lr": schedule.learning_rate}]
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
