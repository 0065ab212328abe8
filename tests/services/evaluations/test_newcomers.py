"""What the service measures by itself: each new checkpoint once, and never before what people ordered."""

import asyncio
import time
from pathlib import Path

import pytest

from services.config import EvaluateNew
from services.evaluations import newcomers as watching
from services.evaluations import playing
from services.evaluations.jobs import Evaluations
from services.evaluations.journal import Journal
from services.evaluations.listing import EvaluationQuery
from services.evaluations.newcomers import Newcomers, due
from services.evaluations.orders import EvaluationOrder
from services.http.problems import Busy
from services.registry import ModelCard, ModelMetadata, Registry
from tests.services.conftest import Player, commit

SETTINGS = EvaluateNew(n=4, viter=2, suites=("general_points/id",))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playing, "JOURNAL_EVERY_S", 0.001)
    monkeypatch.setattr(watching, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr("services.registry.LISTING_AGE_S", 0.0)


def card(run: str, step: int, created: int) -> ModelCard:
    about = {"digest": f"{run}{step}", "aliases": [], "metrics": {}, "compute": {}, "parents": []}
    return ModelCard(id=f"{run}@{step}", created=created, metadata=ModelMetadata(run=run, step=step, **about))


def test_an_old_store_is_left_alone():
    assert due([card("a", 1, 10), card("a", 2, 20), card("b", 1, 30)], since=31.5) == []


def test_a_run_that_grows_is_measured_from_its_newest_on():
    cards = [card("a", 4, 40), card("a", 3, 30), card("a", 2, 20), card("a", 1, 10), card("b", 9, 15), card("c", 1, 35)]
    assert [each.id for each in due(cards, since=25.0)] == ["a@2", "a@3", "c@1", "a@4"]


async def until_ended(jobs: Evaluations, count: int) -> list[str]:
    async with asyncio.timeout(20):
        while True:
            jobs.check()
            found = (await jobs.page(EvaluationQuery(order="asc"))).data
            if len(found) >= count and all(each.has_ended for each in found):
                return [each.model for each in found]
            await asyncio.sleep(0.005)


def service(store: Path, player: Player, *, since: float, most_open: int = 64) -> Evaluations:
    registry = Registry(str(store))
    newcomers = Newcomers(registry, SETTINGS, since=since)
    return Evaluations(Journal(store), registry, player, most_open=most_open, newcomers=newcomers)


async def test_each_new_checkpoint_is_measured_once_over_every_restart(store: Path, player):
    since = time.time() - 100  # all of this store's are new
    first = service(store, player, since=since)
    await first.start()
    assert sorted(await until_ended(first, 3)) == ["nano-a@step-000010", "nano-a@step-000020", "nano-b@step-000005"]
    await first.close()
    commit(store, "nano-a", 30)
    second = service(store, player, since=since)
    await second.start()
    models = await until_ended(second, 4)
    await asyncio.sleep(0.05)  # several more looks
    assert await until_ended(second, 4) == models
    await second.close()
    assert len(models) == len(set(models)) == 4
    assert len(player.played) == 16


async def test_what_is_there_already_is_not_measured(store: Path, player):
    jobs = service(store, player, since=time.time() + 100)
    await jobs.start()
    await asyncio.sleep(0.1)
    assert (await jobs.page(EvaluationQuery())).data == []
    await jobs.close()


async def test_without_room_it_waits_and_takes_none_from_people(store: Path, player):
    never = asyncio.Event()
    player.before_batch = lambda _: never.wait()
    jobs = service(store, player, since=0.0, most_open=1)
    await jobs.start()
    async with asyncio.timeout(20):
        while not (await jobs.page(EvaluationQuery())).data:
            await asyncio.sleep(0.005)
    order = EvaluationOrder(checkpoint="nano-a@latest", n=4, viter=2)
    assert (await jobs.order(order)).ordered_by == "client"
    with pytest.raises(Busy):
        await jobs.order(order)
    never.set()
    assert len(await until_ended(jobs, 4)) == 4
    await jobs.close()


async def test_a_clients_order_goes_before_an_automatic_one_that_plays_and_costs_it_nothing(store: Path, player):
    reached, go_on, ended = asyncio.Event(), asyncio.Event(), []
    jobs = Evaluations(Journal(store), Registry(str(store)), player)

    async def pause_at_4(played: int) -> None:
        if played == 4 and not go_on.is_set():
            reached.set()
            await go_on.wait()

    player.before_batch = pause_at_4
    await jobs.start()
    order = EvaluationOrder(checkpoint="nano-a@latest", suites=("general_points/id",), n=16, viter=2)
    automatic = await jobs.order(order, "service")
    await asyncio.wait_for(reached.wait(), 10)
    mine = await jobs.order(order)
    go_on.set()
    async with asyncio.timeout(20):
        while len(ended) < 2:
            jobs.check()
            ended += [e.id for e in (automatic, mine) if e.has_ended and e.id not in ended]
            await asyncio.sleep(0)
    assert ended == [mine.id, automatic.id]
    items = (await jobs.items(automatic.id, 100, None)).data
    assert len({item.id for item in items}) == len(items) == 16
    await jobs.close()


async def test_what_cannot_be_measured_is_told_once(store: Path, player, caplog: pytest.LogCaptureFixture):
    settings = SETTINGS.model_copy(update={"suites": ("general_points/gone",)})
    newcomers = Newcomers(Registry(str(store)), settings, since=0.0)
    jobs = Evaluations(Journal(store), Registry(str(store)), player)
    for _ in range(3):
        await newcomers.look(lambda order: jobs.order(order, "service"))
    assert len(caplog.records) == 3  # one for each checkpoint
    assert "is not measured" in caplog.text


@pytest.mark.parametrize("suites", [("general_points/gone",), ("chess/id",)])
def test_settings_name_suites_that_there_are(suites: tuple[str, ...]):
    with pytest.raises(ValueError, match=suites[0].partition("/")[0]):
        EvaluateNew(suites=suites)
