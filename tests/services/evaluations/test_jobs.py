"""Evaluation jobs: played to the end, once, through whatever happens to the processes around them."""

import asyncio
from pathlib import Path

import pytest

from envs.base import ConfigError, DataError
from services.evaluations import jobs as module
from services.evaluations import playing
from services.evaluations.jobs import Evaluations
from services.evaluations.journal import EvaluationMissing, Journal
from services.evaluations.listing import EvaluationQuery
from services.evaluations.orders import Evaluation, EvaluationOrder, item_id
from services.http.problems import Busy, IdempotencyConflict, PlayedElsewhere
from services.registry import Registry
from tests.meters import Remembered
from tests.services.conftest import Player, commit
from tests.trainers.checkpoint_files import object_store
from trainers.checkpoints import CheckpointMissing
from trainers.lease import Lease

ORDER = EvaluationOrder(checkpoint="nano-a@latest", n=8, viter=2)
KEYED = ORDER.model_copy(update={"idempotency": "k"})


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playing, "RETRY_PAUSE_S", 0.0)
    monkeypatch.setattr(playing, "JOURNAL_EVERY_S", 0.001)


@pytest.fixture
async def jobs(store: Path, player):
    made = Evaluations(Journal(store), Registry(str(store)), player, most_open=3)
    await made.start()
    yield made
    await made.close()


async def ended(jobs: Evaluations, evaluation_id: str) -> Evaluation:
    async with asyncio.timeout(20):
        while not (await jobs.get(evaluation_id)).has_ended:
            jobs.check()
            await asyncio.sleep(0.002)
    return await jobs.get(evaluation_id)


async def test_an_evaluation_plays_every_item_once_and_scores_it(jobs: Evaluations, player):
    evaluation = await ended(jobs, (await jobs.order(ORDER)).id)
    assert evaluation.status == "completed"
    assert evaluation.model == "nano-a@step-000020"
    assert evaluation.results is not None
    id_result, ood_result = evaluation.results
    assert (id_result.suite, id_result.kind, ood_result.kind) == ("general_points/id", "id", "ood")
    assert (id_result.success.k, id_result.success.n) == (4, 8)
    assert [rate.k for rate in id_result.by_iteration] == [0, 4]
    assert id_result.flops == 2 * 10 * (8 * 4 + 8 * 6)  # 2·N·(prefill + decoded)
    assert evaluation.generalisation_gap is not None
    assert evaluation.generalisation_gap.value == 0.0
    assert sorted(player.played) == sorted(item_id(r.suite, i) for r in evaluation.results for i in range(8))


async def test_items_come_page_by_page_and_each_once(jobs: Evaluations):
    evaluation = await ended(jobs, (await jobs.order(ORDER)).id)
    seen: list[str] = []
    after = None
    while True:
        page = await jobs.items(evaluation.id, 5, after)
        seen += [item.id for item in page.data]
        if not page.has_more:
            break
        after = page.last_id
    assert len(seen) == len(set(seen)) == 16


async def test_a_restarted_manager_plays_only_what_is_missing(store: Path, player):
    reached, never = asyncio.Event(), asyncio.Event()

    async def stop_at_12(played: int) -> None:
        if played >= 12:
            reached.set()
            await never.wait()

    player.before_batch = stop_at_12
    first = Evaluations(Journal(store), Registry(str(store)), player)
    await first.start()
    evaluation_id = (await first.order(ORDER)).id
    await asyncio.wait_for(reached.wait(), 10)
    await first.close()
    path = store / "evaluations" / evaluation_id / "items.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])  # a process killed within a write leaves a torn line

    player.before_batch = lambda _: None
    second = Evaluations(Journal(store), Registry(str(store)), player)
    await second.start()
    evaluation = await ended(second, evaluation_id)
    items = await second.items(evaluation_id, 100, None)
    await second.close()
    assert evaluation.status == "completed"
    assert len(player.played) == len(set(player.played)) == 16
    assert len({item.id for item in items.data}) == len(items.data) == 16


async def test_a_dying_engine_costs_no_item(jobs: Evaluations, player):
    deaths = iter([True, False, True, True])

    def die_sometimes(_: int) -> None:
        if next(deaths, False):
            raise RuntimeError("the replica died")

    player.before_batch = die_sometimes
    evaluation = await ended(jobs, (await jobs.order(ORDER)).id)
    assert evaluation.status == "completed"
    assert len(player.played) == len(set(player.played)) == 16


async def test_an_engine_that_never_answers_fails_the_evaluation_and_not_the_next(jobs: Evaluations, player):
    def die(_: int) -> None:
        raise RuntimeError("the replica died")

    player.before_batch = die
    failed = await ended(jobs, (await jobs.order(ORDER)).id)
    assert (failed.status, failed.error) == ("failed", "RuntimeError: the replica died")
    player.before_batch = lambda _: None
    assert (await ended(jobs, (await jobs.order(ORDER)).id)).status == "completed"


async def test_a_users_mistake_is_not_tried_again(jobs: Evaluations, player):
    tries = []

    def refuse(_: int) -> None:
        tries.append(1)
        raise DataError("the model is damaged; choose another")

    player.before_batch = refuse
    failed = await ended(jobs, (await jobs.order(ORDER)).id)
    assert failed.error == "the model is damaged; choose another"
    assert len(tries) == 1


async def test_canceling_keeps_what_is_finished_and_frees_the_next(jobs: Evaluations, player):
    reached, never = asyncio.Event(), asyncio.Event()

    async def stop_at_4(played: int) -> None:
        if played >= 4:
            reached.set()
            await never.wait()

    player.before_batch = stop_at_4
    running, queued = await jobs.order(ORDER), await jobs.order(ORDER)
    await asyncio.wait_for(reached.wait(), 10)
    player.before_batch = lambda _: None
    assert (await jobs.cancel(running.id)).status == "canceled"
    assert (await ended(jobs, queued.id)).status == "completed"
    assert (await jobs.get(running.id)).status == "canceled"
    assert len((await jobs.items(running.id, 100, None)).data) == 4
    assert (await jobs.cancel(queued.id)).status == "completed"


async def test_a_canceled_evaluation_stays_canceled_over_a_restart(store: Path, player):
    first = Evaluations(Journal(store), Registry(str(store)), player)
    await first.start()
    made = await first.order(ORDER)
    await first.cancel(made.id)
    await first.close()
    second = Evaluations(Journal(store), Registry(str(store)), player)
    await second.start()
    assert (await second.get(made.id)).status == "canceled"
    await second.close()


async def test_the_same_key_gives_the_same_evaluation(jobs: Evaluations):
    first, second = await asyncio.gather(jobs.order(KEYED), jobs.order(KEYED))
    assert first.id == second.id
    with pytest.raises(IdempotencyConflict):
        await jobs.order(KEYED.model_copy(update={"n": 9}))


async def test_an_alias_is_followed_once(jobs: Evaluations, committed):
    evaluation = await jobs.order(ORDER)
    committed("nano-a", 30)
    assert (await ended(jobs, evaluation.id)).model == "nano-a@step-000020"


async def test_a_replaced_checkpoint_is_refused_and_never_mixed_in(store: Path, player):
    never = asyncio.Event()

    async def wait(_: int) -> None:
        await never.wait()

    player.before_batch = wait
    first = Evaluations(Journal(store), Registry(str(store)), player)
    await first.start()
    made = await first.order(ORDER)
    await first.close()
    commit(store, "nano-a", 20, weights="other")
    second = Evaluations(Journal(store), Registry(str(store)), player)
    await second.start()
    failed = await ended(second, made.id)
    await second.close()
    assert failed.status == "failed"
    assert "were ordered" in str(failed.error)


async def test_what_is_unknown_is_refused_at_once(jobs: Evaluations):
    with pytest.raises(CheckpointMissing):
        await jobs.order(ORDER.model_copy(update={"checkpoint": "nano-z@latest"}))
    with pytest.raises(DataError, match="ood-rule"):
        await jobs.order(ORDER.model_copy(update={"suites": ("general_points/odd",)}))
    with pytest.raises(ConfigError):
        await jobs.order(ORDER.model_copy(update={"environment": "general_pints"}))
    for bad in ("eval-0000000000", "../order.json", "eval-../../x"):
        with pytest.raises(EvaluationMissing):
            await jobs.get(bad)


async def test_no_more_than_the_limit_are_open(jobs: Evaluations, player):
    never = asyncio.Event()

    async def wait(_: int) -> None:
        await never.wait()

    player.before_batch = wait
    for _ in range(3):
        await jobs.order(ORDER)
    with pytest.raises(Busy):
        await jobs.order(ORDER)


async def test_they_are_listed_newest_first(jobs: Evaluations):
    made = [await jobs.order(ORDER) for _ in range(3)]
    page = await jobs.page(EvaluationQuery(limit=2))
    rest = await jobs.page(EvaluationQuery(limit=2, after=page.last_id))
    assert [e.id for e in page.data + rest.data] == [e.id for e in reversed(made)]
    assert (page.has_more, rest.has_more) == (True, False)


async def test_an_evaluation_has_one_player_and_is_taken_over_when_that_one_is_gone(store: Path, player, monkeypatch):
    monkeypatch.setattr(module, "ADOPT_EVERY_S", 0.01)
    reached, never = asyncio.Event(), asyncio.Event()

    async def stop_at_8(played: int) -> None:
        if played >= 8:
            reached.set()
            await never.wait()

    player.before_batch = stop_at_8
    first = Evaluations(Journal(store), Registry(str(store)), player)
    await first.start()
    made = await first.order(KEYED)
    await asyncio.wait_for(reached.wait(), 10)

    beside = Player()
    second = Evaluations(Journal(store), Registry(str(store)), beside)
    await second.start()
    await asyncio.sleep(0.05)
    assert ((await second.get(made.id)).counts.done, beside.played) == (8, [])
    assert [e.id for e in (await second.page(EvaluationQuery(limit=5))).data] == [made.id]
    assert (await second.order(KEYED)).id == made.id
    with pytest.raises(PlayedElsewhere):
        await second.cancel(made.id)

    await first.close()
    assert (await ended(second, made.id)).status == "completed"
    assert len(beside.played) == 8
    await second.close()


async def test_evaluations_and_their_items_are_counted(store: Path, player: Player):
    meters = Remembered()
    jobs = Evaluations(Journal(store), Registry(str(store)), player, meters=meters)
    await jobs.start()
    first = await jobs.order(ORDER)
    second = await jobs.order(ORDER)
    jobs.check()
    assert meters.gauges["evaluations", "queued"] + meters.gauges["evaluations", "in_progress"] == 2
    await ended(jobs, first.id)
    await ended(jobs, second.id)
    async with asyncio.timeout(20):
        while meters.counted["evaluations_ended_total", "completed"] < 2:  # counted once the journal holds the end
            await asyncio.sleep(0.002)
    jobs.check()
    assert meters.gauges["evaluations", "queued"] == meters.gauges["evaluations", "in_progress"] == 0
    assert meters.counted["evaluation_items_total", "solved"] == 16
    assert meters.counted["evaluation_items_total", "unsolved"] == 16
    assert meters.counted["evaluation_items_total", "quarantined"] == 0
    await jobs.close()


async def test_a_manager_that_lost_its_lease_stops_and_writes_nothing_more(store: Path, player):
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def pause_at_8(played: int) -> None:
        if played == 8:
            reached.set()
            await go_on.wait()

    player.before_batch = pause_at_8
    jobs = Evaluations(Journal(store), Registry(str(store)), player)
    await jobs.start()
    made = await jobs.order(ORDER)
    await asyncio.wait_for(reached.wait(), 10)
    folder = store / "evaluations" / made.id
    async with asyncio.timeout(20):
        while (await jobs.get(made.id)).counts.done < 8:
            await asyncio.sleep(0.001)
    (folder / "player" / "000009").write_text("{}")  # another machine took over while this process was stopped
    before = (folder / "items.jsonl").read_bytes()
    go_on.set()
    async with asyncio.timeout(20):
        while made.id in jobs._known:
            jobs.check()
            await asyncio.sleep(0.001)
    await jobs.close()
    assert (folder / "items.jsonl").read_bytes() == before
    assert not (folder / "result.json").exists()


async def test_over_an_object_store_nothing_is_lost_or_repeated_either(
    store: Path, tmp_path: Path, player, monkeypatch
):
    monkeypatch.setitem(Lease.take.__func__.__kwdefaults__, "settle_s", 0.05)
    kept = object_store(tmp_path)
    reached, never = asyncio.Event(), asyncio.Event()

    async def stop_at_8(played: int) -> None:
        if played >= 8:
            reached.set()
            await never.wait()

    player.before_batch = stop_at_8
    first = Evaluations(Journal(kept), Registry(str(store)), player)
    await first.start()
    made = await first.order(ORDER)
    await asyncio.wait_for(reached.wait(), 10)
    await first.close()
    player.before_batch = lambda _: None
    second = Evaluations(Journal(kept), Registry(str(store)), player)
    await second.start()
    done = await ended(second, made.id)
    items = (await second.items(made.id, 100, None)).data
    await second.close()
    assert (done.status, done.counts.done) == ("completed", 16)
    assert len({item.id for item in items}) == len(items) == len(player.played) == 16


async def test_a_journal_of_another_version_stops_no_service(store: Path, player, caplog: pytest.LogCaptureFixture):
    old = store / "evaluations" / "eval-0123456789abcdef"
    old.mkdir(parents=True)
    (old / "order.json").write_text('{"id": "eval-0123456789abcdef", "order": {"temperature": 1.0, "max_tokens": 64}}')
    jobs = Evaluations(Journal(store), Registry(str(store)), player)
    await jobs.start()
    made = await ended(jobs, (await jobs.order(ORDER)).id)
    assert [e.id for e in (await jobs.page(EvaluationQuery())).data] == [made.id]
    with pytest.raises(EvaluationMissing, match="cannot be read"):
        await jobs.get("eval-0123456789abcdef")
    await jobs.close()
    assert sum("cannot be read" in record.getMessage() for record in caplog.records) == 1


async def test_one_of_sixteen_items_is_done_while_one_of_many_plays(jobs: Evaluations, player):
    jobs._line.turn_items = 16
    both = asyncio.Event()
    player.before_batch = lambda _: both.wait()
    large = await jobs.order(ORDER.model_copy(update={"n": 200}))
    small = await jobs.order(ORDER.model_copy(update={"suites": ("general_points/id",), "n": 16}))
    both.set()
    first = await ended(jobs, small.id)
    done = await ended(jobs, large.id)
    assert first.ended_at < done.ended_at
    assert (done.status, done.counts.done, len(player.played)) == ("completed", 400, 416)
