"""Waiting for a change, for a failure, and for the first of endless tasks to end."""

import asyncio

import pytest

from cluster.waiting import Signal, until_one_ends


async def test_who_waits_wakes_when_it_is_so_and_not_before():
    signal, seen = Signal(), []
    waiting = asyncio.create_task(signal.wait_for(lambda: len(seen) == 2))
    for value in range(2):
        await asyncio.sleep(0)
        assert not waiting.done()
        seen.append(value)
        await signal.notify()
    await asyncio.wait_for(waiting, 5)


async def test_the_first_failure_ends_every_wait_those_to_come_too():
    signal = Signal()
    waiting = asyncio.create_task(signal.wait_for(lambda: False))
    await asyncio.sleep(0)
    await signal.fail(ValueError("first"))
    await signal.fail(ValueError("second"))
    for wait in (waiting, signal.wait_for(lambda: True)):
        with pytest.raises(ValueError, match="first"):
            await asyncio.wait_for(wait, 5)


async def test_the_first_that_raises_ends_the_others():
    ended = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    async def broken() -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await asyncio.wait_for(until_one_ends(endless(), broken()), 5)
    assert ended == ["endless"]
