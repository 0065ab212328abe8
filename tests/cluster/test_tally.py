import pytest

from cluster.ledger import Fate, Order, Receipt
from cluster.rollout import Quarantined
from cluster.tally import Tally
from envs.task import Status
from tests.cluster.players import game


def home(tally: Tally, seconds: float) -> None:
    order = Order(step=0, index=0, ticket=0)
    tally.received(order, Receipt(ticket=0, generate_s=seconds * 0.75, verify_s=seconds * 0.25), Fate.KEPT, "rollout-0")


def test_an_episode_without_a_verdict_is_told_in_short_with_its_case_beside_it():
    tally, order = Tally(), Order(step=3, index=7, ticket=0)
    task = game().sample(0)
    silent = Quarantined(
        task=task, status=Status.TIMEOUT, reason="slow", state=game().start(task), answer="24", weight_version=2
    )
    receipt = Receipt(ticket=0, quarantined="timeout: slow", outcome=silent)
    tally.received(order, receipt, Fate.QUARANTINED, "rollout-0")
    (event,) = tally.drain()
    assert event.fields == {"worker": "rollout-0", "step": 3, "index": 7, "reason": "timeout: slow"}
    assert event.case is not None
    assert (event.case.outcome, event.case.weight_version) == (silent, 2)
    assert tally.sums() == {"episodes_quarantined": 1}


def test_slots_are_idle_for_the_time_in_which_they_hold_no_episode():
    tally = Tally()
    assert tally.slots_idle(100.0, 4) == 0.0
    for seconds in (10.0, 10.0, 5.0, 5.0):  # revision: two episodes end at half the time of the others
        home(tally, seconds)
    assert tally.slots_idle(110.0, 4) == pytest.approx(0.25)
    assert tally.slots_idle(120.0, 4) == 1.0
    home(tally, 100.0)  # began long before
    assert tally.slots_idle(130.0, 4) == 0.0
