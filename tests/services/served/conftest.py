"""The service for real: Ray Serve, vLLM, two nano checkpoints, HTTP. One service for all tests of this folder."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config import EngineConfig
from services.client import Client, saved_token
from services.config import EvaluateNew, LimitsConfig, ServiceConfig
from services.registry import ModelCard

START_S = 180.0


@pytest.fixture(scope="package")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two checkpoints of one architecture: the same shapes, other weights."""
    from trainers.checkpoints import CheckpointInfo, Checkpoints
    from trainers.nano import model

    store = tmp_path_factory.mktemp("store")
    for step in (1, 2):
        info = CheckpointInfo(parents=(), metrics={}, compute={"parameters": 800_000}, config={}, world_size=1)
        Checkpoints(store, "nano").commit(step, lambda path, seed=step: model.create(path / "model", seed=seed), info)
    return store


@pytest.fixture(scope="package")
def config(state: Path) -> ServiceConfig:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return ServiceConfig(
        store=str(state),
        port=port,
        engine=EngineConfig(dtype="float32", kv_cache_gib=0.25, prefix_cache=False),
        limits=LimitsConfig(body_bytes=65536, max_tokens=64),
        patience_s=0.2,
        episodes_in_flight=32,
        evaluate_new=EvaluateNew(n=8, viter=2, suites=("general_points/id",)),
    )


@pytest.fixture(scope="package")
def url(config: ServiceConfig) -> Iterator[str]:
    from services import app

    started = app.start(config)
    assert started.token == saved_token(config.store)
    with Client(started.url, started.token) as service:
        deadline = time.monotonic() + START_S
        while not service.is_ready():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield started.url
    app.stop()


@pytest.fixture(scope="package")
def token(state: Path, url: str) -> str:
    found = saved_token(state)
    assert found is not None
    return found


@pytest.fixture(scope="package")
def service(url: str, token: str) -> Iterator[Client]:
    with Client(url, token) as made:
        yield made


@pytest.fixture(scope="package")
def cards(service: Client) -> dict[str, ModelCard]:
    return {card.id: card for card in service.models()}
