"""Names to checkpoints, over a real store of small files."""

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from envs.base import DataError
from services import inspection
from services import registry as module
from services.inspection import INSPECTION, Verdicts
from services.registry import Registry, names_of
from tests.services.conftest import commit
from tests.trainers.checkpoint_files import INFO, object_store, writer
from trainers.aliases import AliasReserved, aliases
from trainers.checkpoints import CheckpointDamaged, CheckpointMissing, Checkpoints, materialise, resolve, write_alias
from trainers.storage import LocalStore


@pytest.fixture
def registry(store: Path) -> Registry:
    return Registry(str(store))


@pytest.fixture
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every listing reads the store, and compares every stamp."""
    monkeypatch.setattr(module, "LISTING_AGE_S", -1.0)
    monkeypatch.setattr(inspection, "LOCAL_AGE_S", -1.0)
    monkeypatch.setattr(inspection, "REMOTE_AGE_S", -1.0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose sha256 is computed from here on."""
    paths: list[str] = []
    sha256 = LocalStore.sha256
    monkeypatch.setattr(LocalStore, "sha256", lambda store, path: paths.append(path) or sha256(store, path))
    return paths


async def listed(registry: Registry) -> list[str]:
    return [card.id for card in await registry.cards()]


async def failing(error: Exception) -> AsyncGenerator[None, None]:
    """What a replica streams that cannot load a checkpoint."""
    raise error
    yield


async def comes_to_list(registry: Registry, names: list[str]) -> None:
    """Returns once it lists these: what it lists already is looked at again behind the listing."""
    async with asyncio.timeout(10):
        while await listed(registry) != names:
            await asyncio.sleep(0.005)


def flip(path: Path) -> None:
    """Damage a file, or mend it. Nobody looks meanwhile: a look between two steps of the harm would see, and read, one more."""
    for thread in threading.enumerate():
        if thread.name == INSPECTION:  # it goes on behind a listing, and ends when its line is empty
            thread.join(10)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def model_of(store: Path, run: str, step: int) -> Path:
    return store / run / "checkpoints" / f"step-{step:06d}" / "model" / "model.safetensors"


async def test_every_checkpoint_is_listed_newest_first_within_its_run(registry: Registry):
    assert [card.id for card in await registry.cards()] == [
        "nano-a@step-000020", "nano-a@step-000010", "nano-b@step-000005",
    ]  # fmt: skip


async def test_a_card_says_what_the_manifest_says(registry: Registry):
    card = await registry.card("nano-a@latest")
    assert card.id == "nano-a@step-000020"
    assert card.metadata.metrics == {"loss": 0.5}
    assert card.metadata.parents == ["p" * 64]
    assert len(card.metadata.digest) == 64


async def test_aliases_are_followed_and_shown(registry: Registry, store: Path):
    write_alias(resolve(store, "nano-a@step-000010"), "best")
    assert (await registry.resolve("nano-a@best")).name == "nano-a@step-000010"
    assert "nano-a@best" in names_of((await registry.cards())[1])
    assert "nano-a@latest" in names_of((await registry.cards())[0])


async def test_an_unknown_name_hears_the_three_nearest(registry: Registry):
    with pytest.raises(CheckpointMissing) as error:
        await registry.resolve("nano-a@step-000011")
    assert "nano-a@step-000010" in str(error.value)
    assert str(error.value).count("@step-") == 4


@pytest.mark.parametrize(
    "name",
    [
        "../secrets@step-000001", "nano-a@../../x", "/etc@latest", "nano-a", "", "a\0b@latest", "nano-a@" + "x" * 5000,
        "nano-a/../nano-b@latest", "%2e%2e@latest", "NANO-A\\..@latest",
    ],
)  # fmt: skip
async def test_a_name_never_leads_out_of_the_store(registry: Registry, name: str):
    with pytest.raises(DataError):
        await registry.resolve(name)


async def test_a_damaged_checkpoint_is_not_listed(registry: Registry, store: Path):
    (store / "nano-a" / "checkpoints" / "step-000020" / "manifest.json").write_text("{}")
    assert [card.id for card in await registry.cards()] == ["nano-a@step-000010", "nano-b@step-000005"]


async def test_a_new_checkpoint_is_listed_once_the_listing_is_old(registry: Registry, committed, monkeypatch):
    await registry.cards()
    committed("nano-c", 1)
    assert len(await registry.cards()) == 3
    monkeypatch.setattr(module, "LISTING_AGE_S", 0.0)
    assert len(await registry.cards()) == 4


async def test_the_newest_of_all_is_the_one_committed_last(registry: Registry, committed):
    committed("nano-b", 6)
    newest = await registry.newest()
    assert newest is not None
    assert newest.name in ("nano-b@step-000006", "nano-b@step-000005", "nano-a@step-000020")
    assert await Registry(str(registry.store) + "-empty").newest() is None


# ---- only what is intact


@pytest.mark.parametrize("harm", [flip, lambda path: os.truncate(path, 3), Path.unlink])
async def test_a_checkpoint_with_a_damaged_file_is_neither_listed_nor_served(registry: Registry, store: Path, harm):
    harm(model_of(store, "nano-a", 20))
    assert await listed(registry) == ["nano-a@step-000010", "nano-b@step-000005"]
    with pytest.raises(CheckpointDamaged, match=r"model\.safetensors.*newest intact earlier one is nano-a@step-000010"):
        await registry.resolve("nano-a@step-000020")
    assert (await registry.resolve("nano-a@latest")).step == 10
    assert "latest" in (await registry.card("nano-a@step-000010")).metadata.aliases


async def test_the_latest_of_a_run_whose_checkpoints_are_all_damaged_is_told(registry: Registry, store: Path):
    flip(model_of(store, "nano-b", 5))
    with pytest.raises(CheckpointDamaged, match=r"nano-b holds no intact checkpoint: nano-b@step-000005: .* sha256"):
        await registry.resolve("nano-b@latest")


async def test_a_file_added_to_a_model_is_damage(registry: Registry, store: Path):
    model_of(store, "nano-b", 5).with_name("modeling_evil.py").write_text("boom")
    assert await listed(registry) == ["nano-a@step-000020", "nano-a@step-000010"]


async def test_each_file_is_read_once_and_again_when_it_was_written(
    registry: Registry, store: Path, read: list[str], always_fresh: None
):
    for _ in range(3):
        assert len(await listed(registry)) == 3
        await registry.resolve("nano-a@step-000020")
    assert len(read) == 3
    path = model_of(store, "nano-a", 20)
    times = path.stat()
    flip(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as one would who hides it
    await comes_to_list(registry, ["nano-a@step-000010", "nano-b@step-000005"])
    flip(path)  # mended
    await comes_to_list(registry, ["nano-a@step-000020", "nano-a@step-000010", "nano-b@step-000005"])
    assert len(read) == 5


async def test_what_was_read_is_remembered_over_a_restart(store: Path, tmp_path: Path, read: list[str]):
    memory = tmp_path / "service" / "verdicts.jsonl"
    flip(model_of(store, "nano-b", 5))
    first = await listed(Registry(str(store), memory=memory))
    assert len(read) == 3
    with memory.open("ab") as file:
        file.write(b'{"key": "torn')
    assert await listed(Registry(str(store), memory=memory)) == first == ["nano-a@step-000020", "nano-a@step-000010"]
    assert len(read) == 3


async def test_what_one_process_finds_reaches_the_others(store: Path, tmp_path: Path, always_fresh: None):
    gateway, manager = (Registry(str(store), memory=tmp_path / "verdicts.jsonl", reads=r) for r in (True, False))
    assert len(await listed(gateway)) == 3
    checkpoint = await manager.resolve("nano-b@latest")
    with pytest.raises(CheckpointDamaged):
        await anext(manager.watched(checkpoint, failing(CheckpointDamaged("nano-b@step-000005: sha256 is another"))))
    await comes_to_list(gateway, ["nano-a@step-000020", "nano-a@step-000010"])


async def test_an_alias_of_a_checkpoint_found_damaged_at_load_says_so(registry: Registry, store: Path):
    write_alias(resolve(store, "nano-a@step-000010"), "best")
    checkpoint = await registry.resolve("nano-a@best")
    with pytest.raises(CheckpointDamaged):
        await anext(registry.watched(checkpoint, failing(CheckpointDamaged("nano-a@step-000010: a.json is missing"))))
    assert await listed(registry) == ["nano-a@step-000020", "nano-b@step-000005"]
    with pytest.raises(CheckpointDamaged, match=r"nano-a@best names a damaged checkpoint: .* is missing"):
        await registry.resolve("nano-a@best")
    commit(store, "nano-a", 10)  # written anew, it is looked at anew
    assert (await registry.resolve("nano-a@best")).step == 10


async def test_any_other_failure_says_nothing_of_the_checkpoint(registry: Registry):
    checkpoint = await registry.resolve("nano-a@latest")
    with pytest.raises(RuntimeError):
        await anext(registry.watched(checkpoint, failing(RuntimeError("the engine died"))))
    assert len(await listed(registry)) == 3


async def test_one_bad_folder_hides_no_other(registry: Registry, store: Path, tmp_path: Path):
    checkpoints = store / "nano-a" / "checkpoints"
    (checkpoints / "step-000030").mkdir()
    (checkpoints / "step-000040").write_text("a file")
    shutil.copytree(checkpoints / "step-000010", checkpoints / "step-000050")  # another step's manifest
    (checkpoints / "step-000010" / "manifest.json").write_text("[" * 100_000)  # deeper than a parser goes
    (store / "..odd").mkdir()
    (store / "a..b" / "checkpoints" / "step-000001").mkdir(parents=True)
    (store / "loop").symlink_to("loop")
    commit(tmp_path / "outside", "nano-z", 1)
    (store / "nano-z").symlink_to(tmp_path / "outside" / "nano-z")
    (store / "nano-b" / "aliases").mkdir()
    (store / "nano-b" / "aliases" / "best").write_text("{")
    (store / "nano-b" / "aliases" / "out").symlink_to("/etc/hostname")
    assert await listed(registry) == ["nano-a@step-000020", "nano-b@step-000005"]


async def test_a_manifest_of_other_types_is_damage_and_breaks_no_listing(registry: Registry, store: Path):
    for number, odd in enumerate(({"metrics": {"loss": "low"}}, {"parents": [1]}, {"compute": {"parameters": [2]}})):
        run = f"odd-{number}"
        info = type(INFO)(**{"parents": (), "metrics": {}, "compute": {}, "config": {}, **odd})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("math.isfinite", lambda _: True)
            Checkpoints(store, run).commit(1, writer(1), info)
    assert len(await listed(registry)) == 3


async def test_a_large_store_is_listed_while_it_is_still_read(store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspection, "PATIENCE_S", 0.0)
    monkeypatch.setattr(module, "LISTING_AGE_S", -1.0)
    registry = Registry(str(store))
    while len(await listed(registry)) < 3:
        assert (await registry.resolve("nano-a@step-000010")).step == 10  # served at once: read out of turn
    assert len(await listed(registry)) == 3


async def test_a_bucket_is_listed_by_sizes_and_believes_who_fetched(tmp_path: Path, always_fresh: None):
    bucket = object_store(tmp_path)
    for step in (1, 2):
        Checkpoints(bucket, "gp").commit(step, writer(step), INFO)
    registry = Registry(bucket)
    model = tmp_path / "bucket" / "gp" / "checkpoints" / "step-000002" / "model" / "model.safetensors"
    flip(model)
    assert await listed(registry) == ["gp@step-000002", "gp@step-000001"]
    checkpoint = await registry.resolve("gp@latest")
    with pytest.raises(CheckpointDamaged) as error:
        materialise(checkpoint, tmp_path / "cache", learner=False)
    with pytest.raises(CheckpointDamaged):
        await anext(registry.watched(checkpoint, failing(error.value)))
    assert await listed(registry) == ["gp@step-000001"]
    os.truncate(model.parents[2] / "step-000001" / "model" / "model.safetensors", 5)
    await comes_to_list(registry, [])


# ---- aliases


async def test_an_alias_may_name_a_checkpoint_of_another_run(registry: Registry, store: Path):
    write_alias(resolve(store, "nano-b@step-000005"), "init", run="nano-a")
    assert (await registry.resolve("nano-a@init")).name == "nano-b@step-000005"
    card = next(card for card in await registry.cards() if card.id == "nano-b@step-000005")
    assert card.metadata.aliases == ["nano-a@init", "latest"]
    assert names_of(card) == ["nano-b@step-000005", "nano-a@init", "nano-b@latest"]


async def test_a_users_alias_is_set_moved_and_deleted(registry: Registry, store: Path):
    await registry.cards()
    await registry.set_alias("nano-a", "mine", "nano-a@step-000010")
    assert "nano-a@mine" in names_of(await registry.card("nano-a@step-000010"))
    await registry.set_alias("nano-a", "mine", "nano-b@latest")
    assert aliases(store, "nano-a")["mine"].checkpoint == "nano-b@step-000005"
    await registry.delete_alias("nano-a", "mine")
    with pytest.raises(CheckpointMissing):
        await registry.resolve("nano-a@mine")
    with pytest.raises(CheckpointMissing):
        await registry.delete_alias("nano-a", "mine")


@pytest.mark.parametrize("alias", ["latest", "init", "best", "best-ood"])
async def test_the_systems_aliases_are_not_set_by_hand(registry: Registry, alias: str):
    with pytest.raises(AliasReserved, match=alias):
        await registry.set_alias("nano-a", alias, "nano-a@step-000010")
    with pytest.raises(AliasReserved, match=alias):
        await registry.delete_alias("nano-a", alias)


def test_verdicts_without_a_writable_file_last_as_long_as_the_process(tmp_path: Path):
    (tmp_path / "file").write_text("")
    verdicts = Verdicts(tmp_path / "file" / "verdicts.jsonl")
    verdicts.add("k", "damage")
    assert verdicts.find("k") == (True, "damage")
    assert verdicts.find("other") == (False, None)
