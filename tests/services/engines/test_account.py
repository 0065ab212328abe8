"""What an engine's replica tells of itself, through a replica whose engine is made up."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

import envs
from cluster.verifiers import JudgeDied, VerifierPool, VerifierWorker
from envs import suites
from services.config import ServiceConfig
from services.engines.account import CountedStream, VerifierAccount, with_usage
from services.engines.replica import EngineReplica
from services.evaluations.orders import EvaluationOrder, PlayOrder
from tests.meters import Remembered
from tests.services.engines.test_replica import SUITE, Expert, Judge, ask, commit

USAGE = {"prompt_tokens": 5, "completion_tokens": 3}


def event(**body: Any) -> str:
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n"


WORDS = [event(choices=[{"delta": {"content": word}}]) for word in ("a", "b")]


class Completions:
    """Tells a stream's usage where it was asked for, as vLLM does."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    async def chat(self, body: dict[str, Any]) -> dict[str, Any] | AsyncGenerator[str, None]:
        self.bodies.append(body)
        return self._stream(body) if body.get("stream") else {"model": body["model"], "usage": USAGE}

    async def _stream(self, body: dict[str, Any]) -> AsyncGenerator[str, None]:
        for word in WORDS:
            yield word
        if (body.get("stream_options") or {}).get("include_usage"):
            yield event(choices=[], usage=USAGE)
        yield "data: [DONE]\n\n"


@pytest.fixture
def meters() -> Remembered:
    return Remembered()


@pytest.fixture
def replica(tmp_path: Path, meters: Remembered) -> EngineReplica:
    engines: list[Expert] = []
    completions = Completions()

    async def start(directory: Path, version: int):
        engines.append(Expert(directory, version))
        return engines[-1], completions

    config = ServiceConfig(store=str(tmp_path), episodes_in_flight=3, patience_s=0.0)
    return EngineReplica(config, start, VerifierPool([Judge()], deadline_s=0.2), meters)


async def test_loads_and_tokens_are_counted_and_what_is_held_is_shown(
    replica: EngineReplica, meters: Remembered, tmp_path: Path
):
    first, second = commit(tmp_path, 1), commit(tmp_path, 2)
    for checkpoint in (first, second, second):
        await ask(replica, checkpoint)
    await replica.check_health()
    assert meters.counted["engine_swaps_total", "start"] == 1
    assert meters.counted["engine_swaps_total", "in_place"] == 1
    assert len(meters.seen["engine_swap_seconds", "in_place"]) == 1
    assert meters.counted["tokens_total", "prompt", "completion"] == 15
    assert meters.counted["tokens_total", "sampled", "completion"] == 9
    held = [key for key in meters.gauges if key[0] == "engine_holds"]
    assert held == [("engine_holds", second.digest[:12])]
    assert meters.gauges["engine_requests",] == meters.gauges["engine_waiting",] == 0
    await replica.close()


@pytest.mark.parametrize("asked", [None, {"include_usage": False}, {"include_usage": True}])
async def test_a_streams_tokens_are_counted_and_told_to_clients_who_asked(
    replica: EngineReplica, meters: Remembered, tmp_path: Path, asked: dict[str, bool] | None
):
    checkpoint = commit(tmp_path, 1)
    body = {"model": "m", "stream": True} | ({"stream_options": asked} if asked else {})
    _, *events = [a async for a in replica.complete("chat", body, checkpoint, 10.0)]
    wants = bool(asked and asked["include_usage"])
    assert events == [*WORDS, *([event(choices=[], usage=USAGE)] if wants else []), "data: [DONE]\n\n"]
    assert meters.counted["tokens_total", "prompt", "completion"] == 5
    assert meters.counted["tokens_total", "sampled", "completion"] == 3
    await replica.close()


@pytest.mark.parametrize("options", [[], "text", 3])
def test_stream_options_that_are_none_reach_the_engine_as_they_came(options: Any):
    """The engine refuses them in its own words."""
    body = {"stream": True, "stream_options": options}
    assert with_usage(body)["stream_options"] in (options, {"include_usage": True})
    assert with_usage({"stream_options": options}) == {"stream_options": options}


async def test_a_stream_that_is_given_up_ends_the_engines_work():
    closed: list[bool] = []

    async def endless() -> AsyncGenerator[str, None]:
        try:
            while True:
                yield WORDS[0]
        finally:
            closed.append(True)

    stream = CountedStream(endless(), {}).pass_on()
    assert await anext(stream) == WORDS[0]
    await stream.aclose()
    assert closed == [True]


async def test_evaluated_episodes_are_timed_and_their_tokens_and_verdicts_counted(
    replica: EngineReplica, meters: Remembered, tmp_path: Path
):
    checkpoint = commit(tmp_path, 1)
    order = EvaluationOrder(checkpoint=checkpoint.name, n=8, viter=3)
    played = PlayOrder(checkpoint=checkpoint, suite=SUITE, indices=(0, 1, 2), order=order)
    items = [item async for batch in replica.play(played) for item in batch]
    assert len(meters.seen["evaluation_item_seconds",]) == 3
    assert meters.counted["tokens_total", "sampled", "episode"] == sum(item.decoded_tokens for item in items)
    prompt = sum(item.prefill_tokens - item.cached_tokens for item in items)
    assert meters.counted["tokens_total", "prompt", "episode"] == prompt > 0
    assert 1 <= len(meters.seen["verify_seconds",]) <= 6  # two verdicts each, in batches
    await replica.close()


async def test_calls_that_a_verifier_lost_are_counted_once(meters: Remembered):
    class Gone(Judge):
        async def judge(self, questions):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 1:
                raise JudgeDied("gone")
            return VerifierWorker().judge(questions)

    account = VerifierAccount(meters)
    pool = VerifierPool([Gone()], on_call=account.judged)
    task = suites.load(SUITE, 8).tasks[0]
    state = envs.make(task.environment, **task.options).start(task)
    await pool.verify(task, state, "{}")
    for _ in range(3):
        account.show(pool.stats)
    assert meters.counted["verify_failures_total", "crashed"] == 1
    assert meters.counted["verify_failures_total", "timeout"] == 0
    assert len(meters.seen["verify_seconds",]) == 1
    await pool.close()
