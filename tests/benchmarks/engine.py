"""The engine alone: sampling against plain vLLM, and weights from one process through Ray into a sampling engine.

Each side of a ratio lives in a process of its own and is resident for the whole call; they take turns.
"""

import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cluster.config import EngineConfig

REQUESTS, TOKENS, ROUNDS = 384, 64, 5
ENGINE = EngineConfig(dtype="bfloat16", kv_cache_gib=0.5, max_model_len=512, max_num_seqs=128)
SYNCS, WARM = 9, 4  # the first fault the pages in that all later ones overwrite
STEP_S = 0.3  # between two syncs lies a step, in which the object store frees the parcel before the last
LARGE = {"hidden_size": 640, "num_hidden_layers": 14, "num_attention_heads": 10, "intermediate_size": 1728,
         "vocab_size": 24_000}  # fmt: skip

CHANGED = 0.05  # of the elements, in the version that is sent as a delta

PASSES = "memory passes: hash, put, node file, hash again beside vLLM's copy and repacking of every layer"

Row = dict[str, Any]


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        return [*sampling_rows(Path(directory)), *weight_rows(Path(directory))]


# Sampling


def model_and_prompts(directory: Path, count: int = REQUESTS) -> tuple[Path, list[list[int]]]:
    """A nano model and the token ids of `count` GeneralPoints prompts for it."""
    import envs
    from trainers.chat import ChatFormat
    from trainers.nano.model import create

    model = create(directory / "nano")
    chat, game = ChatFormat.load(model), envs.make("general_points")
    return model, [
        chat.prompt_ids(game.prompt(task, game.start(task))) for task in (game.sample(0, i) for i in range(count))
    ]


def sampling_rows(directory: Path) -> list[Row]:
    model, prompts = model_and_prompts(directory)
    sides = {"engine": engine_side, "plain": plain_side, "in process": in_process_side}
    seconds = in_turns(sides, ROUNDS, str(model), prompts)
    rate = {name: REQUESTS * TOKENS / statistics.median(times) for name, times in seconds.items()}
    note = (
        f"{rate['engine']:,.0f} against {rate['plain']:,.0f} tokens/s (LLM in process: {rate['in process']:,.0f}); "
        f"nano model, {REQUESTS} seeded requests of {TOKENS} tokens, {ENGINE.max_num_seqs} at once, {ENGINE.dtype}"
    )
    ratio = statistics.median(p / e for p, e in zip(seconds["plain"], seconds["engine"], strict=True))
    return [row("tokens/s of Engine.generate ÷ LLM.generate", ratio, "×", "≥ 0.90", note)]


def engine_side(pipe: Connection, model: str, prompts: list[list[int]]) -> None:
    from cluster.engine import Engine

    async def main() -> None:
        engine = await Engine.start(model, ENGINE)

        async def all_at_once() -> None:
            calls = (
                engine.generate(ids, seed=seed, temperature=1.0, max_tokens=TOKENS, stop_ids=())
                for seed, ids in enumerate(prompts)
            )
            await asyncio.gather(*calls)

        while pipe.recv():
            started = time.perf_counter()
            await all_at_once()
            pipe.send(time.perf_counter() - started)
        await engine.close()

    asyncio.run(main())


def plain_side(pipe: Connection, model: str, prompts: list[list[int]]) -> None:
    """vLLM as its documentation shows it, with the settings of ENGINE."""
    os.environ.update(VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1", OMP_NUM_THREADS=str(ENGINE.threads))
    from vllm import LLM, SamplingParams

    llm = LLM(
        model, dtype=ENGINE.dtype, max_model_len=ENGINE.max_model_len, max_num_seqs=ENGINE.max_num_seqs,
        enforce_eager=True, kv_cache_memory_bytes=int(ENGINE.kv_cache_gib * 2**30), logprobs_mode="processed_logprobs",
        enable_chunked_prefill=False, max_num_batched_tokens=4096,
    )  # fmt: skip
    parameters = [
        SamplingParams(seed=seed, max_tokens=TOKENS, ignore_eos=True, logprobs=0, detokenize=False)
        for seed in range(len(prompts))
    ]
    while pipe.recv():
        started = time.perf_counter()
        llm.generate([{"prompt_token_ids": ids} for ids in prompts], parameters, use_tqdm=False)
        pipe.send(time.perf_counter() - started)
    llm.llm_engine.engine_core.shutdown()


def in_process_side(pipe: Connection, model: str, prompts: list[list[int]]) -> None:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    plain_side(pipe, model, prompts)


def in_turns(sides: dict[str, Callable[..., None]], rounds: int, *arguments: Any) -> dict[str, list[float]]:
    """Seconds of every round of every side, after one that warms up. One side runs at a time."""
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name, side in sides.items():
        pipes[name], theirs = spawn.Pipe()
        processes.append(spawn.Process(target=side, args=(theirs, *arguments)))
        processes[-1].start()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, pipe in pipes.items():
            pipe.send(True)
            seconds[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    for process in processes:
        process.join(20)
        process.kill()
    return {name: times[1:] for name, times in seconds.items()}


# Weights


def weight_rows(directory: Path) -> list[Row]:
    import torch

    from trainers.nano.model import create

    with ray_here():
        large = [sync_row(*random_model(directory / "large"), dtype) for dtype in ("bfloat16", "float32")]
        large += delta_rows(*random_model(directory / "large"))
        nano = create(directory / "nano-sync")
        from safetensors.torch import load_file

        weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(nano / "model.safetensors").items()}
        seconds, parts = measured_sync(nano, weights, "bfloat16")
        return [*large, row("weight sync of the nano model", seconds, "s", "≤ 0.2", parts)]


def sync_row(model: Path, weights: dict[str, Any], dtype: str) -> Row:
    import torch

    sent = {name: tensor.to(getattr(torch, dtype)) for name, tensor in weights.items()}
    size = sum(tensor.nbytes for tensor in sent.values())
    seconds, parts = measured_sync(model, sent, dtype)
    note = f"{size / 1e6:,.0f} MB in {seconds:.3f} s: {parts}; bound by {PASSES}"
    return row(
        f"weight sync, {size // sent_width(dtype) / 1e6:.0f}M parameters, {dtype}",
        size / 1e9 / seconds,
        "GB/s",
        "≥ 1",
        note,
    )


def sent_width(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else 4


def measured_sync(model: Path, weights: dict[str, Any], dtype: str) -> tuple[float, str]:
    """Median seconds from tensors in this process to an engine that has confirmed them, and where they went."""
    import ray

    from cluster.weights import pack_weights

    engine = ray.remote(EngineHost).options(num_cpus=1, max_concurrency=8).remote()
    ray.get(engine.start.remote(str(model), ENGINE.model_copy(update={"dtype": dtype, "max_num_seqs": 16})))
    samples, newest = [], []
    for version in range(1, SYNCS + 1):
        weights["model.norm.weight"] += 2**-6  # another digest: a parcel that the node has is not written again
        started = time.perf_counter()
        parcel = pack_weights(weights.items(), version=version)
        packed = time.perf_counter()
        reference = ray.put(parcel)
        put = time.perf_counter()
        inside = ray.get(engine.update.remote([reference]))
        done = time.perf_counter()
        newest[:] = [reference]  # kept until the next, as the orchestrator does for workers that start later
        del parcel, reference
        time.sleep(STEP_S)
        samples.append(
            {"all": done - started, "pack": packed - started, "put": put - packed, "update": done - put, **inside}
        )
    ray.kill(engine)
    median = {name: statistics.median(sample[name] for sample in samples[WARM:]) for name in samples[0]}
    return median["all"], ", ".join(
        f"{name} {seconds * 1e3:.0f} ms" for name, seconds in median.items() if name != "all"
    )


def delta_rows(model: Path, weights: dict[str, Any]) -> list[Row]:
    """Versions are sent as a delta and as a parcel in turns, to the same engine on the node that packs them."""
    import ray
    import torch

    from cluster.weight_delta import delta_between
    from cluster.weights import pack_weights

    engine = ray.remote(EngineHost).options(num_cpus=1, max_concurrency=8).remote()
    ray.get(engine.start.remote(str(model), ENGINE.model_copy(update={"max_num_seqs": 16})))
    sent = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    newest = ray.put(pack_weights(sent.items(), version=0))
    ray.get(engine.update.remote([newest]))
    seconds: dict[bool, list[float]] = {True: [], False: []}
    shares = []
    for version in range(1, 2 * SYNCS + 1):
        for tensor in sent.values():
            tensor.view(torch.int16).bitwise_xor_((torch.rand(tensor.shape) < CHANGED).to(torch.int16))
        by_delta = version % 2 == 0
        started = time.perf_counter()
        parcel = pack_weights(sent.items(), version=version)
        if by_delta:
            delta = delta_between(ray.get(newest), parcel)
            assert delta is not None
            shares.append(delta.size_bytes / parcel.size_bytes)
        newest = ray.put(parcel)
        ray.get(engine.update.remote([ray.put(delta) if by_delta else newest]))
        seconds[by_delta].append(time.perf_counter() - started)
        time.sleep(STEP_S)
    ray.kill(engine)
    delta_s, parcel_s = (statistics.median(seconds[by_delta][WARM:]) for by_delta in (True, False))
    size = sum(tensor.nbytes for tensor in sent.values())
    what = f"{size // 2 / 1e6:.0f}M parameters, bfloat16, {CHANGED:.0%} of the elements changed"
    note = f"{delta_s:.3f} against {parcel_s:.3f} s on one node, where a parcel crosses no network and learners make no deltas"
    return [
        row("bytes of a delta ÷ its parcel", statistics.median(shares), "×", "≤ 0.1", what),
        row("weight sync by delta ÷ by parcel", delta_s / parcel_s, "×", "≤ 2", note),
    ]


class EngineHost:
    """An engine in a Ray actor, as a rollout worker holds one."""

    async def start(self, model: str, config: EngineConfig) -> None:
        from cluster.engine import Engine

        self.engine = await Engine.start(model, config)

    async def update(self, references: list[Any]) -> dict[str, float]:
        started = time.perf_counter()
        parcel = await references[0]
        fetched = time.perf_counter()
        await self.engine.update_weights(parcel)
        assert self.engine.weight_digest == parcel.digest
        return {"of it fetch": fetched - started, "engine": time.perf_counter() - fetched}


def random_model(directory: Path) -> tuple[Path, dict[str, Any]]:
    """A Qwen3-shaped model of 100M parameters in float32, and its weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        **LARGE, num_key_value_heads=LARGE["num_attention_heads"], head_dim=64, max_position_embeddings=1024,
        tie_word_embeddings=False, dtype="float32",
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    if not (directory / "config.json").exists():
        from trainers.nano import tokenizer
        from trainers.nano.phrases import phrases

        model.save_pretrained(directory)
        tokenizer.build(phrases()).save_pretrained(str(directory))
    return directory, {name: tensor.detach() for name, tensor in model.state_dict().items()}


@contextmanager
def ray_here() -> Iterator[None]:
    import ray

    ray.init(
        num_cpus=4, include_dashboard=False, object_store_memory=3 * 2**30, log_to_driver=False, logging_level="error"
    )
    try:
        yield
    finally:
        ray.shutdown()


def row(name: str, value: float, unit: str, target: str, note: str) -> Row:
    return {"name": name, "value": value, "unit": unit, "target": target, "note": note}
