"""How a replica is asked: who stops to listen ends its work, and a replica that died at once is replaced by another."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.engine.reply import EngineDead
from services.engines import lifelines
from services.engines.calls import Silent, asked_again, replicas_of, told, told_once
from services.engines.lifelines import Call, Lifelines, Line


class Response:
    """As Serve's: one that can be awaited, or iterated over, and cancelled."""

    request_id = "1"

    def __init__(self, *parts: str, ends: bool = True):
        self.parts, self.ends, self.cancelled = parts, ends, False

    def __await__(self) -> Generator[Any, None, str]:
        if self.cancelled:
            raise RuntimeError("Serve's own word for an answer that was cancelled")
        if not self.ends:
            yield from asyncio.Event().wait().__await__()
        return self.parts[0]

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        for part in self.parts:
            yield part
        if not self.ends:
            await asyncio.Event().wait()

    def cancel(self) -> None:
        self.cancelled = True


async def heard(answers: AsyncGenerator[str, None]) -> list[str]:
    return [answer async for answer in answers]


@pytest.mark.parametrize("way", [told, told_once])
async def test_an_answer_that_ended_is_not_cancelled(way):
    response = Response("whole")
    assert await heard(way(response)) == ["whole"]
    assert not response.cancelled


@pytest.mark.parametrize("way", [told, told_once])
async def test_whoever_stops_to_listen_ends_the_work(way):
    response = Response(*(["begun"] if way is told else []), ends=False)
    listening = asyncio.create_task(heard(way(response)))
    await asyncio.sleep(0.01)
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    assert response.cancelled


class Gone(Lifelines):
    """Every replica is gone before it answers."""

    @contextmanager
    def held(self, call: Call) -> Iterator[Line]:
        with super().held(call) as line:
            line.is_cut = True
            call.cancel()
            yield line


async def test_an_answer_that_was_ended_because_its_replica_is_gone_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lifelines, "HERE", Gone())
    with pytest.raises(Silent):
        await heard(told_once(Response("whole")))


async def test_an_answer_that_failed_otherwise_tells_its_own_error():
    response = Response("whole")
    response.cancel()
    with pytest.raises(RuntimeError, match="own word"):
        await heard(told_once(response))


async def test_whoever_stops_in_the_moment_in_which_the_replica_is_gone_has_stopped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lifelines, "HERE", Gone())

    async def listen() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await heard(told_once(Response("whole")))

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(listen())


async def test_a_stream_left_half_way_is_ended():
    response = Response("one", "two")
    async with aclosing(told(response)) as answers:
        assert await anext(answers) == "one"
    assert response.cancelled


@pytest.mark.parametrize(("said_before", "asked"), [([], 2), (["begun"], 1)])
async def test_another_replica_is_asked_only_where_the_first_said_nothing(said_before: list[str], asked: int):
    asks = 0

    async def ask() -> AsyncGenerator[str, None]:
        nonlocal asks
        asks += 1
        for word in said_before:
            yield word
        if asks == 1:
            raise EngineDead("gone")
        yield "whole"

    if said_before:
        with pytest.raises(EngineDead):
            await heard(asked_again(ask))
    else:
        assert await heard(asked_again(ask)) == ["whole"]
    assert asks == asked


async def test_replicas_that_fell_silent_are_asked_past_until_one_answers():
    """All of a machine's do so at once, and no request is to blame."""
    asks = 0

    async def ask() -> AsyncGenerator[str, None]:
        nonlocal asks
        asks += 1
        if asks < 5:
            raise Silent("gone")
        yield "whole"

    assert await heard(asked_again(ask)) == ["whole"]
    assert asks == 5


@pytest.mark.parametrize(
    ("separate_loop", "stream", "by_reference"), [("0", False, False), ("0", True, True), ("1", False, True), (None, False, True)]
)  # fmt: skip
def test_a_call_goes_by_grpc_only_where_its_end_is_looked_after(
    separate_loop: str | None, stream: bool, by_reference: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP", raising=False)
    if separate_loop is not None:
        monkeypatch.setenv("RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP", separate_loop)
    handle, checkpoint = SimpleNamespace(options=lambda **options: options), SimpleNamespace(digest="digest")
    options = replicas_of(handle, checkpoint, stream=stream)
    assert (options["stream"], options["_by_reference"]) == (stream, by_reference)
