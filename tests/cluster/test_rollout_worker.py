import asyncio

import pytest

from cluster.ledger import Order
from cluster.rollout import Decoding
from cluster.rollout_worker import RolloutWorker
from envs.task import Status, Verdict
from tests.cluster.players import WRONG, Script, WrongThenRight, chat_format, game, here, reply
from trainers.episode_arrow import from_batch

CHAT = chat_format()
GAME = game()
DECODING = Decoding(temperature=1.0, max_tokens=128, max_model_len=1024)


def worker_of(engine, *, places: int = 4, verify=None, game_at=lambda _: GAME) -> RolloutWorker:
    return RolloutWorker(
        engine, game_at, CHAT, verify or here(GAME), decoding=DECODING, seed=7, episodes_in_flight=places, name="w"
    )


def orders(count: int) -> list[Order]:
    return [Order(step=0, index=index, ticket=100 + index) for index in range(count)]


def engine_for(count: int, **options) -> WrongThenRight:
    return WrongThenRight(GAME, CHAT, [GAME.sample(7, "train", 0, index) for index in range(count)], **options)


async def collected(worker: RolloutWorker, count: int) -> dict[int, tuple]:
    """Tokens and verdicts of `count` episodes by index."""
    home = {}
    while len(home) < count:
        receipts, batch = await worker.collect(1.0)
        episodes = from_batch(batch)
        for receipt in receipts:
            episode = episodes[receipt.row]
            assert receipt.ticket == 100 + episode.index
            assert receipt.tokens == sum(len(segment.token_ids) for segment in episode.segments)
            tokens = tuple(tuple(segment.token_ids.tolist()) for segment in episode.segments)
            assert episode.index not in home
            home[episode.index] = (tokens, tuple(turn.status for turn in episode.turns))
    return home


async def test_results_do_not_depend_on_how_many_play_at_once():
    results = []
    for places in (1, 3, 16):
        worker = worker_of(engine_for(12, turn_s=0.001), places=places)
        await worker.give(orders(12))
        results.append(await collected(worker, 12))
    assert results[0] == results[1] == results[2]
    assert len({tokens for tokens, _ in results[0].values()}) == 12
    assert len({len(statuses) for _, statuses in results[0].values()}) > 1


async def test_the_step_of_an_episode_says_how_many_iterations_it_has():
    """Whatever the order they come in: 1 at step 0, 3 from step 1 on."""
    mixed = [Order(step=step, index=0, ticket=step) for step in (2, 0, 1, 0, 2)]
    worker = worker_of(WrongThenRight(GAME, CHAT, []), game_at=lambda step: game(viter=1 if step == 0 else 3))
    await worker.give([Order(step=o.step, index=o.index, ticket=ticket) for ticket, o in enumerate(mixed)])
    turns = {}
    while len(turns) < len(mixed):
        receipts, batch = await worker.collect(1.0)
        episodes = from_batch(batch)
        turns |= {
            receipt.ticket: (episodes[receipt.row].step, len(episodes[receipt.row].turns)) for receipt in receipts
        }
    assert [turns[ticket] for ticket in range(5)] == [(2, 3), (0, 1), (1, 3), (0, 1), (2, 3)]


async def test_a_worker_plays_as_many_as_it_has_places_and_refills_them_by_itself():
    open_now, most = 0, 0
    gate = asyncio.Event()

    class Counting(WrongThenRight):
        async def generate(self, *args, **kwargs):
            nonlocal open_now, most
            open_now, most = open_now + 1, max(most, open_now + 1)
            await gate.wait()
            open_now -= 1
            return await super().generate(*args, **kwargs)

    worker = worker_of(Counting(GAME, CHAT, []), places=3)
    await worker.give(orders(8))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert open_now == 3
    gate.set()
    assert len(await collected(worker, 8)) == 8
    assert most == 3


async def test_an_idle_worker_asks_its_engine_for_its_health():
    engine = engine_for(0)
    worker = worker_of(engine)
    assert await worker.collect(0.01) == ([], None)
    engine.is_dead = True
    with pytest.raises(RuntimeError, match="engine is dead"):
        await worker.collect(0.01)


async def test_what_breaks_an_episode_is_raised_to_who_collects():
    class Broken(WrongThenRight):
        async def generate(self, *args, **kwargs):
            raise ValueError("a bug")

    worker = worker_of(Broken(GAME, CHAT, []))
    await worker.give(orders(1))
    with pytest.raises(ValueError, match="a bug"):
        await worker.collect(1.0)


async def test_dropped_orders_are_not_played_and_new_ones_are():
    class Slow(WrongThenRight):
        async def generate(self, token_ids, **kwargs):
            if self.calls >= 4 and not self.is_dead:
                self.calls += 1
                await asyncio.Event().wait()
            return await super().generate(token_ids, **kwargs)

    engine = Slow(GAME, CHAT, [])
    engine.calls = 4
    worker = worker_of(engine)
    await worker.give(orders(9))
    await asyncio.sleep(0.01)
    await worker.drop()
    assert await worker.collect(0.01) == ([], None)
    engine.is_dead = True
    await worker.give(orders(2))
    receipts, _ = await worker.collect(1.0)
    assert {receipt.ticket for receipt in receipts} == {100, 101}


async def test_an_episode_without_a_verdict_comes_home_as_a_receipt_alone():
    async def half(task, state, answer):
        if task.id == GAME.sample(7, "train", 0, 1).id:
            return Verdict(reward=0.0, status=Status.CRASHED, feedback="boom"), state
        return GAME.verify(task, state, answer)

    worker = worker_of(engine_for(3), verify=half)
    await worker.give(orders(3))
    receipts = []
    while len(receipts) < 3:
        more, _ = await worker.collect(1.0)
        receipts += more
    assert {r.ticket: r.quarantined for r in receipts} == {100: "", 101: "crashed: boom", 102: ""}
    assert {r.ticket: r.outcome and r.outcome.index for r in receipts} == {100: None, 101: 1, 102: None}


async def test_a_receipt_names_the_oldest_weights_of_an_episode():
    class Growing(Script):
        async def __call__(self, token_ids, **kwargs):
            answer = await super().__call__(token_ids, **kwargs)
            version = 3 + len(self.seeds)
            return reply(answer.token_ids, prompt_tokens=answer.prompt_tokens, version=version)

    script = Growing(CHAT, [WRONG] * 3)

    class Engine:
        generate = staticmethod(script)

        async def check_health(self):
            return None

    worker = worker_of(Engine(), places=1)
    await worker.give(orders(1))
    (receipt,), batch = await worker.collect(1.0)
    assert receipt.oldest_version == 4
    versions = from_batch(batch)[0].segments[0].weight_versions
    assert sorted(set(versions.tolist())) == [-1, 4, 5, 6]
