"""A learner that sees on two ranks of which one has no pictures: what one rank computes, two compute, whatever is frozen."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from tests.trainers import seeing
from trainers.chat import ChatFormat
from trainers.config import LearnerConfig, ModelConfig, ScheduleConfig
from trainers.corpus import plain_segment
from trainers.learner import Learner
from trainers.objectives import SftObjective
from trainers.packing import known, pack_segments

pytestmark = pytest.mark.slow

CASES = [(0, ()), (1, ()), (2, ()), (3, ()), (2, ("vision",)), (3, ("vision", "projector")), (2, ("language",))]


def segments(chat, share=slice(None)):
    """Two with pictures, then two of text alone: one rank's and the other's."""
    made = []
    for numbers in ((0,), (4,), (), ()):
        transcript = seeing.opened(chat, *numbers, text="look " * (1 + len(made)))
        reply = chat.reply_ids(f"an answer, {len(made)}")
        learned = [False] * len(transcript.token_ids) + [True] * len(reply)
        made.append(plain_segment([*transcript.token_ids, *reply], learned, transcript.pictures))
    return made[share]


def start(directory: Path, stage: int, frozen: tuple[str, ...]) -> Learner:
    return Learner.start(
        directory, ModelConfig(dtype="float32", freeze=frozen),
        LearnerConfig(zero_stage=stage, row_tokens=100, max_grad_norm=1e9, adam_eps=1.0),
        ScheduleConfig(learning_rate=1.0), total_updates=10,
    )  # fmt: skip


def learn(learner: Learner, share: slice, chat: ChatFormat, file: Path) -> None:
    batch = pack_segments(segments(chat, share), row_tokens=100)
    metrics = [learner.update(batch, SftObjective()) for _ in range(2)]
    weights = dict(learner.weights())
    scored = learner.score(batch)
    assert known(scored.old_logp).shape == batch.token_ids.shape
    file.with_suffix(".json").write_text(json.dumps(metrics))
    save_file(weights, file)


def one_of_two(rank: int, directory: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    chat = ChatFormat.load(directory)
    for number, (stage, frozen) in enumerate(CASES):
        share = slice(0, 2) if rank == 0 else slice(2, 4)
        learn(start(directory, stage, frozen), share, chat, folder / f"{number}-{rank}.safetensors")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return seeing.model(tmp_path_factory.mktemp("seeing"))


@pytest.fixture(scope="module")
def two_ranks(directory, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(one_of_two, args=(directory, folder), nprocs=2)
    return folder


@pytest.mark.parametrize(("number", "case"), enumerate(CASES))
def test_two_ranks_do_what_one_does_though_one_sees_nothing(directory, two_ranks, number, case, tmp_path):
    _, frozen = case
    learn(start(directory, 0, frozen), slice(None), ChatFormat.load(directory), tmp_path / "one.safetensors")
    one, before = load_file(tmp_path / "one.safetensors"), load_file(directory / "model.safetensors")
    two = [load_file(two_ranks / f"{number}-{rank}.safetensors") for rank in (0, 1)]
    assert max((one[name] - before[name]).abs().max() for name in one) > 1e-3
    for name, expected in one.items():
        assert torch.equal(two[0][name], two[1][name]), name
        assert (two[0][name] - expected).abs().max() < 1e-5, name
    expected, found = (
        json.loads(file.read_text()) for file in (tmp_path / "one.json", two_ranks / f"{number}-0.json")
    )  # fmt: skip
    assert [update["grad_norm"] for update in found] == pytest.approx([u["grad_norm"] for u in expected], rel=1e-4)
    assert [update["loss"] for update in found] == pytest.approx([u["loss"] for u in expected], rel=1e-4)


def test_text_alone_can_train_a_model_whose_language_is_frozen(directory):
    """There is nothing to learn in it, and nothing breaks."""
    learner = start(directory, 0, ("language",))
    batch = pack_segments(segments(ChatFormat.load(directory), slice(2, 4)), row_tokens=100)
    assert learner.update(batch, SftObjective())["grad_norm"] == pytest.approx(0, abs=1e-6)
