"""`viter replay`: a quarantined episode once more, here: its answer judged, or the whole of it played.

Artefact ─► has an answer ─► the environment's verifier, in this process
         └► has none      ─► play, with an engine of this process and the seeds of the run
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import envs
from cluster.quarantine import Artefact
from cluster.rollout import Heard, play, turn_seeds
from envs.base import DataError
from envs.task import Environment, State, Task, Verdict
from envs.verify import told
from trainers.chat import ChatFormat
from trainers.checkpoints import Checkpoints
from trainers.sources import model_directory

Tell = Callable[[str], object]


def run(file: Path, *, store: str, checkpoint: str | None, tell: Tell, warn: Tell) -> None:
    """Replay the episode of `file`, telling each turn as a line of JSON. Whatever ended it then may end this process.

    Args:
        store: where its checkpoints are.
        checkpoint: to play with; None takes the weights that it was sampled with, or the newest that were kept before.
    Raises:
        DataError: no such file or model, or an episode whose task could not be drawn.
    """
    episode = Artefact.load(file)
    task = episode.task
    if task is None:
        raise DataError(
            f"{file}: its task could not be drawn, which may be what ended its workers; draw it by its counters"
        )
    environment = envs.make(task.environment, **task.options)
    if episode.answer is None or episode.state is None or checkpoint:
        name = checkpoint or weights_of(episode, store, warn)
        asyncio.run(_play(episode, task, environment, model_directory(name, store=store), tell))
        return
    for turn in episode.heard:
        tell(_line(turn.answer, turn.verdict))
    verdict, _ = environment.verify(task, episode.state, episode.answer)
    tell(_line(episode.answer, verdict))


def weights_of(episode: Artefact, store: str, warn: Tell) -> str:
    """The model that it was sampled with by name, or the nearest that was kept before that."""
    kept = [checkpoint for checkpoint in Checkpoints(store, episode.run) if checkpoint.step <= episode.weight_version]
    name = kept[-1].name if kept else episode.source
    if (kept[-1].step if kept else 0) != episode.weight_version:
        warn(f"the weights of step {episode.weight_version} were not kept; taking those of {name}")
    return name


async def _play(episode: Artefact, task: Task, environment: Environment, model: Path, tell: Tell) -> None:
    from cluster.engine import Engine

    async def verify(task: Task, state: State, answer: str) -> tuple[Verdict, State]:
        return environment.verify(task, state, answer)

    def heard(turn: Heard) -> None:
        tell(_line(turn.answer, turn.verdict))

    engine = await Engine.start(model, episode.engine)
    try:
        await play(
            task, environment, ChatFormat.load(model), engine.generate, verify, decoding=episode.decoding,
            seeds=turn_seeds(episode.seed, episode.step, episode.index), step=episode.step, index=episode.index,
            on_turn=heard,
        )  # fmt: skip
    finally:
        await engine.close()


def _line(answer: str, verdict: Verdict) -> str:
    line: dict[str, Any] = {"answer": answer, **told(verdict)}
    return json.dumps(line, ensure_ascii=False)
