"""The real routes behind a real HTTP server in a thread of this process; only the engine is made up."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from services.config import LimitsConfig
from services.evaluations.jobs import Evaluations
from services.evaluations.journal import Journal
from services.evaluations.orders import Play
from services.http.tokens import Tokens, ensure_token
from services.http.web import web
from services.registry import Registry
from services.runs.jobs import Cluster
from services.runs.runs import Runs
from tests.services.conftest import Player
from tests.services.http.test_web import LocalService


@contextmanager
def listening(store: Path, play: Play, serve: Callable[[Evaluations], FastAPI], *, port: int = 0) -> Iterator[str]:
    """The URL of `serve`'s application over the evaluations of `store`, played by `play`, until the block ends."""
    listener = socket.create_server(("127.0.0.1", port))
    is_up, ended = threading.Event(), threading.Event()
    servers: list[uvicorn.Server] = []

    async def run() -> None:
        jobs = Evaluations(Journal(store), Registry(str(store)), play)
        await jobs.start()
        servers.append(uvicorn.Server(uvicorn.Config(serve(jobs), log_level="error", lifespan="off")))
        is_up.set()
        await servers[0].serve(sockets=[listener])
        await jobs.close()
        ended.set()

    threading.Thread(target=asyncio.run, args=(run(),), daemon=True).start()
    assert is_up.wait(20)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        servers[0].should_exit = True
        assert ended.wait(20)


@dataclass(frozen=True)
class Running:
    url: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@contextmanager
def running(store: Path, *, limits: LimitsConfig | None = None, cluster: Cluster | None = None) -> Iterator[Running]:
    """The service of `store` until the block ends. Its runs go to `cluster`; one that trains none, if left out."""
    token = ensure_token(store / "service")
    assert token is not None

    def serve(jobs: Evaluations) -> FastAPI:
        service = LocalService(store, jobs)
        if cluster is not None:
            service.runs = Runs(str(store), cluster)
        return web(service, tokens=Tokens.load(store / "service"), limits=limits or LimitsConfig())

    with listening(store, Player(), serve) as url:
        yield Running(url, token)
