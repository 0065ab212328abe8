"""Whole rollouts against plain vLLM, and what the orchestrator itself costs.

    rollout   orchestrator actor ⇄ rollout worker actor (its engine in a process of its own) ⇄ verifier actor
    plain     LLM.generate on all turns at once: the histories and lengths that the rollout has just had

The two take turns in one call; both engines stay resident.
"""

import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cluster.config import RunConfig
from cluster.ledger import Ledger, Receipt
from cluster.orchestrator import Orchestrator
from cluster.rollout import turn_seeds
from cluster.weight_sender import WeightSender
from cluster.weights import Arrival, pack_weights
from envs.base import validated
from trainers.episode import Episode
from trainers.episode_arrow import from_batch

EPISODES, TOKENS, ROUNDS, SEED = 512, 64, 5, 3
IN_FLIGHT = 192  # more than the engine decodes at once: while some wait for a verdict, others take their place
ENGINE = {"dtype": "bfloat16", "max_model_len": 512, "max_num_seqs": 128, "kv_cache_gib": 0.5}

Row = dict[str, Any]


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        from trainers.nano.model import create

        model = create(Path(directory) / "nano")
        return [rollout_row(model, viter=1), rollout_row(model, viter=3), orchestrator_row(), thousand_row()]


def rollout_row(model: Path, *, viter: int) -> Row:
    import ray

    config = validated(RunConfig, _settings(model, viter), source="benchmark")
    # Ray runs workers at niceness 15: beside other programs the two sides would not be equals
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray spells it so
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=2**28, log_to_driver=False, logging_level="error")
    try:
        run = Rollouts(config, model)
        plain = Plain(str(model))
        ratios, rates = [], []
        for step in range(ROUNDS + 1):
            seconds, episodes = run.step(step)
            requests = [request for episode in episodes for request in _requests(episode)]
            tokens = sum(length for _, length, _ in requests)
            plain_s = plain.seconds(requests)
            ratios.append(plain_s / seconds)
            rates.append((tokens / seconds, tokens / plain_s))
        plain.close()
    finally:
        ray.shutdown()
    ours, theirs = (statistics.median(side) for side in zip(*rates[1:], strict=True))
    return {
        "name": f"rollout tokens/s ÷ LLM.generate, {viter} turn{'s' * (viter > 1)} per episode",
        "value": statistics.median(ratios[1:]),
        "unit": "ratio",
        "target": "≥ 0.90",
        "note": f"{ours:,.0f} against {theirs:,.0f} tokens/s; nano model, {EPISODES} episodes, answers of up to {TOKENS} "
        "tokens, 128 at once; from publish to the learner's hands"
        + (", plain knows all turns beforehand" if viter > 1 else ""),
    }  # fmt: skip


def _settings(model: Path, viter: int) -> dict[str, Any]:
    return {
        "name": "bench",
        "model": {"source": str(model)},
        "ppo": {
            "steps": ROUNDS + 1, "episodes": EPISODES, "minibatches": 1, "viter": viter, "answer_tokens": TOKENS, "seed": SEED,
        },
        "rollout": {"workers": 1, "verifiers": 1, "episodes_in_flight": IN_FLIGHT, "engine": ENGINE},
    }  # fmt: skip


class Rollouts:
    """The rollout side, driven as a learner would."""

    def __init__(self, config: RunConfig, model: Path) -> None:
        import ray
        from safetensors.torch import load_file

        from cluster.actors import OrchestratorActor

        self._weights, self._sender = load_file(str(model / "model.safetensors")), WeightSender()
        self._actor = OrchestratorActor.remote(config, str(model))
        ray.get(self._actor.start.remote())

    def step(self, step: int) -> tuple[float, list[Episode]]:
        """Seconds from published weights to a step's record batches in this process, and its episodes."""
        import ray

        publication = self._sender.put(pack_weights(self._weights.items(), version=step))
        ray.get(self._actor.publish.remote(publication, version=step))
        started = time.perf_counter()
        shares = ray.get(self._actor.take.remote(EPISODES, step=step))
        batches = ray.get([share.batch for share in shares])
        seconds = time.perf_counter() - started
        return seconds, [e for share, b in zip(shares, batches, strict=True) for e in from_batch(b.take(share.rows))]


def _requests(episode: Episode) -> list[tuple[list[int], int, int]]:
    """(history, length of the answer, seed) of every turn."""
    seeds, requests = turn_seeds(SEED, episode.step, episode.index), []
    for segment in episode.segments:
        for turn in segment.turns:
            history = segment.token_ids[: turn.start].tolist()
            requests.append((history, turn.stop - turn.start, seeds(len(requests))))
    return requests


class Plain:
    """vLLM as its documentation shows it, in a process of its own, with the settings of the rollout's engine."""

    def __init__(self, model: str) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_generate, args=(theirs, model), daemon=False)
        self._process.start()

    def seconds(self, requests: list[tuple[list[int], int, int]]) -> float:
        self._pipe.send(requests)
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(60)


def _generate(pipe: Connection, model: str) -> None:
    os.environ.update(VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1", OMP_NUM_THREADS="1")
    from vllm import LLM, SamplingParams

    llm = LLM(
        model, dtype=ENGINE["dtype"], max_model_len=ENGINE["max_model_len"], max_num_seqs=ENGINE["max_num_seqs"],
        enforce_eager=True, kv_cache_memory_bytes=int(ENGINE["kv_cache_gib"] * 2**30),
        logprobs_mode="processed_logprobs", enable_chunked_prefill=False, max_num_batched_tokens=4096,
    )  # fmt: skip
    while (requests := pipe.recv()) is not None:
        parameters = [
            SamplingParams(seed=seed, max_tokens=length, ignore_eos=True, logprobs=0, detokenize=False)
            for _, length, seed in requests
        ]
        prompts = [{"prompt_token_ids": history} for history, _, _ in requests]
        started = time.perf_counter()
        llm.generate(prompts, parameters, use_tqdm=False)
        pipe.send(time.perf_counter() - started)


def orchestrator_row(episodes: int = 4096, steps: int = 5) -> Row:
    """Processor time of the plain orchestrator per episode, with four workers that play in no time, 8 episodes a call."""
    readings = asyncio.run(_orchestrate(episodes, steps + 1))
    return {
        "name": "orchestrator time per episode",
        "value": (readings[-1][0] - readings[0][0]) / (episodes * steps) * 1e6,
        "unit": "µs",
        "target": "",
        "note": f"{episodes} episodes per step, 4 workers in the same process, no Ray",
    }


class Instant:
    """A worker that has played whatever it is given."""

    def __init__(self, name: str) -> None:
        self.name, self.node, self.version, self._held = name, "here", 0, []
        self._given = asyncio.Event()

    async def give(self, orders: Any) -> None:
        self._held += orders
        self._given.set()

    async def collect(self) -> tuple[list[Receipt], Any]:
        await self._given.wait()
        done, self._held = self._held[:8], self._held[8:]
        if not self._held:
            self._given.clear()
        await asyncio.sleep(0)
        return [
            Receipt(ticket=o.ticket, row=i, tokens=99, oldest_version=self.version) for i, o in enumerate(done)
        ], object()

    async def update_weights(self, parcel: Any, version: int) -> Arrival:
        self.version = version
        return Arrival(by="parcel")

    async def drop(self) -> None: ...

    async def score(self, sequences: list[list[int]]) -> list[list[float]]:
        return []

    async def bury(self) -> None: ...


async def _orchestrate(episodes: int, steps: int, workers: int = 4) -> list[tuple[float, int]]:
    """CPU seconds and resident bytes of this process after each step."""
    import psutil

    async def spawn(place: int, name: str) -> Instant:
        return Instant(name)

    ledger = Ledger(episodes=episodes, steps=steps, max_staleness=0)
    orchestrator = Orchestrator(spawn, ledger=ledger, workers=workers, episodes_in_flight=128)
    readings = []
    for step in range(steps):
        await orchestrator.publish(None, step)
        await orchestrator.take(episodes, step=step)
        readings.append((time.process_time(), psutil.Process().memory_info().rss))
    await orchestrator.close()
    return readings


def thousand_row() -> Row:
    """A thousand workers, each with an answer of one turn at once."""
    episodes, steps = 20_000, 6
    readings = asyncio.run(_orchestrate(episodes, steps, workers=1000))
    spent = readings[-1][0] - readings[0][0]
    grown = readings[-1][1] - readings[1][1]
    return {
        "name": "orchestrator with 1,000 workers",
        "value": (steps - 1) * episodes / spent,
        "unit": "turns/s and core",
        "target": "≥ 2,000",
        "note": f"instant workers, {episodes:,} episodes of one turn a step, without Ray; memory grew by "
        f"{grown / 2**20:.1f} MiB over the last {steps - 2} steps",
    }
