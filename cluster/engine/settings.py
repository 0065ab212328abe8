"""How vLLM is set up here: what may run, its arguments, and the environment of its process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform

from cluster.config import EngineConfig
from cluster.engine import model_files
from cluster.engine.weights import BACKEND
from envs.base import ConfigError, DataError
from trainers.model_safety import refuse_unsafe

KEEP_FREED_PAGES = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776"
"""A weight update on CPU allocates and frees the whole model layer by layer, and page faults would be a quarter of its
time: so memory that was freed stays with the process, and torch asks for huge pages (THP_MEM_ALLOC_ENABLE)."""

CPU_PICTURES_GIB = 0.5  # of prepared pictures; a picture of 128 px takes 0.2 MiB
CPU_STEP_TOKENS = 4096  # tokens computed together in one step, at most


def check_model(model_dir: Path) -> model_files.TensorShapes:
    """Names and shapes of the model's tensors, once it is known that an engine here can run it.

    Raises:
        DataError: it is missing, damaged or unsafe (`trainers.model_safety`), of an architecture that vLLM does not know, or
            has tied embeddings on CPU.
    """
    from vllm.model_executor.models import ModelRegistry

    config = model_files.read_config(model_dir)
    refuse_unsafe(model_dir)
    shapes = model_files.tensor_shapes(model_dir)
    known = set(ModelRegistry.get_supported_archs())
    if not known & set(config["architectures"]):
        name = config["architectures"][0]
        raise DataError(
            f"{model_dir}/config.json: vLLM does not know the architecture {name}; use one that it supports"
        )
    if current_platform.is_cpu() and model_files.ties_embeddings(model_dir, config):
        raise DataError(
            f"{model_dir}/config.json: tie_word_embeddings is true, and on CPU vLLM would keep the old output "
            "embedding after a weight update; untie it (set it to false and store lm_head.weight), or use GPUs"
        )
    return shapes


def check_cache(model_dir: Path, config: EngineConfig) -> None:
    """Raises ConfigError if the longest sequence would not fit the key-value cache of a CPU engine."""
    needed = config.max_model_len * model_files.cache_bytes_per_token(model_dir, 4 if config.dtype == "float32" else 2)
    if current_platform.is_cpu() and needed > config.kv_cache_gib * 2**30:
        raise ConfigError(
            f"engine.kv_cache_gib={config.kv_cache_gib:g} holds no sequence of "
            f"max_model_len={config.max_model_len} tokens of {model_dir} "
            f"({needed / 2**30:.2f} GiB); raise it or shorten max_model_len"
        )


def arguments(model_dir: Path, config: EngineConfig) -> AsyncEngineArgs:
    """vLLM's settings for this model on this machine."""
    device: dict[str, Any] = {"gpu_memory_utilization": config.gpu_memory_utilization}
    if current_platform.is_cpu():
        device = {
            "kv_cache_memory_bytes": int(config.kv_cache_gib * 2**30),
            "enforce_eager": True,  # compiling costs half a minute and wins nothing at the sizes that run on CPU
            # A prompt is computed in one piece: after a part of one, vLLM winds back the generator of a seeded
            # request, which CPU generators cannot do, and the engine dies.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(CPU_STEP_TOKENS, config.max_model_len),
            "mm_processor_cache_gb": CPU_PICTURES_GIB,
        }
    return AsyncEngineArgs(
        model=str(model_dir),
        trust_remote_code=False,
        dtype=config.dtype,
        tensor_parallel_size=config.tensor_parallel,
        distributed_executor_backend="uni" if config.tensor_parallel == 1 else "mp",
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_num_seqs,
        enable_prefix_caching=config.prefix_cache,
        logprobs_mode="processed_logprobs",  # with the temperature applied, as the learner computes them
        generation_config="vllm",  # sampling is what the caller says, not what the checkpoint's file suggests
        weight_transfer_config={"backend": BACKEND},
        disable_log_stats=True,
        enable_log_requests=False,
        enable_prompt_embeds=False,
        **device,
    )


@contextmanager
def environment(config: EngineConfig) -> Iterator[None]:
    """What the engine's process inherits; this process's own environment is then as it was."""
    before = dict(os.environ)
    os.environ["OMP_NUM_THREADS"] = str(config.threads)
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # whole GiB only, and it would win over kv_cache_gib
    if current_platform.is_cpu():
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        os.environ.setdefault("GLIBC_TUNABLES", KEEP_FREED_PAGES)
    if current_platform.is_cpu() and config.tensor_parallel == 1:
        # The worker then lives in the engine's process: one process and two hand-overs per step less. vLLM
        # would put it apart only to set OMP_NUM_THREADS, which is set here.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
