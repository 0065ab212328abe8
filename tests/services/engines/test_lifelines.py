"""Calls to a replica that is gone are ended, whatever the way they went says; those to others, and answered ones, are not."""

import asyncio
from contextlib import ExitStack

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from services.engines.lifelines import Lifelines

LOOK_EVERY_S = 0.01


class Call:
    def __init__(self, request_id: str):
        self.request_id, self.cancelled = request_id, False

    def cancel(self) -> None:
        self.cancelled = True


class Replica:
    """One that says of itself what `says` holds, and is looked at."""

    def __init__(self, name: str, says: Exception | None = None):
        self.replica_id, self.says, self.looked = name, says, 0

    async def get_queue_len(self, *, deadline_s: float) -> int:
        self.looked += 1
        if self.says is not None:
            raise self.says
        return 1


@pytest.fixture
def lifelines() -> Lifelines:
    return Lifelines(look_every_s=LOOK_EVERY_S)


async def looks() -> None:
    await asyncio.sleep(10 * LOOK_EVERY_S)


async def test_those_at_a_replica_that_died_are_ended_and_the_router_hears_of_it(lifelines: Lifelines):
    first, second, elsewhere = Call("1"), Call("2"), Call("3")
    gone, well, heard = Replica("gone"), Replica("well"), []
    with ExitStack() as held:
        for call, replica in ((first, gone), (second, gone), (elsewhere, well)):
            held.enter_context(lifelines.held(call))
            lifelines.sent(call.request_id, replica, on_gone=heard.append)
        await looks()
        assert not first.cancelled
        gone.says = ActorDiedError()
        await looks()
        assert (first.cancelled, second.cancelled, elsewhere.cancelled) == (True, True, False)
        assert heard == ["gone"]


async def test_one_that_cannot_be_reached_for_a_moment_is_waited_for(lifelines: Lifelines):
    call, away = Call("1"), Replica("away", ActorUnavailableError("away", None))
    with lifelines.held(call):
        lifelines.sent("1", away, on_gone=pytest.fail)
        await looks()
        assert away.looked > 1
        assert not call.cancelled


async def test_a_call_that_another_replica_took_is_no_longer_at_the_first(lifelines: Lifelines):
    call, heard = Call("1"), []
    with lifelines.held(call):
        lifelines.sent("1", Replica("refused", ActorDiedError()), on_gone=heard.append)
        lifelines.sent("1", Replica("took"), on_gone=heard.append)
        await looks()
        assert not call.cancelled


async def test_nobody_is_looked_at_for_calls_that_are_answered_or_end_by_themselves(lifelines: Lifelines):
    replica = Replica("well")
    with lifelines.held(Call("1")):
        lifelines.sent("1", replica, on_gone=pytest.fail)
    lifelines.sent("stream", replica, on_gone=pytest.fail)
    await looks()
    looked = replica.looked
    assert looked <= 1
    await looks()
    assert replica.looked == looked


async def test_two_calls_with_one_id_are_ended_both(lifelines: Lifelines):
    """A client may give its requests an id of its own, and the same one twice."""
    first, second = Call("same"), Call("same")
    with lifelines.held(first):
        with lifelines.held(second):
            lifelines.sent("same", Replica("well"), on_gone=pytest.fail)
        lifelines.sent("same", Replica("gone", ActorDiedError()), on_gone=lambda _: None)
        await looks()
    assert first.cancelled
    assert not second.cancelled
