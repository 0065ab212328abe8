"""The service of a small store behind a real HTTP server, for a browser: only the engine is made up.

A model of known skill stands for it: its answers are an expert's or a beginner's, drawn by counters, and its verdicts are
the verifier's, so that every number on the page is counted by the code that counts real ones.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import httpx
from fastapi import FastAPI

import envs
from cluster.rollout import Heard
from envs import suites
from envs.task import Task
from services.config import LimitsConfig
from services.engines import episodes
from services.engines.episodes import EpisodeEvent, EpisodeOrder
from services.evaluations.items import item_of
from services.evaluations.jobs import Evaluations
from services.evaluations.orders import Item, PlayOrder
from services.http.tokens import Tokens, ensure_token
from services.http.web import web
from tests.services.http.running import listening
from tests.services.http.test_web import LocalService
from tests.services.reports import synthetic
from tests.services.reports.walks import played
from trainers.checkpoints import Checkpoint, CheckpointInfo, Checkpoints

ID, OOD, SEEN = "general_points/id", "general_points/ood-rule", "general_points/vision-id"
N, DEADLINE_S = 24, 30.0
HOSTILE = '<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>'
HOSTILE_INDEX = 1  # the task of each suite whose first answer is hostile
STEPS = {"demo-sft": (12,), "demo-ppo": (10, 20, 30), "demo-sft_branch": (20, 40)}
FLOPS = {"demo-sft": 1e11, "demo-ppo": 9e11, "demo-sft_branch": 4e11}  # of ten steps
SKILL = {"demo-sft": 0.3, "demo-ppo": 0.45, "demo-sft_branch": 0.2}


class Model:
    """Plays items one by one. `pause_s` is how long it thinks about each."""

    def __init__(self) -> None:
        self.pause_s = 0.0

    async def __call__(self, order: PlayOrder) -> AsyncGenerator[list[Item], None]:
        tasks = suites.load(order.suite, order.order.n).tasks
        tasks = suites.presented(tasks, viter=order.order.viter, **order.order.options)
        for index in order.indices:
            await asyncio.sleep(self.pause_s)
            task = tasks[index]
            environment = envs.make(task.environment, **task.options)
            draw = Random(f"{order.checkpoint.name} {order.suite} {index}")
            answers = self.answers(environment, task, SKILL[order.checkpoint.run], draw)
            if index == HOSTILE_INDEX:
                answers[0].insert(0, HOSTILE)
                answers[0] = answers[0][: order.order.viter]
            yield [item_of(order, environment, task, index, played(environment, task, answers))]

    def answers(self, environment, task: Task, skill: float, draw: Random) -> list[list[str]]:
        """What it answers at each position it reaches."""
        state, answers = environment.start(task), []
        while not state.is_over:
            if len(answers) == state.position:
                answers.append([])
            is_right = draw.random() < skill
            answer = environment.expert if is_right else environment.mistake
            answers[-1].append(answer(task, state, draw.random()))
            _, state = environment.verify(task, state, answers[-1][-1])
        return answers


class PageService(LocalService):
    """What the routes stand on. An episode on request is wrong once, then right."""

    async def episode(
        self, order: EpisodeOrder, checkpoint: Checkpoint, _deadline_s: float
    ) -> AsyncGenerator[EpisodeEvent, None]:
        environment, task = episodes.task_of(order, checkpoint)
        yield episodes.shown(environment, task, checkpoint)
        state, turn, answers = environment.start(task), 0, []
        while not state.is_over:
            await asyncio.sleep(0.02)
            if len(answers) == state.position:
                answers.append([])
            answer = (environment.expert if turn else environment.mistake)(task, state)
            verdict, after = environment.verify(task, state, answer)
            heard = Heard(answer=answer, tokens=9, finish_reason="stop", verdict=verdict, before=state, after=after)
            turn, state = turn + 1, after
            answers[-1].append(answer)
            yield episodes.turn_told(environment, task, turn, heard)
        yield episodes.ended(checkpoint, turn, played(environment, task, answers))


@dataclass(frozen=True)
class Served:
    url: str
    token: str
    store: Path
    model: Model

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"})


def write_store(store: Path) -> None:
    """A run in three stages: logs, and checkpoints that count their FLOPs."""
    synthetic.write_logs(store, "demo")
    for run, steps in STEPS.items():
        for step in steps:
            _commit(store, run, step)


def _commit(store: Path, run: str, step: int) -> None:
    def write(directory: Path) -> None:
        (directory / "model").mkdir()
        (directory / "model" / "model.safetensors").write_text(f"{run} {step}")

    before = 0 if run == "demo-sft" else FLOPS["demo-sft"]
    info = CheckpointInfo(
        parents=(),
        metrics={"success_rate": step / 40, "loss": 0.5},
        compute={"parameters": 10, "flops": before + FLOPS[run] * step / 10},
        config={"environment": {"name": "general_points", "options": {}}},
        world_size=1,
    )
    Checkpoints(store, run).commit(step, write, info)


@contextmanager
def served(store: Path, *, port: int = 0) -> Iterator[Served]:
    """The service of `store`, until the block ends."""
    token = ensure_token(store / "service")
    assert token is not None
    model = Model()

    def serve(jobs: Evaluations) -> FastAPI:
        return web(PageService(store, jobs), tokens=Tokens.load(store / "service"), limits=LimitsConfig())

    with listening(store, model, serve, port=port) as url:
        yield Served(url, token, store, model)


def evaluated(service: Served) -> dict[str, dict]:
    """Every checkpoint of the run by its name, evaluated; and under "seen" one that sees."""
    with service.client() as http:
        models = [card["id"] for card in http.get("/v1/models").json()["data"]]
        orders = {model: {"checkpoint": model, "suites": [ID, OOD], "n": N} for model in models}
        orders["seen"] = {"checkpoint": "demo-ppo@latest", "suites": [SEEN], "n": 4, "options": {"resolution": 96}}
        answers = {key: http.post("/v1/evaluations", json=order) for key, order in orders.items()}
        return {key: ended(http, answer.raise_for_status().json()["id"]) for key, answer in answers.items()}


def ended(http: httpx.Client, evaluation_id: str) -> dict:
    """The evaluation once it is completed."""
    deadline = time.monotonic() + DEADLINE_S
    while (now := http.get(f"/v1/evaluations/{evaluation_id}").json())["status"] != "completed":
        assert now["status"] != "failed", now["error"]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return now
