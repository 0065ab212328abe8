"""One holder at a time, whoever dies, sleeps or races, on a local directory and on what behaves like a bucket."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainers.checkpoint_files import local_store, object_store
from trainers import lease as leases
from trainers.lease import Lease, LeaseHeld, LeaseLost
from trainers.storage import Store

PATH = "gp/lease"
TTL_S, SETTLE_S = 0.5, 0.2

TAKER = """
import sys, time
from pathlib import Path
from tests.trainers.checkpoint_files import local_store, object_store
from trainers.lease import Lease, LeaseHeld
store = {"local": local_store, "object": object_store}[sys.argv[1]](Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
try:
    lease = Lease.take(store, "gp/lease", holder="a process", ttl_s=60, settle_s=1.0)
    print("took", lease.token, flush=True)
except LeaseHeld as held:
    print("refused", held, flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=[local_store, object_store], ids=["local", "object"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return request.param(tmp_path)


def take(store: Store, ttl_s: float = TTL_S) -> Lease:
    return Lease.take(store, PATH, holder="a test", ttl_s=ttl_s, settle_s=SETTLE_S)


def from_elsewhere(monkeypatch: pytest.MonkeyPatch, lease: Lease) -> None:
    """Let the claim of `lease` come from a machine whose processes cannot be looked up here."""
    monkeypatch.setattr(lease, "_claim", replace(lease._claim, place="another machine", host="elsewhere"))
    lease._write()


def test_a_second_taker_is_refused_and_told_who_holds_it(store: Store):
    lease = take(store)
    with pytest.raises(LeaseHeld, match=rf"held by a test on .* \(process {os.getpid()}, since 20"):
        take(store)
    lease.check()


def test_a_released_lease_is_free_at_once_and_the_token_grows(store: Store):
    first = take(store, ttl_s=600)
    first.release()
    second = take(store, ttl_s=600)
    assert second.token > first.token
    with pytest.raises(LeaseLost, match="taken over by a test"):
        first.check()
    first.release()  # changes nothing for the one who holds it now
    second.check()


def test_a_silent_holder_elsewhere_is_taken_over_and_fenced(store: Store, monkeypatch: pytest.MonkeyPatch):
    silent = take(store)
    from_elsewhere(monkeypatch, silent)
    started = time.monotonic()
    taken = take(store)
    assert time.monotonic() - started >= TTL_S
    assert taken.token == silent.token + 1
    for attempt in (silent.check, silent.renew):
        with pytest.raises(LeaseLost):
            attempt()
    taken.check()


def test_a_holder_elsewhere_that_shows_life_keeps_it(store: Store, monkeypatch: pytest.MonkeyPatch):
    lease = take(store, ttl_s=2.0)
    from_elsewhere(monkeypatch, lease)
    with lease.kept(), pytest.raises(LeaseHeld, match="elsewhere"):
        take(store)
    take(store)  # `kept` released it


def test_a_clock_that_is_wrong_takes_nothing_from_a_living_holder(store: Store, monkeypatch: pytest.MonkeyPatch):
    lease = take(store)
    monkeypatch.setattr(lease, "_claim", replace(lease._claim, place="another machine"))
    plain = time.time
    monkeypatch.setattr(leases.time, "time", lambda: plain() - 86400)
    with lease.kept():
        while lease._claim.beat == 0:
            time.sleep(0.01)
        monkeypatch.setattr(leases.time, "time", plain)
        with pytest.raises(LeaseHeld):
            take(store)


def test_the_thread_that_renews_tells_of_the_loss(store: Store):
    lease = take(store)
    with lease.kept():
        store.put(f"{PATH}/{lease.token + 1:06d}", leases.claim_bytes(lease._claim))
        deadline = time.monotonic() + 10
        while lease.lost is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert f"claim {lease.token:06d}" in str(lease.lost)


def test_of_many_threads_one_takes_it(store: Store):
    outcomes: list[object] = []
    gate = threading.Barrier(6)

    def race() -> None:
        gate.wait()
        try:
            outcomes.append(take(store, ttl_s=60))
        except LeaseHeld as held:
            outcomes.append(held)

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
    assert len(outcomes) == 6
    assert len(winners) <= 1  # on a bucket that answers slowly all may withdraw
    if store.uri != "mock://bucket":
        assert len(winners) == 1
    for winner in winners:
        winner.check()


@pytest.mark.parametrize("kind", ["local", "object"])
def test_of_several_processes_one_takes_it_and_its_death_frees_it(kind: str, tmp_path: Path):
    store = {"local": local_store, "object": object_store}[kind](tmp_path)
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, kind, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        for _ in range(3)
    ]  # fmt: skip
    try:
        assert all(taker.stdout.readline() == "ready\n" for taker in takers)
        for taker in takers:
            taker.stdin.write("go\n")
            taker.stdin.flush()
        said = [taker.stdout.readline().split() for taker in takers]
        assert sorted(words[0] for words in said) == ["refused", "refused", "took"]
        winner = takers[[words[0] for words in said].index("took")]
        with pytest.raises(LeaseHeld, match=f"process {winner.pid}"):
            take(store)
        winner.send_signal(signal.SIGKILL)  # it is not waited for: a dead process in the table is dead
        deadline = time.monotonic() + 10
        while leases.start_of(winner.pid):
            assert time.monotonic() < deadline
        lease = take(store)  # at once, though its ttl is a minute
        assert lease.token > int(next(words for words in said if words[0] == "took")[1])
    finally:
        for taker in takers:
            taker.kill()
            taker.communicate()


def test_a_fence_travels_and_holds(store: Store):
    lease = take(store)
    fence = pickle.loads(pickle.dumps(lease.fence))  # noqa: S301  (our own bytes)
    fence.check()
    lease.release()
    take(store)
    with pytest.raises(LeaseLost):
        fence.check()


def test_a_deleted_lease_is_lost(store: Store):
    lease = take(store)
    store.remove(PATH)
    with pytest.raises(LeaseLost, match="deleted"):
        lease.check()


def test_earlier_claims_are_swept(store: Store):
    for _ in range(3):
        take(store).release()
    assert len(store.files(PATH)) == 1


def test_the_living_holder_is_told(store: Store):
    assert leases.holder(store, PATH) is None
    lease = take(store)
    assert leases.holder(store, PATH).pid == os.getpid()
    lease.release()
    assert leases.holder(store, PATH) is None


@pytest.mark.parametrize("step", ["list", "write"])
def test_two_that_race_on_a_bucket_never_both_hold_it(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One is held up within its claim until the other has taken the lease: it must see that, or withdraw."""
    store = object_store(tmp_path)
    slow, outcome = object_store(tmp_path), []
    held_up, go_on = threading.Event(), threading.Event()
    plain: Callable = slow.put

    def put(path: str, data: bytes) -> None:
        if step == "write":
            plain(path, data)
        if not held_up.is_set():
            held_up.set()
            go_on.wait(20)
        if step == "list":
            plain(path, data)

    monkeypatch.setattr(slow, "put", put)

    def race() -> None:
        try:
            outcome.append(take(slow))
        except LeaseHeld as held:
            outcome.append(held)

    thread = threading.Thread(target=race)
    thread.start()
    assert held_up.wait(20)
    if step == "list":
        with take(store, ttl_s=60).kept() as lease:
            go_on.set()
            thread.join()
            lease.check()
        assert isinstance(outcome[0], LeaseHeld)
    else:  # it wrote, then slept: its claim stands, and is respected until it withdraws
        with pytest.raises(LeaseHeld):
            take(store)
        go_on.set()
        thread.join()
        assert isinstance(outcome[0], Lease)
        outcome[0].check()
