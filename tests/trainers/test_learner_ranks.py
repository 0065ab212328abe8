"""The learner on two ranks: what one rank computes, two compute; what two save, one goes on from."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from tests.trainers.samples import make_episodes, make_model
from trainers.config import LearnerConfig, ModelConfig, PpoConfig, ScheduleConfig
from trainers.learner import Learner
from trainers.objectives import PpoObjective, with_advantages
from trainers.packing import pack
from trainers.policy import CriticSettings

pytestmark = pytest.mark.slow

PPO = PpoConfig(entropy_coef=0.01)
STAGES = (0, 1, 2, 3)
EPISODES = 21


def start(directory: Path, stage: int) -> Learner:
    return Learner.start(
        directory, ModelConfig(dtype="float32"),
        LearnerConfig(zero_stage=stage, row_tokens=32, max_grad_norm=0.1, adam_eps=1e-4),
        ScheduleConfig(learning_rate=1e-3), total_updates=10, critic=CriticSettings(learning_rate=1e-3),
    )  # fmt: skip


def learn(learner: Learner, share: slice, folder: Path) -> None:
    """Two updates, a save, a third; then an update that one rank alone poisons. Results go to `folder`."""
    batch = learner.score(pack(make_episodes(EPISODES)[share], row_tokens=32))
    batch = with_advantages(batch, PPO, learner.mean_std)
    metrics = [learner.update(batch, PpoObjective(PPO)) for _ in range(2)]
    learner.save(folder / "saved")
    metrics.append(learner.update(batch, PpoObjective(PPO)))
    if learner.rank == learner.world_size - 1:
        batch.advantages.fill_(float("nan"))
    metrics.append(learner.update(batch, PpoObjective(PPO)))
    weights = dict(learner.weights())
    (folder / f"metrics-{learner.rank}.json").write_text(json.dumps(metrics))
    (folder / f"tokens-{learner.rank}.json").write_text(json.dumps(learner.spent.trained_tokens))
    save_file(weights, folder / f"weights-{learner.rank}.safetensors")


def one_of_two(rank: int, directory: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    # unequal shares: 8 and 13 episodes, so that one rank makes more passes than the other
    share = slice(0, 8) if rank == 0 else slice(8, EPISODES)
    for stage in STAGES:
        (folder / str(stage)).mkdir(exist_ok=True)
        learn(start(directory, stage), share, folder / str(stage))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def two_ranks(directory, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(one_of_two, args=(directory, folder), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def one_rank(directory, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    learn(start(directory, 0), slice(None), folder)
    return folder


def metrics_of(folder: Path, rank: int) -> list[dict[str, float]]:
    return json.loads((folder / f"metrics-{rank}.json").read_text())


def weights_differ_by(one: Path, other: Path) -> float:
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_with_unequal_shares_do_what_one_rank_does(one_rank, two_ranks, stage):
    folder = two_ranks / str(stage)
    assert weights_differ_by(folder / "weights-0.safetensors", one_rank / "weights-0.safetensors") < 2e-6
    assert weights_differ_by(folder / "weights-0.safetensors", folder / "weights-1.safetensors") == 0
    for done, expected in zip(metrics_of(folder, 0)[:3], metrics_of(one_rank, 0)[:3], strict=True):
        assert done == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert (folder / "tokens-0.json").read_text() == (one_rank / "tokens-0.json").read_text()


@pytest.mark.parametrize("stage", STAGES)
def test_one_ranks_bad_gradient_is_skipped_by_both(two_ranks, stage):
    for rank in (0, 1):
        assert [update["skipped"] for update in metrics_of(two_ranks / str(stage), rank)] == [0, 0, 0, 1]


@pytest.mark.parametrize("stage", STAGES)
def test_what_two_ranks_saved_one_rank_goes_on_from(directory, two_ranks, one_rank, stage, tmp_path):
    restored = start(directory, 0)
    restored.restore(two_ranks / str(stage) / "saved")
    assert restored.updates_done == 2
    batch = pack(make_episodes(EPISODES), row_tokens=32)
    fresh = start(directory, 0)  # the advantages of the interrupted step come from the weights before it
    batch = with_advantages(fresh.score(batch), PPO, fresh.mean_std)
    restored.update(batch, PpoObjective(PPO))
    save_file(dict(restored.weights()), tmp_path / "weights.safetensors")
    assert weights_differ_by(tmp_path / "weights.safetensors", one_rank / "weights-0.safetensors") < 2e-6
