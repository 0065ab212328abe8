"""Evaluations at rest, in a directory and in an object store: each finished item once, whatever is killed."""

import logging
from pathlib import Path

import pytest

from services.evaluations.journal import EvaluationMissing, EvaluationUnreadable, Journal
from services.evaluations.orders import Counts, Evaluation, EvaluationOrder, PlayOrder
from tests.services.conftest import commit, solved
from tests.trainers.checkpoint_files import object_store
from trainers.lease import Lease, LeaseLost
from trainers.storage import LocalStore, Store

ID = "eval-00000000"
SUITE = "general_points/id"
FOLDER = f"evaluations/{ID}"


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Lease.take.__func__.__kwdefaults__, "settle_s", 0.05)


@pytest.fixture(params=["directory", "object store"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "store") if request.param == "directory" else object_store(tmp_path)


@pytest.fixture
def journal(kept: Store):
    made = Journal(kept)
    made.start()
    yield made
    made.close()


@pytest.fixture
def items(tmp_path: Path):
    order = EvaluationOrder(checkpoint="nano-a@latest", suites=(SUITE,), n=8, viter=2)
    play = PlayOrder(checkpoint=commit(tmp_path / "other", "nano-a", 1), suite=SUITE, indices=(), order=order)
    return [solved(play, index) for index in range(8)]


def evaluation() -> Evaluation:
    order = EvaluationOrder(checkpoint="nano-a@latest", suites=(SUITE,), n=8, viter=2)
    return Evaluation(
        id=ID, created_at=1.0, model="nano-a@step-000001", digest="d", order=order, counts=Counts(total=8)
    )


def test_items_come_back_in_the_order_they_were_added(journal: Journal, items):
    journal.create(evaluation())
    assert journal.claim(ID)
    for start in (4, 0, 6, 2):
        journal.append(ID, items[start : start + 2])
    order = [4, 5, 0, 1, 6, 7, 2, 3]
    assert [item.index for item in journal.items(ID)] == order
    journal.finish(evaluation())
    assert [item.index for item in journal.items(ID)] == order
    assert journal.ids() == [ID]


def test_an_ended_evaluation_is_three_files(journal: Journal, kept: Store, items):
    journal.create(evaluation())
    journal.claim(ID)
    journal.append(ID, items[:3])
    journal.append(ID, items[3:])
    journal.finish(evaluation())
    lasting = {name for name in kept.files(FOLDER) if not name.startswith("player/")}
    assert lasting == {"order.json", "result.json", "items.jsonl"}


def test_a_kill_within_a_write_costs_that_write_alone(journal: Journal, kept: Store, items):
    journal.create(evaluation())
    journal.claim(ID)
    journal.append(ID, items[:3])
    torn = items[3].model_dump_json().encode()[:40]
    if isinstance(kept, LocalStore):
        with kept.at(f"{FOLDER}/items.jsonl").open("ab") as file:
            file.write(torn)
    else:
        kept.put(f"{FOLDER}/items/000001-000009.jsonl", torn)
    assert journal.items(ID) == items[:3]
    assert journal.repaired(ID) == items[:3]
    journal.append(ID, items[3:])
    assert journal.items(ID) == items


def test_a_kill_between_compacting_and_clearing_away_repeats_no_item(journal: Journal, kept: Store, items):
    journal.create(evaluation())
    journal.claim(ID)
    journal.append(ID, items[:5])
    lines = b"".join(item.model_dump_json().encode() + b"\n" for item in items[:5])
    kept.put(f"{FOLDER}/items.jsonl", lines)
    assert journal.items(ID) == items[:5]
    journal.repaired(ID)
    journal.append(ID, items[5:])
    assert journal.items(ID) == items


def test_whoever_lost_the_lease_writes_nothing_more(journal: Journal, kept: Store, items):
    journal.create(evaluation())
    journal.claim(ID)
    journal.append(ID, items[:2])
    kept.put(f"{FOLDER}/player/000009", b"{}")  # another machine took over while this process was stopped
    with pytest.raises(LeaseLost):
        journal.append(ID, items[2:])
    with pytest.raises(LeaseLost):
        journal.finish(evaluation())
    assert journal.items(ID) == items[:2]
    assert not journal.load(ID).has_ended


def test_one_plays_and_the_next_may_once_that_one_let_go(journal: Journal, kept: Store):
    beside = Journal(kept)
    beside.start()
    journal.create(evaluation())
    assert not beside.is_orphan(journal.load(ID))
    assert journal.claim(ID)
    assert not beside.claim(ID)
    journal.close()
    assert beside.is_orphan(beside.load(ID))
    assert beside.claim(ID)
    beside.close()


def test_what_another_version_wrote_is_told_once_and_stops_nothing(
    journal: Journal, kept: Store, caplog: pytest.LogCaptureFixture
):
    kept.put(f"{FOLDER}/order.json", b'{"id": "eval-00000000", "order": {"temperature": 1.0}}')
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with pytest.raises(EvaluationUnreadable):
                journal.load(ID)
    assert len(caplog.records) == 1
    assert "order.json cannot be read" in caplog.text


def test_nothing_is_read_outside_of_the_journal(journal: Journal):
    for bad in ("../order", "eval-../x", "eval-00000000/../../x", ""):
        with pytest.raises(EvaluationMissing):
            journal.load(bad)
