import asyncio
import random

import pytest

from cluster.ledger import MOST_LOSSES, Ledger, Receipt
from cluster.orchestrator import DEATHS_IN_A_ROW, Orchestrator
from cluster.rollout import Decoding
from cluster.rollout_worker import RolloutWorker
from cluster.weights import Arrival
from cluster.worker import Superseded, WeightsLost, WorkerDied, WorkersFailed
from envs.base import DataError, ViterError
from tests.cluster.players import WrongThenRight, chat_format, game, here
from trainers import curriculum
from trainers.curriculum import Iterations
from trainers.episode_arrow import from_batch

GAME, CHAT = game(), chat_format()
SEED = 7
CURRICULUM = ((0, 1), (1, 3), (2, 5))


class Local:
    """A worker in this process around a real RolloutWorker. `kill` makes every call, open or to come, fail."""

    def __init__(
        self, name: str, *, episodes: int, steps: int, turn_s: float = 0.0005, places: int = 4, viter: Iterations = 3
    ):
        tasks = [GAME.sample(SEED, "train", step, index) for step in range(steps) for index in range(episodes)]
        self.name, self.node = name, "here"
        self.engine = WrongThenRight(GAME, CHAT, tasks, turn_s=turn_s)
        self._inner = RolloutWorker(
            self.engine,
            lambda step: game(viter=curriculum.at(viter, step)),
            CHAT,
            here(GAME),
            decoding=Decoding(max_tokens=128),
            seed=SEED,
            episodes_in_flight=places,
            name=name,
        )
        self._death: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.updates: list[int] = []
        self.given: list[tuple[int, int, int]] = []  # step, index, version held

    def kill(self) -> None:
        if not self._death.done():
            self._death.set_result(None)

    async def _alive(self, work):
        """The result of `work`, unless the worker dies first."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task, self._death}, return_when=asyncio.FIRST_COMPLETED)
        if self._death.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise WorkerDied(f"{self.name} was killed")
        return task.result()

    async def give(self, orders):
        self.given += [(order.step, order.index, self.engine.weight_version) for order in orders]
        await self._alive(self._inner.give(orders))

    async def collect(self):
        receipts, batch = await self._alive(self._inner.collect(0.2))
        return receipts, Ref(batch)

    async def drop(self):
        await self._alive(self._inner.drop())

    async def update_weights(self, parcel, version):
        async def take():
            await asyncio.sleep(0.001)
            self.engine.weight_version = version
            self.updates.append(version)
            return Arrival(by="parcel")

        return await self._alive(take())

    async def score(self, sequences):
        return [[-1.0] * (len(ids) - 1) for ids in sequences]

    async def bury(self):
        self.kill()
        await self._inner.drop()


class Ref:
    """A batch that hashes by identity, as an object reference does."""

    def __init__(self, batch):
        self.batch = batch


class House:
    """An orchestrator whose workers live here."""

    def __init__(self, *, episodes=8, steps=3, staleness=0, workers=2, most_workers=None, worker=Local, **options):
        self.options = {"episodes": episodes, "steps": steps, **options}
        self.worker, self.born = worker, []
        self.episodes = episodes
        self.ledger = Ledger(episodes=episodes, steps=steps, max_staleness=staleness)
        self.orchestrator = Orchestrator(
            self.spawn, ledger=self.ledger, workers=workers, most_workers=most_workers, episodes_in_flight=4
        )

    async def spawn(self, place, name):
        worker = self.worker(name, **self.options)
        self.born.append(worker)
        return worker

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.orchestrator.close()

    async def publish(self, version):
        await asyncio.wait_for(self.orchestrator.publish(f"parcel {version}", version), 10)

    async def take(self, step, **ranks):
        shares = await asyncio.wait_for(self.orchestrator.take(self.episodes, step=step, **ranks), 10)
        return [from_batch(share.batch.batch)[row] for share in shares for row in share.rows]


def told(episodes) -> dict[int, list]:
    return {episode.index: [s.token_ids.tolist() for s in episode.segments] for episode in episodes}


async def test_a_learner_gets_every_episode_of_every_step_once():
    async with House() as house:
        for step in range(3):
            await house.publish(step)
            episodes = await house.take(step)
            assert sorted(episode.index for episode in episodes) == list(range(8))
            assert {episode.step for episode in episodes} == {step}
            assert {int(s.weight_versions.max()) for episode in episodes for s in episode.segments} == {step}


async def test_no_token_is_older_than_synchronous_training_allows():
    async with House() as house:
        for step in range(3):
            await house.publish(step)
            await house.take(step)
        assert all(version == step for worker in house.born for step, _, version in worker.given)
        assert house.orchestrator.stats()["staleness_0"] == 24


async def test_with_staleness_1_the_next_step_is_played_while_the_learner_learns():
    async with House(staleness=1) as house:
        await house.publish(0)
        await house.take(0)
        await asyncio.wait_for(_until(lambda: house.ledger.is_complete(1)), 10)  # no publish in between
        await house.publish(1)
        ahead = await house.take(1)
        assert {int(s.weight_versions.max()) for episode in ahead for s in episode.segments} == {0}
        await house.publish(2)
        last = await house.take(2)
        assert all(2 - v <= 1 for e in last for s in e.segments for v in s.weight_versions[s.sampled])


async def test_results_are_the_same_for_1_and_3_workers_and_any_deaths():
    results = []
    for workers, deaths in ((1, 0), (3, 0), (2, 6)):
        dice = random.Random(deaths)
        async with House(episodes=16, workers=workers, turn_s=0.002) as house:
            home = {}
            for step in range(2):
                await house.publish(step)
                taking = asyncio.create_task(house.take(step))
                for _ in range(deaths // 2):
                    await asyncio.sleep(dice.uniform(0, 0.05))
                    dice.choice(house.born[-workers:]).kill()
                home[step] = told(await taking)
            results.append(home)
            assert house.orchestrator.stats().get("worker_restarts", 0) >= (deaths > 0)
    assert results[0] == results[1] == results[2]


async def test_a_curriculum_does_not_depend_on_workers_or_overlap_and_goes_on_after_a_resumption():
    results = []
    for workers, staleness, first in ((1, 0, 0), (3, 0, 0), (2, 1, 0), (2, 0, 1)):
        async with House(episodes=16, workers=workers, staleness=staleness, viter=CURRICULUM) as house:
            home = {}
            for step in range(first, 3):
                await house.publish(step)
                episodes = await house.take(step)
                assert max(len(episode.turns) for episode in episodes) == curriculum.at(CURRICULUM, step)
                home[step] = told(episodes)
            results.append(home)
    whole, *others, resumed = results
    assert others == [whole, whole]
    assert resumed == {step: whole[step] for step in (1, 2)}


async def test_a_dead_worker_is_replaced_and_armed_before_it_plays():
    async with House(workers=1) as house:
        await house.publish(0)
        await house.take(0)
        await house.publish(1)
        house.born[0].kill()
        assert len(await house.take(1)) == 8
        successor = house.born[1]
        assert successor.name == "rollout-0.2"
        assert successor.updates == [1]
        assert {version for _, _, version in successor.given} == {1}
        kinds = [event.kind for event in house.orchestrator.events()]
        assert kinds == ["worker_ready", "worker_died", "worker_ready"]
        assert house.orchestrator.events() == []


async def test_weights_that_arrive_while_a_worker_starts_are_the_ones_it_gets():
    opened = asyncio.Event()

    class Starting(Local):
        async def update_weights(self, parcel, version):
            if self.name == "rollout-1.2" and not opened.is_set():
                await opened.wait()
            return await super().update_weights(parcel, version)

    async with House(worker=Starting) as house:
        await house.publish(0)
        await house.take(0)
        next(worker for worker in house.born if worker.name == "rollout-1").kill()
        await _until(lambda: any(worker.name == "rollout-1.2" for worker in house.born))
        await house.publish(1)  # the newborn is not waited for
        opened.set()
        await _until(lambda: house.orchestrator.stats()["workers_armed"] == 2)
        newborn = next(worker for worker in house.born if worker.name == "rollout-1.2")
        assert newborn.updates == [0, 1]
        assert all(version == 1 for _, _, version in newborn.given)


async def test_a_worker_that_refuses_weights_is_replaced_and_never_plays_on():
    class Refusing(Local):
        async def update_weights(self, parcel, version):
            if version == 1 and self.name == "rollout-0":
                raise WorkerDied("rollout-0: WeightsRefused: digest")
            return await super().update_weights(parcel, version)

    async with House(worker=Refusing) as house:
        await house.publish(0)
        await house.take(0)
        await house.publish(1)
        assert len(await house.take(1)) == 8
        refused = next(worker for worker in house.born if worker.name == "rollout-0")
        assert {step for step, _, _ in refused.given} == {0}
        assert "weights_refused" in [event.kind for event in house.orchestrator.events()]


async def test_a_delta_that_fails_is_counted_and_told():
    class Damaged(Local):
        async def update_weights(self, parcel, version):
            await super().update_weights(parcel, version)
            failure = "digest" if (self.name, version) == ("rollout-0", 1) else ""
            return Arrival(by="delta" if version > 0 and not failure else "parcel", failure=failure)

    async with House(worker=Damaged) as house:
        for step in range(2):
            await house.publish(step)
            assert len(await house.take(step)) == 8
        stats, events = house.orchestrator.stats(), house.orchestrator.events()
        assert (stats["weights_by_delta"], stats["weights_by_parcel"], stats["transfers_failed"]) == (1, 3, 1)
        (told_of,) = [event.fields for event in events if event.kind == "transfer_failed"]
        assert told_of == {"worker": "rollout-0", "weight_version": 1, "reason": "digest"}


async def test_each_rank_gets_its_part():
    async with House(episodes=7) as house:
        await house.publish(0)
        shares = await asyncio.gather(*(house.take(0, rank=rank, world_size=3) for rank in range(3)))
        assert sorted(len(share) for share in shares) == [2, 2, 3]
        assert sorted(episode.index for share in shares for episode in share) == list(range(7))
        with pytest.raises(ViterError, match="step 0"):
            await house.take(0, rank=0, world_size=3)


async def test_a_learner_that_starts_again_from_an_older_step_gets_fresh_episodes():
    async with House(steps=4, staleness=1) as house:
        before = []
        for step in range(3):
            await house.publish(step)
            before.append(told(await house.take(step)))
        waiting = asyncio.create_task(house.orchestrator.take(8, step=3))
        await asyncio.sleep(0)
        await house.publish(1)  # the learner died and restored step 1
        with pytest.raises(Superseded):
            await waiting
        again = await house.take(1)
        assert told(again) == before[1]  # the same counters draw the same tokens
        assert {int(s.weight_versions.max()) for e in again for s in e.segments} == {1}
        assert "rewound" in [event.kind for event in house.orchestrator.events()]


async def test_after_an_explicit_rewind_nothing_is_played_until_weights_come():
    async with House() as house:
        await house.publish(0)
        await house.take(0)
        await house.orchestrator.rewind(0)
        played = sum(len(worker.given) for worker in house.born)
        await asyncio.sleep(0.05)
        assert sum(len(worker.given) for worker in house.born) == played
        await house.publish(0)
        assert len(await house.take(0)) == 8


async def test_a_user_mistake_is_told_to_the_learner_at_once():
    class Mistaken(House):
        async def spawn(self, place, name):
            raise DataError("nano: embeddings are tied")

    async with Mistaken() as house:
        with pytest.raises(DataError, match="embeddings are tied"):
            await house.publish(0)


async def test_workers_that_die_again_and_again_stop_the_run_with_the_last_words(monkeypatch):
    monkeypatch.setattr("cluster.orchestrator.MOURNING_S", 0.001)

    class Doomed(House):
        async def spawn(self, place, name):
            self.born.append(name)
            raise WorkerDied(f"{name}: out of memory")

    async with Doomed(workers=1) as house:
        with pytest.raises(WorkersFailed, match=rf"{DEATHS_IN_A_ROW} rollout workers in a row.*out of memory"):
            await house.publish(0)
        assert len(house.born) == DEATHS_IN_A_ROW


async def test_a_slow_worker_costs_its_own_speed_alone(monkeypatch):
    """Ten times slower than the other: what it holds is played by the other too, and counts once."""
    monkeypatch.setattr("cluster.stragglers.LEAST_S", 0.02)
    monkeypatch.setattr("cluster.orchestrator.WATCH_S", 0.01)

    class Uneven(Local):
        def __init__(self, name, **options):
            super().__init__(name, **{**options, "turn_s": 0.2 if name == "rollout-0" else 0.002})

    async with House(episodes=40, steps=1, worker=Uneven) as house:
        await house.publish(0)
        assert sorted(told(await house.take(0))) == list(range(40))
        stats = house.orchestrator.stats()
        assert stats["episodes_played_twice"] >= 1
        assert stats["episodes_kept"] == 40


async def test_an_episode_that_kills_its_worker_is_quarantined_and_the_run_goes_on(monkeypatch):
    monkeypatch.setattr("cluster.orchestrator.MOURNING_S", 0.001)

    class Frail(Local):
        async def give(self, orders):
            await super().give(orders)
            if any(order.index == 5 for order in orders):
                self.kill()

    async with House(worker=Frail, episodes=8, steps=1) as house:
        await house.publish(0)
        assert sorted(told(await house.take(0))) == [0, 1, 2, 3, 4, 6, 7]
        (event,) = [event for event in house.orchestrator.events() if event.kind == "quarantined"]
        assert (event.fields["step"], event.fields["index"]) == (event.case.step, event.case.index) == (0, 5)
        assert len({death.worker for death in event.case.deaths}) == MOST_LOSSES
        assert all("was killed" in death.reason for death in event.case.deaths)
        assert event.case.weight_version == 0
        assert house.orchestrator.stats()["worker_restarts"] == MOST_LOSSES


async def test_workers_join_and_leave_while_the_run_goes_on():
    room, starts = asyncio.Event(), []

    class Roomy(House):
        async def spawn(self, place, name):
            starts.append(name)
            if place > 0:
                await room.wait()
            return await super().spawn(place, name)

    async with Roomy(workers=1, most_workers=3, episodes=24, turn_s=0.002) as house:
        await house.publish(0)  # waits for one worker, not for three
        alone = told(await house.take(0))
        assert [worker.name for worker in house.born] == ["rollout-0"]
        room.set()
        await _until(lambda: house.orchestrator.stats()["workers_armed"] == 3)
        await house.publish(1)
        together = await house.take(1)
        assert len({episode.worker for episode in together}) == 3
        room.clear()
        for worker in house.born[1:]:
            worker.kill()
        await house.publish(2)
        assert len(await house.take(2)) == 24
        assert {episode.index for episode in together} == set(alone)


async def test_weights_that_died_before_anybody_took_them_keep_no_successor_out():
    class Orphaned(Local):
        async def update_weights(self, parcel, version):
            if parcel == "of a dead learner":
                raise WeightsLost("the owner is gone")
            return await super().update_weights(parcel, version)

    async with House(worker=Orphaned, steps=1) as house:
        first = asyncio.create_task(house.orchestrator.publish("of a dead learner", 0))
        await _until(lambda: len(house.born) == 2)
        await house.publish(0)
        with pytest.raises(Superseded, match="weight version 0"):
            await first
        assert len(await house.take(0)) == 8


async def test_weights_that_died_with_the_learner_are_waited_for():
    class Orphaned(Local):
        async def update_weights(self, parcel, version):
            if parcel == "parcel 0" and self.name == "rollout-0.2":
                raise WeightsLost("the owner is gone")
            return await super().update_weights(parcel, version)

    async with House(worker=Orphaned, workers=1, steps=2) as house:
        await house.publish(0)
        await house.take(0)
        house.born[0].kill()
        await _until(lambda: len(house.born) == 2)
        await asyncio.sleep(0.02)
        assert house.born[1].given == []
        await house.publish(1)
        assert len(await house.take(1)) == 8
        assert len(house.born) == 2


async def test_quarantined_episodes_are_missing_and_counted():
    class Unjudged(Local):
        async def collect(self):
            receipts, batch = await super().collect()
            spoilt = [
                Receipt(ticket=r.ticket, quarantined="timeout") if r.row >= 0 and i == 0 else r
                for i, r in enumerate(receipts)
            ]
            return spoilt, batch

    async with House(worker=Unjudged, workers=1) as house:
        await house.publish(0)
        episodes = await house.take(0)
        quarantined = [event for event in house.orchestrator.events() if event.kind == "quarantined"]
        assert len(quarantined) >= 1
        assert len(episodes) + len(quarantined) == 8
        gone = {event.fields["index"] for event in quarantined}
        assert gone.isdisjoint(episode.index for episode in episodes)


async def test_a_step_of_which_nothing_was_judged_stops_the_run():
    class Unjudged(Local):
        async def collect(self):
            receipts, _ = await super().collect()
            return [Receipt(ticket=r.ticket, quarantined="timeout") for r in receipts], None

    async with House(worker=Unjudged) as house:
        await house.publish(0)
        with pytest.raises(WorkersFailed, match="none of its 8 episodes"):
            await house.take(0)


async def test_orders_are_shared_fairly_among_workers():
    async with House(episodes=8, workers=2, turn_s=0.005) as house:
        await house.publish(0)
        await house.take(0)
        assert sorted(len(worker.given) for worker in house.born) == [4, 4]


async def test_another_number_of_episodes_than_the_run_was_set_up_for_is_refused():
    async with House() as house:
        with pytest.raises(ViterError, match="9 episodes are asked for"):
            await house.orchestrator.take(9, step=0)


async def _until(is_true):
    async with asyncio.timeout(10):
        while not is_true():
            await asyncio.sleep(0.001)
