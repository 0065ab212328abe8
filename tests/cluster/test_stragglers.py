from cluster.stragglers import ENOUGH, LEAST_S, PATIENCE, Stragglers


def working(*, quick_s: float, slow_since: float = 0.0) -> Stragglers:
    """Worker `quick` took `quick_s` for each of its episodes; `slow` has held ticket 0 since `slow_since`."""
    times = Stragglers()
    times.given(0, "slow", slow_since)
    for ticket in range(1, ENOUGH + 1):
        times.given(ticket, "quick", 0.0)
        times.home(ticket, quick_s)
    return times


def test_an_order_is_overdue_at_twice_what_others_take():
    times = working(quick_s=3.0)
    assert times.overdue(3.0 * PATIENCE) == []
    assert times.overdue(3.0 * PATIENCE + 0.01) == [0]


def test_short_pauses_make_nothing_overdue():
    times = working(quick_s=0.001)
    assert times.overdue(LEAST_S) == []
    assert times.overdue(LEAST_S + 0.01) == [0]


def test_a_worker_is_measured_by_others_alone():
    times = working(quick_s=1.0)
    times.given(50, "quick", 0.0)
    assert times.overdue(1000.0) == [0]  # nobody says how long the episodes of `quick` should take


def test_few_episodes_say_nothing():
    times = Stragglers()
    times.given(0, "slow", 0.0)
    for ticket in range(1, ENOUGH):
        times.given(ticket, "quick", 0.0)
        times.home(ticket, 1.0)
    assert times.overdue(1000.0) == []


def test_what_came_home_was_lost_or_dropped_is_not_overdue():
    times = working(quick_s=1.0)
    times.home(0, 900.0)
    assert times.overdue(1000.0) == []
    times = working(quick_s=1.0)
    times.gone("slow")
    assert times.overdue(1000.0) == []
    times = working(quick_s=1.0)
    times.forget()
    assert times.overdue(1000.0) == []
