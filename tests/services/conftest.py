"""A store with small checkpoints, and a player that answers without an engine."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from services.evaluations.orders import Item, ItemTurn, PlayOrder, item_id
from trainers.checkpoints import Checkpoint, CheckpointInfo, Checkpoints


def commit(store: Path, run: str, step: int, weights: str = "weights") -> Checkpoint:
    """A checkpoint whose model is one small file: enough for all that never loads it."""

    def write(directory: Path) -> None:
        (directory / "model").mkdir()
        (directory / "model" / "model.safetensors").write_text(f"{weights} {step}")

    info = CheckpointInfo(
        parents=("p" * 64,), metrics={"loss": 0.5}, compute={"parameters": 10}, config={}, world_size=1
    )
    return Checkpoints(store, run).commit(step, write, info)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two runs: nano-a with steps 10 and 20, nano-b with step 5."""
    path = tmp_path / "store"
    for run, step in (("nano-a", 10), ("nano-a", 20), ("nano-b", 5)):
        commit(path, run, step)
    return path


@pytest.fixture
def committed(store: Path) -> Callable[[str, int], Checkpoint]:
    """Commits one more."""
    return lambda run, step: commit(store, run, step)


def solved(order: PlayOrder, index: int) -> Item:
    """Even items are solved at the second attempt, odd ones never."""
    statuses = ["wrong_value", "correct"] if index % 2 == 0 else ["wrong_value", "illegal_formula"]
    turns = [
        ItemTurn(answer="a", feedback="f", reward=5.0, status=s, tokens=3, finish_reason="stop", recognised=read)
        for s, read in zip(statuses, (True, None), strict=True)
    ]
    return Item(
        id=item_id(order.suite, index),
        suite=order.suite,
        index=index,
        task=f"task-{index}",
        data={"cards": ["C7"]},
        prompt="p",
        success=index % 2 == 0,
        reward=10.0,
        turns=turns,
        prefill_tokens=4,
        cached_tokens=2,
        decoded_tokens=6,
        digest=order.checkpoint.digest,
    )


def answered(suite: str, index: int, *, solved_at: int, viter: int) -> Item:
    """An item solved at this attempt; 0 is never."""
    statuses = ["wrong_value"] * (solved_at - 1) + ["correct"] if solved_at else ["wrong_value"] * viter
    turns = [ItemTurn(answer="a", feedback="f", reward=0.0, status=s, tokens=3, finish_reason="stop") for s in statuses]
    return Item(
        id=item_id(suite, index), suite=suite, index=index, task=f"task-{index}", data={}, prompt="p",
        success=solved_at > 0, reward=0.0, turns=turns, prefill_tokens=4, cached_tokens=0,
        decoded_tokens=3 * len(turns), digest="d",
    )  # fmt: skip


class Player:
    """Plays items in batches of four. `before_batch` may fail or wait, as an engine would."""

    def __init__(self) -> None:
        self.played: list[str] = []
        self.before_batch: Callable[[int], object] = lambda _: None
        self.item: Callable[[PlayOrder, int], Item] = solved

    async def __call__(self, order: PlayOrder) -> AsyncGenerator[list[Item], None]:
        for start in range(0, len(order.indices), 4):
            waited = self.before_batch(len(self.played))
            if hasattr(waited, "__await__"):
                await waited
            batch = [self.item(order, index) for index in order.indices[start : start + 4]]
            self.played += [item.id for item in batch]
            yield batch


@pytest.fixture
def player() -> Player:
    return Player()
