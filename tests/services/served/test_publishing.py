"""Checkpoints that are committed while others are asked: none is missed, none mixed, no request lost."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from trainers.checkpoints import Checkpoint, CheckpointInfo, Checkpoints
from trainers.nano import model

pytestmark = pytest.mark.slow

STEPS = (2, 3, 4)
CLIENTS = 6
WAIT_S = 60.0
ASK = {"prompt": "Cards:", "max_tokens": 24, "temperature": 0}


def commit(store: Path, step: int) -> Checkpoint:
    info = CheckpointInfo(parents=(), metrics={}, compute={}, config={}, world_size=1)
    return Checkpoints(store, "live").commit(step, lambda path: model.create(path / "model", seed=100 + step), info)


async def test_new_checkpoints_answer_while_traffic_goes_on(url: str, token: str, state: Path):
    digests = {commit(state, 1).name: Checkpoints(state, "live").get(1).digest}
    headers = {"Authorization": f"Bearer {token}"}
    answered: dict[str, set[str]] = {}
    asked = 0
    is_over = False

    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=WAIT_S) as http:

        async def ask(name: str) -> str:
            nonlocal asked
            asked += 1
            answer = await http.post("/v1/completions", json={"model": name, **ASK})
            assert answer.status_code == 200, answer.text
            body = answer.json()
            assert answer.headers["x-checkpoint-digest"] == digests[body["model"]]
            assert name in (body["model"], "live@latest")
            answered.setdefault(body["model"], set()).add(body["choices"][0]["text"])
            return body["model"]

        async def traffic(name: str) -> None:
            while not is_over:
                await ask(name)

        clients = [asyncio.create_task(traffic(("live@latest", "live@step-000001")[i % 2])) for i in range(CLIENTS)]
        for step in STEPS:
            fresh = await asyncio.to_thread(commit, state, step)
            digests[fresh.name] = fresh.digest
            deadline = time.monotonic() + WAIT_S
            while fresh.name not in answered:  # the traffic on live@latest reaches it by itself
                assert time.monotonic() < deadline
                assert not any(client.done() for client in clients), [c.exception() for c in clients if c.done()]
                await asyncio.sleep(0.01)
        is_over = True
        await asyncio.gather(*clients)
        assert set(answered) == set(digests)
        assert asked > CLIENTS * len(STEPS)
        texts = {name: answered[name].copy() for name in digests}
        for name in digests:
            await ask(name)
        assert answered == texts  # what each said amid the traffic is what it says alone
        assert all(len(said) == 1 for said in answered.values())
        assert len({next(iter(said)) for said in answered.values()}) == len(digests)
