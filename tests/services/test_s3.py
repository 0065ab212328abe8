"""Runs in a bucket, over the real protocol of S3 to moto's server on this machine: what `s3://…` of a run file leads to."""

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from moto.server import ThreadedMotoServer

from services.evaluations.journal import Journal
from services.evaluations.orders import PlayOrder
from services.registry import Registry
from tests.services.conftest import solved
from tests.services.evaluations.test_journal import ID, SUITE, evaluation
from tests.trainers.checkpoint_files import FILES, INFO, writer
from trainers.checkpoints import CheckpointDamaged, CheckpointMissing, Checkpoints, materialise, resolve, write_alias
from trainers.lease import Lease, LeaseHeld, LeaseLost
from trainers.storage import open_store

SETTLE_S = 1.0  # a busy machine's bucket takes tenths of a second for a small write


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"{host}:{port}"
    moto.stop()


@pytest.fixture
def uri(server: str) -> str:
    """A bucket of its own, as a run file would name it."""
    from pyarrow import fs

    bucket = f"b-{uuid.uuid4().hex}"
    where = {"endpoint_override": server, "scheme": "http", "region": "us-east-1"}
    fs.S3FileSystem(access_key="key", secret_key="secret", allow_bucket_creation=True, **where).create_dir(bucket)
    return f"s3://key:secret@{bucket}/runs?" + "&".join(f"{name}={quote(value, '')}" for name, value in where.items())


def put(uri: str, path: str, data: bytes) -> None:
    open_store(uri).put(path, data)


async def test_checkpoints_are_committed_listed_named_fetched_and_replaced(uri: str, tmp_path: Path):
    checkpoints = Checkpoints(uri, "gp")
    for step in (1, 2, 2):
        checkpoints.commit(step, writer(step), INFO)
    write_alias(resolve(uri, "gp@step-000001"), "best", run="gp")
    assert checkpoints.steps() == [1, 2]
    cards = await Registry(uri).cards()
    assert [(card.id, card.metadata.aliases) for card in cards] == [
        ("gp@step-000002", ["latest"]), ("gp@step-000001", ["best"])
    ]  # fmt: skip
    folder = materialise(resolve(uri, "gp@best"), tmp_path / "cache")
    assert all((folder / name).read_bytes().startswith(f"{name} of step 1".encode()) for name in FILES)
    assert "secret" not in cards[0].model_dump_json() + resolve(uri, "gp@latest").uri


async def test_what_was_cut_off_or_harmed_is_neither_listed_nor_loaded(uri: str, tmp_path: Path):
    checkpoints = Checkpoints(uri, "gp")
    for step in (1, 2):
        checkpoints.commit(step, writer(step), INFO)
    put(uri, "gp/checkpoints/step-000003/model/model.safetensors", b"half an upload")
    weights = open_store(uri).read("gp/checkpoints/step-000002/model/model.safetensors")
    put(uri, "gp/checkpoints/step-000002/model/model.safetensors", weights[:-1])
    assert [card.id for card in await Registry(uri).cards()] == ["gp@step-000001"]
    with pytest.raises(CheckpointMissing):
        checkpoints.get(3)
    put(uri, "gp/checkpoints/step-000002/model/model.safetensors", weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(CheckpointDamaged, match="sha256"):
        materialise(checkpoints.get(2), tmp_path / "cache")


def test_one_driver_at_a_time_holds_a_run(uri: str):
    first = Lease.take(open_store(uri), "gp/lease", holder="one", ttl_s=60, settle_s=SETTLE_S)
    with pytest.raises(LeaseHeld, match="one"):
        Lease.take(open_store(uri), "gp/lease", holder="two", ttl_s=60, settle_s=SETTLE_S)
    first.release()
    second = Lease.take(open_store(uri), "gp/lease", holder="two", ttl_s=60, settle_s=SETTLE_S)
    second.check()
    with pytest.raises(LeaseLost):
        first.check()


def test_an_evaluations_items_outlive_their_manager(uri: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(Lease.take.__func__.__kwdefaults__, "settle_s", SETTLE_S)
    checkpoint = Checkpoints(uri, "nano-a").commit(1, writer(1), INFO)
    play = PlayOrder(checkpoint=checkpoint, suite=SUITE, indices=(), order=evaluation().order)
    journal = Journal(open_store(uri))
    journal.start()
    journal.create(evaluation())
    assert journal.claim(ID)
    journal.append(ID, [solved(play, index) for index in (3, 1)])
    journal.close()
    assert [item.index for item in Journal(open_store(uri)).items(ID)] == [3, 1]
