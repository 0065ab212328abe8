"""Who may use the engine: the order of events, with an engine that only notes what it is told to hold."""

import asyncio
from collections.abc import Callable

import pytest

from services.engines.leases import Leases


class Notes:
    """An engine that is slow to load, and writes down what happens."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.broken: set[str] = set()

    async def load(self, key: str) -> None:
        self.events.append(f"load {key}")
        await asyncio.sleep(0)
        if key in self.broken:
            raise ValueError(f"{key} is broken")


async def use(leases: Leases, notes: Notes, key: str, name: str, until: asyncio.Event) -> None:
    async with leases.lease(key):
        assert leases.held == key
        notes.events.append(f"{name} in")
        await until.wait()
        assert leases.held == key
        notes.events.append(f"{name} out")


async def eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.001)


async def test_requests_for_one_checkpoint_share_the_engine():
    notes, done = Notes(), asyncio.Event()
    leases = Leases(notes.load, patience_s=1)
    both = [asyncio.create_task(use(leases, notes, "a", name, done)) for name in ("1", "2")]
    await eventually(lambda: "2 in" in notes.events)  # counted as a user a moment before
    assert leases.users == 2
    done.set()
    await asyncio.gather(*both)
    assert notes.events == ["load a", "1 in", "2 in", "1 out", "2 out"]


async def test_weights_never_change_under_a_request():
    notes, first_done, second_done = Notes(), asyncio.Event(), asyncio.Event()
    leases = Leases(notes.load, patience_s=1)
    first = asyncio.create_task(use(leases, notes, "a", "1", first_done))
    await eventually(lambda: leases.users == 1)
    second = asyncio.create_task(use(leases, notes, "b", "2", second_done))
    await asyncio.sleep(0.01)
    assert notes.events == ["load a", "1 in"]
    first_done.set()
    second_done.set()
    await asyncio.gather(first, second)
    assert notes.events == ["load a", "1 in", "1 out", "load b", "2 in", "2 out"]


async def test_the_held_checkpoint_may_be_joined_while_patience_lasts():
    notes, done = Notes(), asyncio.Event()
    leases = Leases(notes.load, patience_s=60)
    first = asyncio.create_task(use(leases, notes, "a", "1", done))
    await eventually(lambda: leases.users == 1)
    other = asyncio.create_task(use(leases, notes, "b", "2", done))
    joined = asyncio.create_task(use(leases, notes, "a", "3", done))
    await eventually(lambda: leases.users == 2)
    done.set()
    await asyncio.gather(first, other, joined)
    assert notes.events[:4] == ["load a", "1 in", "3 in", "1 out"]


async def test_nobody_starves_once_patience_is_over():
    """A stream of requests for a, each overlapping the next, and one for b amid them."""
    notes = Notes()
    leases = Leases(notes.load, patience_s=0.0)
    ends = [asyncio.Event() for _ in range(3)]
    first = asyncio.create_task(use(leases, notes, "a", "1", ends[0]))
    await eventually(lambda: leases.users == 1)
    other = asyncio.create_task(use(leases, notes, "b", "2", ends[1]))
    await asyncio.sleep(0)
    late = asyncio.create_task(use(leases, notes, "a", "3", ends[2]))
    for end in ends:
        end.set()
    await asyncio.gather(first, other, late)
    assert notes.events == ["load a", "1 in", "1 out", "load b", "2 in", "2 out", "load a", "3 in", "3 out"]


async def test_everybody_gets_in_once_under_any_mix():
    notes, done = Notes(), asyncio.Event()
    done.set()
    leases = Leases(notes.load, patience_s=0.001)
    async with asyncio.timeout(10):
        await asyncio.gather(*(use(leases, notes, "abc"[i % 3], str(i), done) for i in range(300)))
    assert sorted(e for e in notes.events if e.endswith("in")) == sorted(f"{i} in" for i in range(300))
    assert leases.users == 0


async def test_a_checkpoint_that_cannot_be_loaded_is_the_error_of_those_who_want_it():
    notes, done = Notes(), asyncio.Event()
    done.set()
    notes.broken.add("bad")
    leases = Leases(notes.load, patience_s=1)
    answers = await asyncio.gather(
        *(use(leases, notes, key, key, done) for key in ("bad", "good", "bad")), return_exceptions=True
    )
    assert [type(answer).__name__ for answer in answers] == ["ValueError", "NoneType", "ValueError"]
    assert leases.held == "good"


async def test_giving_up_in_line_leaves_the_line_moving():
    notes, first_done, done = Notes(), asyncio.Event(), asyncio.Event()
    done.set()
    leases = Leases(notes.load, patience_s=0)
    first = asyncio.create_task(use(leases, notes, "a", "1", first_done))
    await eventually(lambda: leases.users == 1)
    quitter = asyncio.create_task(use(leases, notes, "b", "2", done))
    third = asyncio.create_task(use(leases, notes, "c", "3", done))
    await asyncio.sleep(0.01)
    quitter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await quitter
    first_done.set()
    await asyncio.gather(first, third)
    assert notes.events == ["load a", "1 in", "1 out", "load c", "3 in", "3 out"]


async def test_giving_up_while_the_checkpoint_is_being_loaded_frees_its_place():
    gate = asyncio.Event()

    async def slow(_: str) -> None:
        await gate.wait()

    leases = Leases(slow, patience_s=0)
    done = asyncio.Event()
    done.set()
    quitter = asyncio.create_task(use(leases, Notes(), "a", "1", done))
    await asyncio.sleep(0.01)
    quitter.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await quitter
    async with asyncio.timeout(5):
        await use(leases, Notes(), "b", "2", done)
    assert leases.users == 0


async def test_forgetting_loads_again():
    notes, done = Notes(), asyncio.Event()
    done.set()
    leases = Leases(notes.load, patience_s=0)
    await use(leases, notes, "a", "1", done)
    leases.forget()
    await use(leases, notes, "a", "2", done)
    assert notes.events.count("load a") == 2
