"""The service as a whole: answers, evaluations, and what it survives."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from openai import AsyncOpenAI, AuthenticationError, NotFoundError, OpenAI

from envs.base import ConfigError, DataError, ViterError
from services.client import Client, ServiceError
from services.config import ServiceConfig
from services.evaluations.events import Event
from services.registry import ModelCard
from tests.services.served.names import FIRST, QUESTION, SECOND

pytestmark = pytest.mark.slow


def test_the_openai_client_works_unchanged(url: str, token: str, cards: dict[str, ModelCard]):
    with OpenAI(base_url=f"{url}/v1", api_key=token) as openai:
        assert [model.id for model in openai.models.list()] == [SECOND, FIRST] == list(cards)
        answer = openai.chat.completions.with_raw_response.create(
            model="nano@latest", messages=QUESTION, max_tokens=8, temperature=0
        )
        assert answer.headers["x-checkpoint-digest"] == cards[SECOND].metadata.digest
        chat = answer.parse()
        assert chat.model == SECOND
        assert chat.usage.completion_tokens <= 8
        text = openai.completions.create(model=FIRST, prompt="Cards:", max_tokens=4, n=2, logprobs=1)
        assert (text.model, len(text.choices)) == (FIRST, 2)


def test_a_stream_says_what_the_whole_answer_says(url: str, token: str):
    with OpenAI(base_url=f"{url}/v1", api_key=token) as openai:
        ask = {"model": FIRST, "messages": QUESTION, "max_tokens": 12, "temperature": 0}
        whole = openai.chat.completions.create(**ask)
        chunks = list(openai.chat.completions.create(**ask, stream=True))
    assert len(chunks) > 2
    assert {chunk.model for chunk in chunks} == {FIRST}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content


async def test_mixed_requests_are_each_answered_by_their_own_weights(url: str, token: str, cards: dict[str, ModelCard]):
    """Greedy answers of two checkpoints differ; interleaved, each must be what its checkpoint says alone."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=token) as openai:

        async def ask(name: str) -> str:
            answer = await openai.chat.completions.with_raw_response.create(
                model=name, messages=QUESTION, max_tokens=16, temperature=0
            )
            assert answer.headers["x-checkpoint-digest"] == cards[name].metadata.digest
            chat = answer.parse()
            assert chat.model == name
            return chat.choices[0].message.content

        alone = {name: await ask(name) for name in (FIRST, SECOND)}
        assert alone[FIRST] != alone[SECOND]
        names = [(FIRST, SECOND)[i % 2] for i in range(24)]
        async with asyncio.timeout(60):
            together = await asyncio.gather(*(ask(name) for name in names))
    assert together == [alone[name] for name in names]


def test_openai_clients_get_their_own_errors(url: str, token: str):
    with OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as openai, pytest.raises(AuthenticationError):
        openai.models.list()
    with OpenAI(base_url=f"{url}/v1", api_key=token) as openai:
        with pytest.raises(NotFoundError) as missing:
            openai.chat.completions.create(model="nano@step-000003", messages=QUESTION)
        assert missing.value.param == "model"
        assert FIRST in missing.value.message


@pytest.mark.parametrize(
    "body",
    [
        {"messages": "no list"},
        {"messages": [{"role": "user", "content": "x"}], "temperature": "hot"},
        {"messages": [{"role": "user", "content": "x"}], "chat_template": "{{ range(10**9) | list }}"},
        {"messages": [{"role": "user", "content": "x " * 5000}]},
    ],
)
def test_a_bad_request_is_the_callers_and_leaves_the_engine_alive(url: str, token: str, body: dict):
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.post(f"{url}/v1/chat/completions", json={"model": FIRST, **body}, headers=headers, timeout=30)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["message"]
    assert httpx.get(f"{url}/readyz").status_code == 200


def test_without_a_token_there_is_nothing(url: str):
    answer = httpx.get(f"{url}/v1/models")
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    with Client(url, "wrong") as stranger, pytest.raises(ConfigError, match="VITER_TOKEN"):
        stranger.models()


def test_a_large_body_is_refused_announced_or_not(url: str, token: str):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    assert httpx.post(f"{url}/v1/completions", content=b"x" * 65537, headers=headers).status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(20_000):
            yield b"x" * 1024

    with contextlib.suppress(httpx.TransportError):  # the connection may end under the sender
        assert httpx.post(f"{url}/v1/completions", content=endless(), headers=headers).status_code == 413
    assert httpx.get(f"{url}/livez").status_code == 200


def test_an_evaluation_runs_to_its_end_with_every_item(service: Client, cards: dict[str, ModelCard]):
    seen: list[int] = []
    ordered = service.evaluate("nano@latest", n=40, viter=2, decoding={"max_tokens": 16}, idempotency_key="once")
    assert (
        service.evaluate("nano@latest", n=40, viter=2, decoding={"max_tokens": 16}, idempotency_key="once").id
        == ordered.id
    )
    done = service.wait(ordered.id, lambda evaluation: seen.append(evaluation.counts.done), deadline_s=120)
    assert (done.status, done.model, done.digest) == ("completed", SECOND, cards[SECOND].metadata.digest)
    assert seen == sorted(seen)
    assert done.results is not None
    assert [(result.kind, result.n) for result in done.results] == [("id", 40), ("ood", 40)]
    items = list(service.items(ordered.id))
    assert len({item.id for item in items}) == len(items) == 80
    assert {item.digest for item in items} == {done.digest}
    for result in done.results:
        own = [item for item in items if item.suite == result.suite]
        assert result.tokens.decoded == sum(turn.tokens for item in own for turn in item.turns)
        assert result.flops == 2 * 800_000 * (result.tokens.decoded + result.tokens.prefill)


def test_the_same_order_gives_the_same_episodes(service: Client):
    ids = []

    def played() -> dict[str, list[str]]:
        evaluation = service.evaluate(
            FIRST, n=12, viter=2, decoding={"max_tokens": 16, "seed": 7}, suites=["general_points/id"]
        )
        service.wait(evaluation.id, deadline_s=60)
        ids.append(evaluation.id)
        return {item.id: [turn.answer for turn in item.turns] for item in service.items(evaluation.id)}

    assert played() == played()
    (compared,) = service.compare(*ids).suites
    assert compared.success is not None
    assert (compared.n, compared.success.won, compared.success.lost) == (12, 0, 0)


def kill(title: str) -> None:
    """Kill the one process of this service whose title has these words."""
    found = [p for p in psutil.Process().children(recursive=True) if title in " ".join(p.cmdline())]
    assert len(found) == 1, found
    os.kill(found[0].pid, signal.SIGKILL)


def test_killing_the_manager_and_then_the_engine_costs_no_item_and_repeats_none(service: Client, state: Path):
    ordered = service.evaluate(FIRST, n=300, viter=3, decoding={"max_tokens": 32}, suites=["general_points/id"])

    def wait_for(done: int) -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with contextlib.suppress(ViterError):  # while the manager is being replaced
                if service.evaluation(ordered.id).counts.done >= done:
                    return
            time.sleep(0.1)
        raise AssertionError(f"{done} items were not reached")

    heard: list[Event] = []
    listening = threading.Thread(target=lambda: heard.extend(service.events(ordered.id)), daemon=True)
    listening.start()
    wait_for(20)
    kill("ServeReplica:viter:evaluations")
    wait_for(120)
    kill("ServeReplica:viter:replica")
    wait_for(300)
    done = service.wait(ordered.id, deadline_s=60)
    assert done.status == "completed"
    lines = (state / "evaluations" / ordered.id / "items.jsonl").read_bytes().splitlines()
    items = list(service.items(ordered.id))
    assert len(lines) == len(items) == len({item.id for item in items}) == 300
    listening.join(30)
    assert [event.data["id"] for event in heard if event.event == "item"] == [item.id for item in items]
    assert heard[-1].event == "end"
    assert service.chat(SECOND, QUESTION, max_tokens=2)["model"] == SECOND


def test_a_checkpoint_that_is_committed_now_is_measured_by_itself(service: Client, state: Path):
    from trainers.checkpoints import CheckpointInfo, Checkpoints
    from trainers.nano import model

    info = CheckpointInfo(parents=(), metrics={}, compute={}, config={}, world_size=1)
    Checkpoints(state, "grown").commit(1, lambda path: model.create(path / "model", seed=3), info)
    end = time.monotonic() + 60
    while not (found := service.evaluations(run="grown")):
        assert time.monotonic() < end
        time.sleep(0.2)
    done = service.wait(found[0].id, deadline_s=60)
    assert (len(found), done.status, done.ordered_by, done.counts.done) == (1, "completed", "service", 8)
    assert service.evaluations(run="nano", status="queued") == []


def test_a_checkpoint_damaged_on_disk_is_refused_and_the_others_go_on(service: Client, state: Path):
    from trainers.checkpoints import CheckpointInfo, Checkpoints
    from trainers.nano import model

    info = CheckpointInfo(parents=(), metrics={}, compute={}, config={}, world_size=1)
    Checkpoints(state, "torn").commit(1, lambda path: model.create(path / "model", seed=9), info)
    weights = state / "torn" / "checkpoints" / "step-000001" / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ServiceError, match=r"torn holds no intact checkpoint: .* sha256"):
        service.chat("torn@latest", QUESTION, max_tokens=2)
    assert "torn@step-000001" not in [card.id for card in service.models()]
    assert service.chat(FIRST, QUESTION, max_tokens=2)["model"] == FIRST


def test_unknown_names_are_one_sentence_in_the_client(service: Client):
    with pytest.raises(DataError, match="nearest"):
        service.evaluate("nano@step-000099")


def test_a_taken_port_is_one_sentence_and_starts_nothing(url: str, config: ServiceConfig):
    from services import app

    with pytest.raises(ConfigError, match=rf"{config.port}.*--port"):
        app.start(config)
    assert httpx.get(f"{url}/livez").status_code == 200
