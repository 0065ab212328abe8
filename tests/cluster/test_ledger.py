import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from cluster.ledger import MOST_LOSSES, Fate, Ledger, Lost, Receipt, TakenTwice
from cluster.shares import Entry, balanced


def home(order, version: int, tokens: int = 10) -> Receipt:
    return Receipt(ticket=order.ticket, row=0, tokens=tokens, oldest_version=version)


def test_nothing_goes_out_before_weights_are_published():
    ledger = Ledger(episodes=4, steps=3, max_staleness=1)
    assert ledger.hand_out("w", 99) == []


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_a_step_goes_out_once_its_weights_are_near_enough(staleness: int):
    ledger = Ledger(episodes=2, steps=5, max_staleness=staleness)
    ledger.publish(0)
    assert [order.step for order in ledger.hand_out("w", 99)] == sorted([*range(staleness + 1)] * 2)
    ledger.publish(1)
    assert [order.step for order in ledger.hand_out("w", 99)] == [staleness + 1] * 2


def test_steps_past_the_last_are_never_played():
    ledger = Ledger(episodes=2, steps=2, max_staleness=5)
    ledger.publish(0)
    assert {order.step for order in ledger.hand_out("w", 99)} == {0, 1}


def test_a_resumed_run_begins_where_it_stopped():
    ledger = Ledger(episodes=1, steps=50, max_staleness=0)
    ledger.publish(40)
    assert [order.step for order in ledger.hand_out("w", 99)] == [40]


def test_a_receipt_counts_once():
    ledger = Ledger(episodes=1, steps=1, max_staleness=0)
    ledger.publish(0)
    (order,) = ledger.hand_out("w", 1)
    assert ledger.receive(home(order, 0), "here") is Fate.KEPT
    assert ledger.receive(home(order, 0), "again") is Fate.REFUSED
    assert [entry.place for entry in ledger.deliver(0, rank=0, world_size=1)] == ["here"]


def test_a_late_receipt_of_a_replaced_worker_is_refused():
    ledger = Ledger(episodes=1, steps=1, max_staleness=0)
    ledger.publish(0)
    (order,) = ledger.hand_out("old", 1)
    assert ledger.lose("old") == Lost(requeued=1, quarantined=())
    (again,) = ledger.hand_out("new", 1)
    assert (again.step, again.index) == (order.step, order.index)
    assert ledger.receive(home(order, 0)) is Fate.REFUSED
    assert not ledger.is_complete(0)
    assert ledger.receive(home(again, 0)) is Fate.KEPT


def test_an_episode_with_a_token_too_old_is_played_again():
    ledger = Ledger(episodes=1, steps=9, max_staleness=1)
    ledger.publish(0)
    ledger.hand_out("w", 2)
    ledger.publish(1)
    (order,) = ledger.hand_out("w", 9)
    assert order.step == 2
    assert ledger.receive(home(order, version=0)) is Fate.STALE
    (again,) = ledger.hand_out("w", 9)
    assert (again.step, again.index) == (2, 0)
    assert ledger.receive(home(again, version=1)) is Fate.KEPT


def test_a_quarantined_episode_completes_its_step_and_is_missing_from_it():
    ledger = Ledger(episodes=2, steps=1, max_staleness=0)
    ledger.publish(0)
    good, bad = ledger.hand_out("w", 2)
    assert ledger.receive(Receipt(ticket=bad.ticket, quarantined="crashed")) is Fate.QUARANTINED
    ledger.receive(home(good, 0))
    assert [entry.index for entry in ledger.deliver(0, rank=0, world_size=1)] == [good.index]


def test_each_rank_takes_its_share_once():
    ledger = Ledger(episodes=5, steps=1, max_staleness=0)
    ledger.publish(0)
    for order in ledger.hand_out("w", 5):
        ledger.receive(home(order, 0))
    first = ledger.deliver(0, rank=0, world_size=2)
    with pytest.raises(TakenTwice, match="rank 0 has taken"):
        ledger.deliver(0, rank=0, world_size=2)
    with pytest.raises(TakenTwice, match="share of 3"):
        ledger.deliver(0, rank=1, world_size=3)
    second = ledger.deliver(0, rank=1, world_size=2)
    assert sorted(entry.index for entry in first + second) == [0, 1, 2, 3, 4]
    with pytest.raises(TakenTwice, match="not open"):
        ledger.deliver(0, rank=1, world_size=2)


@pytest.mark.parametrize("how", ["rewind", "publish"])
def test_a_learner_that_starts_again_gets_the_steps_again(how: str):
    ledger = Ledger(episodes=1, steps=9, max_staleness=1)
    ledger.publish(4)
    held = ledger.hand_out("w", 9)
    ledger.receive(home(held[0], 4))
    ledger.deliver(4, rank=0, world_size=1)
    life = ledger.life
    if how == "rewind":
        ledger.rewind(4)
        assert ledger.hand_out("w", 9) == []
    ledger.publish(4)
    assert ledger.life == life + 1
    assert ledger.receive(home(held[1], 4)) is Fate.REFUSED
    assert [order.step for order in ledger.hand_out("w", 9)] == [4, 5]


def test_the_first_of_two_tickets_counts_and_the_other_is_refused():
    ledger = Ledger(episodes=1, steps=1, max_staleness=0)
    ledger.publish(0)
    (slow,) = ledger.hand_out("slow", 1)
    assert ledger.hand_out_again("slow", 9, [slow.ticket]) == []
    (quick,) = ledger.hand_out_again("quick", 9, [slow.ticket])
    assert ledger.hand_out_again("third", 9, [slow.ticket, quick.ticket]) == []
    assert ledger.receive(home(quick, 0), "quick") is Fate.KEPT
    assert (ledger.out, ledger.out_at("quick"), ledger.out_at("slow")) == (0, 0, 1)  # it is still at it
    assert ledger.receive(home(slow, 0), "slow") is Fate.REFUSED
    assert ledger.out_at("slow") == 0
    assert [entry.place for entry in ledger.deliver(0, rank=0, world_size=1)] == ["quick"]


@pytest.mark.parametrize("dies", ["slow", "quick"])
def test_of_two_tickets_one_may_be_lost_or_get_no_verdict(dies: str):
    ledger = Ledger(episodes=1, steps=1, max_staleness=0)
    ledger.publish(0)
    (first,) = ledger.hand_out("slow", 1)
    (second,) = ledger.hand_out_again("quick", 1, [first.ticket])
    dead, alive = (first, second) if dies == "slow" else (second, first)
    assert ledger.receive(Receipt(ticket=dead.ticket, quarantined="timeout")) is Fate.REFUSED
    assert ledger.lose(dies) == Lost(requeued=0, quarantined=())
    assert ledger.receive(home(alive, 0)) is Fate.KEPT


def test_an_episode_that_ends_its_workers_is_quarantined_and_those_beside_it_are_not():
    ledger = Ledger(episodes=8, steps=1, max_staleness=0)
    ledger.publish(0)
    poison, deaths, told = (0, 3), 0, ()
    while not ledger.is_complete(0):
        worker = f"w.{deaths}"
        orders = ledger.hand_out(worker, 8, places=8)
        if any((order.step, order.index) == poison for order in orders):
            deaths += 1
            told = ledger.lose(worker).quarantined
        else:
            for order in orders:
                ledger.receive(home(order, 0))
    assert (deaths, told) == (MOST_LOSSES, (poison,))
    assert [entry.index for entry in ledger.deliver(0, rank=0, world_size=1)] == [0, 1, 2, 4, 5, 6, 7]


def test_what_lost_its_worker_is_one_of_a_quarter_as_many_at_the_next():
    ledger = Ledger(episodes=64, steps=1, max_staleness=0)
    ledger.publish(0)
    company = []
    for life in range(MOST_LOSSES):
        company.append(len(ledger.hand_out(f"w.{life}", 64, places=64)))
        ledger.lose(f"w.{life}")
    assert company == [64, 16, 16, 16, 16]


@given(
    lengths=st.lists(st.integers(1, 500), max_size=60),
    parts=st.integers(1, 7),
    seed=st.randoms(),
)
def test_shares_are_even_in_number_near_in_tokens_and_depend_on_nothing_else(lengths, parts, seed):
    entries = [Entry(index=index, tokens=tokens, place=None) for index, tokens in enumerate(lengths)]
    shares = balanced(entries, parts)
    assert sorted(entry.index for share in shares for entry in share) == list(range(len(entries)))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    tokens = [sum(entry.tokens for entry in share) for share in shares]
    if len(entries) >= parts:
        assert max(tokens) - min(tokens) <= 2 * max(lengths)
    shuffled = entries[:]
    seed.shuffle(shuffled)
    assert balanced(shuffled, parts) == shares


class Run(RuleBasedStateMachine):
    """A learner, workers that die, come late and repeat themselves, and weights that move on: in any order."""

    tickets = Bundle("tickets")
    EPISODES, STEPS, RANKS = 3, 5, 2

    @rule(target=tickets, staleness=st.integers(0, 2))
    @precondition(lambda self: not hasattr(self, "ledger"))
    def start(self, staleness):
        self.staleness = staleness
        self.ledger = Ledger(episodes=self.EPISODES, steps=self.STEPS, max_staleness=staleness)
        self.version, self.step, self.taken = 0, 0, {}
        self.delivered: dict[tuple[int, int], int] = {}
        self.ledger.publish(0)
        return []

    @rule(target=tickets, worker=st.sampled_from("abc"), limit=st.integers(0, 4))
    @precondition(lambda self: hasattr(self, "ledger"))
    def hand_out(self, worker, limit):
        orders = self.ledger.hand_out(worker, limit)
        assert all(order.step <= self.version + self.staleness for order in orders)
        return [(order, self.version) for order in orders]

    @rule(held=tickets, age=st.integers(0, 1))
    def receive_perhaps_twice(self, held, age):
        for order, version in held:
            oldest = max(0, version - age)
            fate = self.ledger.receive(home(order, oldest), (order.step, order.index, oldest))
            assert fate is not Fate.KEPT or order.step - oldest <= self.staleness

    @rule(held=consumes(tickets))
    def no_verdict(self, held):
        for order, _ in held[:1]:
            if self.ledger.receive(Receipt(ticket=order.ticket, quarantined="timeout")) is Fate.QUARANTINED:
                key = (order.step, order.index)
                self.delivered[key] = self.delivered.get(key, 0) + 1

    @rule(target=tickets, held=tickets, worker=st.sampled_from("abc"))
    def hand_out_again(self, held, worker):
        orders = self.ledger.hand_out_again(worker, 2, [order.ticket for order, _ in held])
        assert {(order.step, order.index) for order in orders} <= {(order.step, order.index) for order, _ in held}
        return [(order, self.version) for order in orders]

    @rule(worker=st.sampled_from("abc"))
    @precondition(lambda self: hasattr(self, "ledger"))
    def kill(self, worker):
        for key in self.ledger.lose(worker).quarantined:
            self.delivered[key] = self.delivered.get(key, 0) + 1
        assert self.ledger.out_at(worker) == 0

    @rule(rank=st.integers(0, 1))
    @precondition(lambda self: hasattr(self, "ledger") and self.step < self.STEPS)
    def take(self, rank):
        if rank in self.taken or not self.ledger.is_complete(self.step):
            return
        share = self.ledger.deliver(self.step, rank=rank, world_size=self.RANKS)
        for entry in share:
            step, index, oldest = entry.place
            assert (step, index) == (self.step, entry.index)
            assert self.step - oldest <= self.staleness
            self.delivered[step, index] = self.delivered.get((step, index), 0) + 1
        self.taken[rank] = True
        if len(self.taken) == self.RANKS:
            done = {key for key, times in self.delivered.items() if key[0] == self.step and times == 1}
            assert done == {(self.step, index) for index in range(self.EPISODES)}
            self.step, self.version, self.taken = self.step + 1, self.version + 1, {}
            self.ledger.publish(self.version)

    @rule(back=st.integers(0, 2))
    @precondition(lambda self: hasattr(self, "ledger"))
    def learner_starts_again(self, back):
        self.step = self.version = max(0, self.step - back)
        self.taken = {}
        self.delivered = {key: times for key, times in self.delivered.items() if key[0] < self.step}
        self.ledger.publish(self.version)

    @invariant()
    def nothing_is_delivered_twice(self):
        if hasattr(self, "ledger"):
            assert all(times == 1 for times in self.delivered.values())

    def teardown(self):
        """Whatever happened before, an honest worker brings the rest home."""
        while hasattr(self, "ledger") and self.step < self.STEPS:
            for worker in "abc":
                self.kill(worker)
            for order in self.ledger.hand_out("d", math.inf):
                self.ledger.receive(home(order, self.version), (order.step, order.index, self.version))
            for rank in range(self.RANKS):
                self.take(rank)


TestRun = Run.TestCase
TestRun.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
