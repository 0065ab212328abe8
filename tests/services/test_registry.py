"""Names to checkpoints, over a real store of small files."""

from pathlib import Path

import pytest

from envs.base import DataError
from services import registry as module
from services.registry import Registry, names_of
from trainers.checkpoints import CheckpointMissing, resolve, write_alias


@pytest.fixture
def registry(store: Path) -> Registry:
    return Registry(str(store))


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
