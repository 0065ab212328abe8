"""Hands out tasks, keeps every worker busy, replaces the dead, and gives each learner rank its episodes, each once.

    learner ──publish──► every worker ─► ledger opens steps ─► feeders give orders ─► workers play
    learner ──take─────► waits for the step ◄─ ledger ◄─ collectors bring receipts home

One task per place (`_tend`) starts a worker, arms it with the newest weights and runs its feeder and collector; whatever
ends the worker ends those two, its episodes are queued again, and the place starts the next one. Places beyond `workers`
are filled whenever the cluster has room: their workers join and leave while the run goes on. `dealer` says who gets what.
Plain asyncio: `actors` puts it into an actor and makes `Worker`s of actors. RLlib's
FaultTolerantActorManager is not used here: it polls with blocking `ray.wait`, sends pickled functions, and marks an actor
unhealthy without ever making another in its place.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from cluster.dealer import Dealer
from cluster.engine.reply import History
from cluster.ledger import MOST_LOSSES, Fate, Ledger, Receipt
from cluster.quarantine import Case, Death
from cluster.tally import Event, Tally
from cluster.waiting import Signal, until_one_ends
from cluster.weights import Arrival
from cluster.worker import Share, Spawn, Superseded, WeightsLost, Worker, WorkerDied, WorkersFailed, shares_of
from envs.base import ViterError

DEATHS_IN_A_ROW = MOST_LOSSES + 3  # workers of one place that die without bringing an episode home, before the run is
# stopped; an episode that kills them is quarantined before that
WATCH_S = 0.25  # between two looks for episodes that are overdue
MOURNING_S = 0.1  # before the first successor of a worker; doubles with each death in a row, up to 5 s


@dataclass(slots=True, eq=False)
class _Place:
    """Where one worker after another works. `worker` is set only while it is armed and may be given orders."""

    number: int
    worker: Worker | None = None
    orders_due: asyncio.Event = field(default_factory=asyncio.Event)  # wakes the feeder
    births: int = 0
    deaths_in_a_row: int = 0


class Orchestrator:
    """See the module. `_signal` wakes whoever waits for a complete step, an armed worker or a failure."""

    def __init__(
        self,
        spawn: Spawn,
        *,
        ledger: Ledger,
        workers: int,
        episodes_in_flight: int,
        most_workers: int | None = None,
        tally: Tally | None = None,
    ) -> None:
        """Args:
        workers: that the first `publish` waits for.
        most_workers: that there may be when the cluster has room; None is `workers`.
        tally: where to note what happens; None is one of its own.
        """
        self._spawn, self._ledger = spawn, ledger
        self._places = [_Place(number) for number in range(most_workers or workers)]
        self._awaited = self._places[:workers]
        self._tenders: list[asyncio.Task[None]] = []
        self._newest: tuple[int, Any] | None = None  # version, parcel
        self._publishing = asyncio.Lock()
        self._signal = Signal()
        self._tally = tally or Tally()
        self._dealer = Dealer(ledger, self._tally, episodes_in_flight=episodes_in_flight)
        self._armed = 0  # places with a worker
        self._in_flight = episodes_in_flight
        self._slots_idle = 0.0  # between the last two takes

    async def start(self) -> None:
        """Start every worker. Returns at once, so that the learner can start meanwhile; `publish` waits for them."""
        if not self._tenders:
            self._tenders = [asyncio.create_task(self._tend(place)) for place in self._places]
            self._tenders.append(asyncio.create_task(self._watch()))

    async def close(self) -> None:
        """End every worker."""
        for tender in self._tenders:
            tender.cancel()
        await asyncio.gather(*self._tenders, return_exceptions=True)

    async def publish(self, parcel: Any, version: int) -> None:
        """Give `parcel` to every engine as weight `version`; returns when each that may sample has confirmed it.

        Args:
            parcel: what the workers make of it, in practice a Publication; kept for those that start later.
            version: steps learnt. One that is not above the last means that the learner has started again from there.
        Raises:
            Superseded: another learner published meanwhile.
            WorkersFailed: no engine can be kept alive.
            DataError, ConfigError: no engine can run this model with these settings.
        """
        async with self._publishing:
            await self.start()
            if self._ledger.version is not None and version <= self._ledger.version:
                await self._forget(version)
            started = time.monotonic()
            mine = self._newest = (version, parcel)
            await asyncio.gather(*(self._update(place, version, parcel) for place in self._places))
            await self._signal.notify()
        # beyond the lock: weights that died with their learner arm nobody, and the next learner has to get in
        await self._signal.wait_for(lambda: self._newest is not mine or self._is_manned())
        if self._newest is not mine:
            raise Superseded(f"weight version {version}: another learner published while no worker had taken it")
        self._ledger.publish(version)
        self._tally.count(publish_s=time.monotonic() - started, publishes=1)
        self._feed_all()

    def _is_manned(self) -> bool:
        """Every awaited place has had its first worker, and somebody is there."""
        return self._armed > 0 and all(place.worker is not None or place.births > 1 for place in self._awaited)

    def _man(self, place: _Place, worker: Worker | None) -> None:
        self._armed += (worker is not None) - (place.worker is not None)
        place.worker = worker

    async def rewind(self, step: int) -> None:
        """The learner starts again at `step`. Episodes made since are dropped; the next `publish` has them played anew."""
        async with self._publishing:
            await self._forget(step)

    async def take(self, count: int, *, step: int, rank: int = 0, world_size: int = 1) -> list[Share]:
        """This rank's share of the episodes of `step`, once they are all home. Quarantined ones are missing from it.

        Args:
            count: episodes of a step over all ranks, as the run was set up.
        Raises:
            TakenTwice: this rank has taken its share already.
            Superseded: the learner went back while this call waited.
            WorkersFailed: rollout workers cannot be kept alive, or no episode of the step got a verdict.
        """
        if count != self._ledger.episodes:
            raise ViterError(
                f"take: {count} episodes are asked for, the run was set up for {self._ledger.episodes} per step"
            )
        life = self._ledger.life
        started = time.monotonic()
        await self._signal.wait_for(lambda: life != self._ledger.life or self._ledger.is_settled(step))
        if life != self._ledger.life:
            raise Superseded(f"step {step}: the learner went back to an earlier step while this call waited")
        now = time.monotonic()
        self._tally.count(take_wait_s=now - started)
        if rank == 0:
            slots = min(max(1, self._armed) * self._in_flight, self._ledger.most_open)
            self._slots_idle = self._tally.slots_idle(now, slots)
        entries = self._ledger.deliver(step, rank=rank, world_size=world_size)
        if not entries and rank == 0:
            raise WorkersFailed(f"step {step}: none of its {count} episodes got a verdict; see the quarantined events")
        return shares_of(entries)

    async def probe(self, histories: list[History]) -> dict[str, list[list[float]]]:
        """Every armed engine's log-probs of tokens 1… of each sequence at temperature 1, by worker name."""
        await self._signal.wait_for(lambda: any(place.worker for place in self._places))
        workers = [place.worker for place in self._places if place.worker]
        scores = await asyncio.gather(*(worker.score(histories) for worker in workers), return_exceptions=True)
        found: dict[str, list[list[float]]] = {}
        for worker, score in zip(workers, scores, strict=True):
            if isinstance(score, BaseException) and not isinstance(score, WorkerDied):
                raise score
            if not isinstance(score, BaseException):  # the successor of one that died is probed next time
                found[worker.name] = score
        return found

    def roster(self) -> list[str]:
        """Names of the workers that play."""
        return [place.worker.name for place in self._places if place.worker]

    def stats(self) -> dict[str, float]:
        """Sums since the start, and where things stand now."""
        return {
            **self._tally.sums(),
            "slots_idle": self._slots_idle,
            "queued": self._ledger.queued,
            "in_flight": self._ledger.out,
            "workers_armed": self._armed,
            "weight_version": -1 if self._ledger.version is None else self._ledger.version,
        }

    def slots_idle(self) -> float:
        """Share of the engines' slots, over the time between the last two takes, that held no episode."""
        return self._slots_idle

    def events(self) -> list[Event]:
        """What happened since the last call."""
        return self._tally.drain()

    async def _tend(self, place: _Place) -> None:
        """One place for ever: start a worker, arm it, keep it busy, bury it, start the next."""
        while self._signal.failure is None:
            place.births += 1
            name = f"rollout-{place.number}" + (f".{place.births}" if place.births > 1 else "")
            worker: Worker | None = None
            try:
                worker = await self._spawn(place.number, name)
                await self._arm(place, worker)
                await until_one_ends(self._feed(place, worker), self._collect(place, worker))
            except WorkerDied as death:
                self._man(place, None)
                await self._mourn(place, name, death)
            except Exception as error:  # the top of this task: what it cannot mend, the learner must hear
                await self._signal.fail(error)
            finally:
                self._man(place, None)
                if worker is not None:
                    await worker.bury()

    async def _arm(self, place: _Place, worker: Worker) -> None:
        """The newest weights before the first token, whatever is published meanwhile."""
        held = None
        while held is None or held is not self._newest:
            await self._signal.wait_for(lambda: self._newest is not None)
            newest = self._newest
            assert newest is not None
            try:
                self._note(worker, newest[0], await worker.update_weights(newest[1], newest[0]))
                held = newest
            except WeightsLost:  # with the learner that made them: the next one publishes first of all
                await self._signal.wait_for(lambda newest=newest: self._newest is not newest)  # type: ignore[misc]
        self._man(place, worker)
        place.orders_due.set()
        self._tally.event("worker_ready", worker=worker.name, weight_version=held[0], node=worker.node[:12])
        await self._signal.notify()

    async def _update(self, place: _Place, version: int, parcel: Any) -> None:
        """Newest weights for a worker that plays. One that cannot take them is ended, and its place starts another."""
        worker = place.worker
        if worker is None:
            return
        try:
            self._note(worker, version, await worker.update_weights(parcel, version))
        except WorkerDied as death:
            self._man(place, None)
            self._tally.event("weights_refused", worker=worker.name, weight_version=version, reason=str(death))
            await worker.bury()  # its collector hears of it, and `_tend` goes on from there

    def _note(self, worker: Worker, version: int, arrival: Arrival) -> None:
        """Count how weights came. One way that failed cost a transfer more, and says that bytes or members are lost."""
        self._tally.count(**{f"weights_by_{arrival.by}": 1})
        if arrival.failure:
            self._tally.count(transfers_failed=1)
            self._tally.event("transfer_failed", worker=worker.name, weight_version=version, reason=arrival.failure)

    async def _feed(self, place: _Place, worker: Worker) -> None:
        """Orders for one worker. Sleeps on `orders_due`: set by its collector, by `publish`, by deaths and by `_watch`."""
        while True:
            orders = self._dealer.orders(worker.name, workers=self._armed, now=time.monotonic())
            if orders:
                await worker.give(orders)
            else:
                place.orders_due.clear()
                await place.orders_due.wait()

    async def _watch(self) -> None:
        """Wake the feeders for ever while something is overdue and nothing is queued."""
        while True:
            await asyncio.sleep(WATCH_S)
            if self._dealer.look(time.monotonic()):
                self._feed_all()

    async def _collect(self, place: _Place, worker: Worker) -> None:
        """Bring finished episodes home for ever."""
        while True:
            receipts, batch = await worker.collect()
            if not receipts:
                continue
            place.deaths_in_a_row = 0
            for receipt in receipts:
                self._receive(worker, receipt, batch)
            place.orders_due.set()
            await self._signal.notify()

    def _receive(self, worker: Worker, receipt: Receipt, batch: Any) -> None:
        order = self._ledger.order(receipt.ticket)
        fate = self._ledger.receive(receipt, place=(batch, receipt.row))
        self._dealer.home(receipt.ticket, time.monotonic())
        self._tally.received(order, receipt, fate, worker.name)
        if fate is Fate.STALE:
            self._feed_all()

    async def _mourn(self, place: _Place, name: str, death: WorkerDied) -> None:
        lost = self._ledger.lose(name, Death(worker=name, time=time.time(), reason=str(death)))
        self._dealer.gone(name)
        place.deaths_in_a_row = 0 if lost.quarantined else place.deaths_in_a_row + 1
        self._tally.count(worker_restarts=1, episodes_lost_and_requeued=lost.requeued)
        self._tally.event("worker_died", worker=name, requeued=lost.requeued, reason=str(death))
        for step, index in lost.quarantined:
            self._tally.count(episodes_quarantined=1)
            self._tally.quarantined(
                Case(
                    step=step, index=index, time=time.time(), worker=name, deaths=self._ledger.deaths(step, index),
                    reason=f"{MOST_LOSSES} workers died while they held it; the last: {death}",
                    weight_version=-1 if self._ledger.version is None else self._ledger.version,
                )
            )  # fmt: skip
        self._feed_all()
        await self._signal.notify()
        if place.deaths_in_a_row >= DEATHS_IN_A_ROW:
            await self._signal.fail(
                WorkersFailed(
                    f"{name}: {DEATHS_IN_A_ROW} rollout workers in a row died without an episode; the last: {death}"
                )
            )
        await asyncio.sleep(min(5.0, MOURNING_S * 2 ** max(0, place.deaths_in_a_row - 1)))

    async def _forget(self, step: int) -> None:
        """Everything made since `step`, here and in the workers."""
        self._tally.event("rewound", step=step, weight_version=self._ledger.version)
        self._ledger.rewind(step)
        self._dealer.forget()
        await self._signal.notify()
        workers = [place.worker for place in self._places if place.worker]
        # deaths reach the collectors
        await asyncio.gather(*(worker.drop() for worker in workers), return_exceptions=True)

    def _feed_all(self) -> None:
        for place in self._places:
            place.orders_due.set()
