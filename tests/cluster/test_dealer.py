"""Who gets which orders: fair parts, a reserve, and what is overdue at a slow worker."""

from cluster.dealer import Dealer
from cluster.ledger import Ledger, Order, Receipt
from cluster.stragglers import ENOUGH, LEAST_S
from cluster.tally import Tally


def house(episodes: int, in_flight: int) -> tuple[Dealer, Ledger, Tally]:
    ledger, tally = Ledger(episodes=episodes, steps=1, max_staleness=0), Tally()
    ledger.publish(0)
    return Dealer(ledger, tally, episodes_in_flight=in_flight), ledger, tally


def come_home(dealer: Dealer, ledger: Ledger, orders: list[Order], now: float) -> None:
    for order in orders:
        ledger.receive(Receipt(ticket=order.ticket, tokens=1, oldest_version=0), place=(None, 0))
        dealer.home(order.ticket, now)


def test_a_worker_gets_its_part_and_no_more():
    dealer, ledger, _ = house(episodes=10, in_flight=100)
    assert len(dealer.orders("a", workers=3, now=0.0)) == 4
    assert dealer.orders("a", workers=3, now=0.0) == []
    assert len(dealer.orders("b", workers=3, now=0.0)) == 4
    assert len(dealer.orders("c", workers=3, now=0.0)) == 2
    assert ledger.queued == 0


def test_a_worker_holds_a_quarter_more_than_it_has_places():
    dealer, _, _ = house(episodes=100, in_flight=8)
    assert len(dealer.orders("a", workers=1, now=0.0)) == 10
    tiny, _, _ = house(episodes=100, in_flight=1)
    assert len(tiny.orders("a", workers=1, now=0.0)) == 2


def test_what_is_overdue_is_dealt_again_to_an_idle_worker_once_nothing_is_queued():
    dealer, ledger, tally = house(episodes=2 * ENOUGH, in_flight=ENOUGH)
    slow = dealer.orders("slow", workers=2, now=0.0)
    come_home(dealer, ledger, dealer.orders("quick", workers=2, now=0.0), now=LEAST_S / 4)
    assert not dealer.look(now=LEAST_S)
    assert dealer.look(now=LEAST_S + 0.01)
    again = dealer.orders("quick", workers=2, now=LEAST_S + 0.01)
    assert 0 < len(again) <= len(slow)
    assert {(order.step, order.index) for order in again} <= {(order.step, order.index) for order in slow}
    assert tally.sums()["episodes_played_twice"] == len(again)
    dealer.gone("slow")
    assert not dealer.look(now=LEAST_S + 0.02)  # its orders are no more, and the second tickets are young
