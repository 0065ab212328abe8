"""How a replica is asked: who stops to listen ends its work, and a replica that died at once is replaced by another."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from typing import Any

import pytest
from ray.serve.exceptions import RequestCancelledError

from cluster.engine.reply import EngineDead
from services.engines.calls import asked_again, told, told_once


class Response:
    """As Serve's: one that can be awaited, or iterated over, and cancelled."""

    request_id = "1"

    def __init__(self, *parts: str, ends: bool = True):
        self.parts, self.ends, self.cancelled = parts, ends, False

    def __await__(self) -> Generator[Any, None, str]:
        if self.cancelled:
            raise RequestCancelledError
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


async def test_an_answer_that_was_ended_because_its_replica_is_gone_says_so():
    response = Response("whole")
    response.cancel()
    with pytest.raises(EngineDead):
        await heard(told_once(response))


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
