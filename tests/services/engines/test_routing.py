"""Where a request goes: what replicas told, what was sent, and how long ago."""

from itertools import count

import pytest

from services.engines.routing import LOST_S, SETTLED_S, Told, Traffic

A, B, C = "digest-a", "digest-b", "digest-c"


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def traffic(clock: Clock) -> Traffic:
    made = Traffic(full=8, now=clock)
    made.tell({"one": Told(A, 0), "two": Told(B, 0)})
    return made


def test_the_replica_that_holds_it_comes_first(traffic: Traffic):
    assert traffic.ranked(A) == ["one", "two"]
    assert traffic.ranked(B) == ["two", "one"]


def test_it_comes_first_however_busy_the_holder_is_short_of_full(traffic: Traffic):
    for number in range(7):
        traffic.send(f"{number}", "one", A)
    assert traffic.ranked(A)[0] == "one"


def test_what_nobody_holds_goes_to_the_idle_replica_that_rested_longest(traffic: Traffic, clock: Clock):
    for request, replica, digest in (("1", "two", B), ("2", "one", A)):
        clock.time += 1
        traffic.send(request, replica, digest)
        traffic.done(request)
    assert traffic.ranked(C) == ["two", "one"]


def test_where_none_is_idle_the_least_loaded_takes_it(traffic: Traffic):
    traffic.tell({"one": Told(A, 3), "two": Told(B, 2)})
    assert traffic.ranked(C) == ["two", "one"]


def test_a_checkpoint_that_was_just_sent_somewhere_is_expected_there(traffic: Traffic, clock: Clock):
    traffic.send("1", "two", C)
    assert traffic.ranked(C)[0] == "two"
    traffic.done("1")
    traffic.tell({"one": Told(A, 0), "two": Told(B, 0)})  # said before C was loaded
    assert traffic.ranked(C)[0] == "two"
    clock.time += SETTLED_S + 1
    assert traffic.ranked(B)[0] == "two"  # by now it would have told of C


def test_a_full_holder_sends_the_rest_to_a_replica_that_rests_and_to_no_other(traffic: Traffic, clock: Clock):
    traffic.send("share", "one", A, weight=8)
    assert traffic.ranked(A, 8) == ["two", "one"]
    traffic.send("1", "two", B)
    assert traffic.ranked(A, 8) == ["one", "two"]
    traffic.done("1")
    assert traffic.ranked(A, 8) == ["one", "two"]  # B may be asked for again at any moment
    clock.time += SETTLED_S + 1
    assert traffic.ranked(A, 8) == ["two", "one"]


def test_two_checkpoints_in_turn_never_change_places(traffic: Traffic, clock: Clock):
    """Whatever is in flight: 400 requests for two checkpoints that two replicas hold."""
    ids = count()
    flying = []
    for step in range(400):
        clock.time += 0.01
        digest, home = ((A, "one"), (B, "two"))[step % 3 == 0]
        replica = traffic.ranked(digest)[0]
        assert replica == home
        flying.append(f"{next(ids)}")
        traffic.send(flying[-1], replica, digest)
        if len(flying) > 6:
            traffic.done(flying.pop(step % 5))


def test_a_request_that_was_taken_elsewhere_counts_there(traffic: Traffic):
    traffic.send("1", "one", C)
    traffic.send("1", "two", C)
    assert traffic.ranked(C)[0] == "two"
    traffic.done("1")
    traffic.done("1")


def test_replicas_that_are_gone_are_never_named(traffic: Traffic):
    traffic.send("1", "one", A)
    traffic.tell({"two": Told(B, 0)})
    assert traffic.ranked(A) == ["two"]
    assert Traffic(full=8).ranked(A) == []


def test_without_a_checkpoint_whoever_holds_one_answers(traffic: Traffic):
    traffic.tell({"new": Told(None, 0, is_up=False), "one": Told(A, 5)})
    assert traffic.ranked("") == ["one"]


@pytest.mark.parametrize("digest", [A, C])
def test_nobody_waits_for_an_engine_that_starts_while_another_is_up(traffic: Traffic, digest: str):
    traffic.tell({"new": Told(None, 0, is_up=False), "one": Told(A, 8), "newer": Told(None, 0, is_up=False)})
    traffic.send("1", "new", digest)
    assert traffic.ranked(digest) == ["one"]
    traffic.tell({"new": Told(None, 0, is_up=False), "newer": Told(None, 0, is_up=False)})
    assert traffic.ranked(digest) == ["new", "newer"]


def test_a_request_whose_end_nobody_told_counts_for_an_hour(traffic: Traffic, clock: Clock):
    traffic.send("1", "one", A, weight=8)
    clock.time += LOST_S + 1
    traffic.tell({"one": Told(A, 0), "two": Told(A, 1)})
    assert traffic.ranked(A) == ["one", "two"]
