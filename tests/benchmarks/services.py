"""The service against what it stands on: a completion over HTTP against the bare engine, verdicts of actors against our own."""

import asyncio
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cluster.config import EngineConfig
from services.port import free_ports
from tests.benchmarks.engine import ray_here, row

ENGINE = EngineConfig(dtype="bfloat16", kv_cache_gib=0.25, max_model_len=512, max_num_seqs=128)
BODY = {"model": "nano@step-000001", "prompt": "Cards:", "max_tokens": 4, "temperature": 0, "ignore_eos": True}
REQUESTS, ROUNDS = 100, 5
COMPLETIONS, EMPTY = "/v1/completions", "/empty"
ITEMS, VITER, TOKENS = 200, 3, 64

Row = dict[str, Any]


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        store = Path(directory)
        _commit(store)
        return [*gateway_rows(store), verifier_row(store)]


def _commit(store: Path) -> None:
    from trainers.checkpoints import CheckpointInfo, Checkpoints
    from trainers.nano import model

    info = CheckpointInfo(parents=(), metrics={}, compute={}, config={}, world_size=1)
    Checkpoints(store, "nano").commit(1, lambda path: model.create(path / "model"), info)


# A completion


def gateway_rows(store: Path) -> list[Row]:
    """The engine and the service live in processes of their own and are resident throughout. They take turns, one request at
    a time; so does a route of the service's own Ray Serve that does nothing: what it takes is HTTP, proxy and one hop.

    An engine that waits between two requests, as one behind a gateway does, is slower in the next: its caches are cold, and
    its threads are put on one core. So the bare engine is asked both at once again and with pauses as long as those of the
    service's engine, and the difference to the latter is what the gateway takes.
    """
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for side in (bare_side, http_side):
        pipe, theirs = spawn.Pipe()
        pipes.append(pipe)
        processes.append(spawn.Process(target=side, args=(theirs, str(store))))
        processes[-1].start()
        pipe.recv()  # it answers
    bare, http = pipes
    medians: dict[str, list[float]] = {name: [] for name in ("bare", "empty", "http", "paused")}

    def turn(name: str, pipe: Connection, asked: object) -> None:
        pipe.send(asked)
        medians[name].append(statistics.median(pipe.recv()))

    for _ in range(ROUNDS + 1):
        turn("bare", bare, 0.0)
        turn("empty", http, EMPTY)
        turn("http", http, COMPLETIONS)
        turn("paused", bare, max(0.0, medians["http"][-1] - medians["bare"][-1]))
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join(30)
        process.kill()
    return _gateway_rows({name: rounds[1:] for name, rounds in medians.items()})


def _gateway_rows(medians: dict[str, list[float]]) -> list[Row]:
    """Rows of the medians of each round, in seconds."""
    p50 = {name: statistics.median(times) * 1e3 for name, times in medians.items()}
    note = (
        f"p50 {p50['http']:.1f} ms over HTTP with a token, {p50['bare']:.1f} ms by vLLM's own serving class in the engine's "
        f"process, {p50['paused']:.1f} ms by it with pauses, {p50['empty']:.1f} ms by an empty route; nano model, "
        f"{BODY['max_tokens']} tokens, one at a time"
    )

    def difference(to: str) -> float:
        return statistics.median(h - b for h, b in zip(medians["http"], medians[to], strict=True)) * 1e3

    def ratio(to: str) -> float:
        return statistics.median(h / b for h, b in zip(medians["http"], medians[to], strict=True))

    return [
        row("completion: HTTP − bare engine, p50", difference("bare"), "ms", "≤ 5", note),
        row("completion: HTTP ÷ bare engine, p50", ratio("bare"), "×", "", note),
        row("completion: HTTP − bare engine with pauses, p50", difference("paused"), "ms", "≤ 5", note),
        row("completion: HTTP ÷ bare engine with pauses, p50", ratio("paused"), "×", "", note),
    ]


def bare_side(pipe: Connection, store: str) -> None:
    from cluster.engine import Engine, OpenAi
    from trainers.checkpoints import materialise, resolve

    async def main() -> None:
        directory = materialise(resolve(store, BODY["model"]), learner=False) / "model"
        engine = await Engine.start(directory, ENGINE)
        openai = OpenAi(engine, max_tokens=BODY["max_tokens"])
        pipe.send(True)
        while (pause_s := await asyncio.to_thread(pipe.recv)) is not None:
            seconds = []
            for _ in range(REQUESTS):
                await asyncio.sleep(pause_s)
                started = time.perf_counter()
                answer = await openai.completion(BODY)
                seconds.append(time.perf_counter() - started)
                assert answer["usage"]["completion_tokens"] == BODY["max_tokens"]
            pipe.send(seconds)
        await engine.close()

    asyncio.run(main())


def http_side(pipe: Connection, store: str) -> None:
    """Asks the route that comes through the pipe, each time as often as `bare_side` its engine."""
    import httpx

    from services import app
    from services.client import Client
    from services.config import ServiceConfig

    started = app.start(ServiceConfig(store=store, port=free_ports(1)[0], engine=ENGINE))
    with Client(started.url, started.token) as service:
        while not service.is_ready():
            time.sleep(0.2)
    _add_empty_route()
    headers = {"Authorization": f"Bearer {started.token}"}
    with httpx.Client(base_url=started.url, headers=headers, timeout=60) as http:
        pipe.send(True)
        while route := pipe.recv():
            seconds = []
            for _ in range(REQUESTS):
                began = time.perf_counter()
                answer = http.post(route, json=BODY)
                seconds.append(time.perf_counter() - began)
                assert answer.status_code == 200
                assert route == EMPTY or answer.json()["usage"]["completion_tokens"] == BODY["max_tokens"]
            pipe.send(seconds)
    app.stop()


def _add_empty_route() -> None:
    from ray import serve

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Empty:
        async def __call__(self) -> str:
            return "{}"

    serve.run(Empty.bind(), name="empty", route_prefix=EMPTY)


# An evaluation


def verifier_row(store: Path) -> Row:
    """One engine plays the same items in turn with verdicts of a verifier actor and of its own process."""
    with ray_here():
        seconds, turns = asyncio.run(_played_by_both(store))
    ratio = statistics.median(a / p for a, p in zip(seconds["actor"], seconds["process"], strict=True))
    note = (
        f"{statistics.median(seconds['actor']):.2f} against {statistics.median(seconds['process']):.2f} s; GeneralPoints, "
        f"{ITEMS} items, {turns} verdicts, answers of up to {TOKENS} tokens, {ENGINE.max_num_seqs} episodes at once"
    )
    return row("evaluation: verdicts of an actor ÷ in process", ratio, "×", "", note)


class InProcess:
    """Verdicts where the engine is."""

    async def verify(self, task: Any, state: Any, answer: str) -> Any:
        import envs

        return envs.make(task.environment, **task.options).verify(task, state, answer)

    async def close(self) -> None: ...


async def _played_by_both(store: Path) -> tuple[dict[str, list[float]], int]:
    from services.config import ServiceConfig
    from services.engines.deployment import start_engine, verifiers
    from services.engines.replica import EngineReplica
    from services.evaluations.orders import EvaluationOrder, PlayOrder
    from trainers.checkpoints import resolve

    config = ServiceConfig(store=str(store), engine=ENGINE)
    judges = {"actor": verifiers(1), "process": InProcess()}
    replica = EngineReplica(config, lambda path, version: start_engine(config, path, version), judges["actor"])
    order = EvaluationOrder(checkpoint=BODY["model"], n=ITEMS, viter=VITER, max_tokens=TOKENS)
    checkpoint = resolve(str(store), order.checkpoint)
    seconds: dict[str, list[float]] = {name: [] for name in judges}
    turns = 0
    for _ in range(ROUNDS + 1):
        for name, judge in judges.items():
            replica.verifiers = judge
            started = time.perf_counter()
            play = PlayOrder(checkpoint=checkpoint, suite="general_points/id", indices=tuple(range(ITEMS)), order=order)
            items = [item async for batch in replica.play(play) for item in batch]
            seconds[name].append(time.perf_counter() - started)
            turns = sum(len(item.turns) for item in items)
            assert len(items) == ITEMS
    await replica.close()
    return {name: times[1:] for name, times in seconds.items()}, turns
