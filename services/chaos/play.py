"""Rollouts of a real orchestrator, driven as a learner would; its engines are stand-ins unless told otherwise."""

import asyncio
import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster.actors import OrchestratorActor
from cluster.config import RunConfig
from cluster.launch import here
from cluster.rollout import play, turn_seeds
from cluster.rollout_spec import RolloutSpec
from cluster.tally import Event
from cluster.weight_sender import Publisher
from cluster.weights import pack_weights
from envs.base import validated
from envs.task import State, Task, Verdict
from services.chaos import stand_in
from trainers.chat import ChatFormat
from trainers.episode import Episode
from trainers.episode_arrow import from_batch
from trainers.nano.model import create

Played = dict[int, tuple[list[list[int]], list[str]]]
"""By index: the token ids of each segment, and the status of each turn."""

ANSWER_S = 300.0  # nothing that is waited for takes longer, faults included


def config(
    model: Path, *, seed: int, steps: int, workers: int, max_workers: int | None = None, verifiers: int = 2, episodes: int = 48,
    in_flight: int = 8, staleness: int = 0, deadline_s: float = 30.0, rollout_cpus: float = 0.5,
    weights: str = "auto",
) -> RunConfig:  # fmt: skip
    """A small PPO stage on `model`."""
    return validated(
        RunConfig,
        {
            "name": "chaos",
            "model": {"source": str(model)},
            "ppo": {
                "steps": steps, "episodes": episodes, "minibatches": 1, "viter": 3, "answer_tokens": 32,
                "max_staleness": staleness, "seed": seed,
            },
            "rollout": {
                "workers": workers, "max_workers": max_workers, "verifiers": verifiers, "episodes_in_flight": in_flight,
                "verdict_deadline_s": deadline_s, "weights": weights, "engine": {"max_model_len": 512, "kv_cache_gib": 0.1},
            },
            "placement": {"rollout_cpus": rollout_cpus},
        },
        source="chaos",
    )  # fmt: skip


def nano(scratch: Path) -> Path:
    """A nano model to take the tokenizer and the weights from."""
    directory = scratch / "nano"
    return directory if directory.exists() else create(directory, seed=0)


class Play:
    """The orchestrator actor of a stage, with its workers starting."""

    def __init__(self, of: RunConfig, *, actor: Any = None) -> None:
        """Args: actor: a rollout actor class; None is the stand-in at its own speed."""
        import ray
        import torch
        from safetensors.torch import load_file

        self._ray, self.config = ray, of
        self._weights = load_file(str(Path(of.model.source) / "model.safetensors"))
        self.actor: Any = OrchestratorActor.options(scheduling_strategy=here()).remote(  # type: ignore[attr-defined]
            of, of.model.source, actor or stand_in.actor()
        )
        ray.get(self.actor.start.remote(), timeout=ANSWER_S)
        self.broadcasts_failed: list[str] = []
        self._publisher = Publisher(
            self.actor, of, torch.device("cpu"), on_failure=self.broadcasts_failed.append, deltas="always"
        )

    def publish(self, version: int) -> None:
        """Every version differs from the one before in one tensor, and can be had as a delta."""
        self._weights["model.norm.weight"] += 2**-6
        self._publisher.publish(pack_weights(self._weights.items(), version=version))

    def take(self, step: int) -> list[Episode]:
        assert self.config.ppo is not None
        shares = self._ray.get(self.actor.take.remote(self.config.ppo.episodes, step=step), timeout=ANSWER_S)
        batches = self._ray.get([share.batch for share in shares])
        return [e for share, batch in zip(shares, batches, strict=True) for e in from_batch(batch.take(share.rows))]

    def step(self, number: int) -> list[Episode]:
        """Publish the weights of a step and take its episodes."""
        self.publish(number)
        return self.take(number)

    def stats(self) -> dict[str, float]:
        """Sums since the start; those of verifier pools count living workers alone."""
        found: dict[str, float] = self._ray.get(self.actor.stats.remote(), timeout=ANSWER_S)
        return found

    def events(self) -> list[Event]:
        """What happened since the last call."""
        found: list[Event] = self._ray.get(self.actor.events.remote(), timeout=ANSWER_S)
        return found

    def processes(self, kind: str) -> dict[str, int]:
        """Process ids of the living `rollout` workers or `verifier`s."""
        found = self._ray.get(self.actor.processes.remote(), timeout=ANSWER_S)
        return {name: pid for name, pid in found.items() if name.startswith(kind)}

    def close(self) -> None:
        with contextlib.suppress(Exception):  # it may be what was killed last
            self._ray.get(self.actor.close.remote(), timeout=60)
        self._ray.kill(self.actor)


@contextlib.contextmanager
def playing(of: RunConfig, *, actor: Any = None) -> Iterator[Play]:
    """A Play that is closed in the end."""
    run = Play(of, actor=actor)
    try:
        yield run
    finally:
        run.close()


def told(episodes: Sequence[Episode]) -> Played:
    """What episodes say, whoever played them. Raises ValueError where one is there twice."""
    said = {
        episode.index: ([s.token_ids.tolist() for s in episode.segments], [str(t.status) for t in episode.turns])
        for episode in episodes
    }
    if len(said) != len(episodes):
        raise ValueError(f"{len(episodes) - len(said)} episodes were delivered twice")
    return said


def expected(of: RunConfig, step: int) -> Played:
    """What the episodes of a step say when the stand-in plays them here, without Ray and without faults."""
    spec, chat = RolloutSpec.of(of, of.model.source), ChatFormat.load(Path(of.model.source))
    environment = spec.environment_at(step)
    engine = stand_in.SeededEngine(len(chat.tokenizer), token_s=0.0)

    async def verify(task: Task, state: State, answer: str) -> tuple[Verdict, State]:
        return environment.verify(task, state, answer)

    async def all_of_them() -> list[Episode]:
        assert of.ppo is not None
        outcomes = await asyncio.gather(
            *(
                play(
                    environment.sample(spec.seed, "train", step, index), environment, chat, engine.generate, verify,
                    decoding=spec.decoding, seeds=turn_seeds(spec.seed, step, index), step=step, index=index,
                )
                for index in range(of.ppo.episodes)
            )
        )  # fmt: skip
        return [outcome for outcome in outcomes if isinstance(outcome, Episode)]

    return told(asyncio.run(all_of_them()))


@contextlib.contextmanager
def breaking(fault: Callable[[random.Random], bool], *, seed: int, every_s: float, most: int) -> Iterator[list[int]]:
    """Meanwhile `fault` is called at random times, about every `every_s`; it says whether it broke something.

    Yields a list that grows by one entry for each fault made.
    """
    dice, over = random.Random(seed), threading.Event()
    made: list[int] = []

    def run() -> None:
        while len(made) < most and not over.wait(dice.uniform(0.2, 1.8) * every_s):
            if fault(dice):
                made.append(len(made))

    thread = threading.Thread(target=run, name="chaos", daemon=True)
    thread.start()
    try:
        yield made
    finally:
        over.set()
        thread.join(60)


def signalled(run: Play, kind: str, number: int = signal.SIGKILL) -> Callable[[random.Random], bool]:
    """A fault: a signal to one process of a kind. False where there is none."""

    def fault(dice: random.Random) -> bool:
        living = sorted(run.processes(kind).items())
        if not living:
            return False
        try:
            os.kill(dice.choice(living)[1], number)
        except ProcessLookupError:
            return False
        return True

    return fault
