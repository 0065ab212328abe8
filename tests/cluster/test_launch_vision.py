"""A whole run on pictures with the real parts: SFT and PPO of a model that sees, on one rank and on two."""

from pathlib import Path

import pytest

from cluster import launch
from cluster.config import RunConfig
from envs.base import validated
from trainers.chat import ChatFormat
from trainers.checkpoints import Checkpoints
from trainers.runlog import read_episodes, read_metrics

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).parents[2] / "deploy"

ENGINE = {"dtype": "float32", "prefix_cache": True, "max_model_len": 256, "max_num_seqs": 16}
SFT = {"steps": 2, "documents": 8, "corpus": "nano-base", "schedule": {"learning_rate": 1e-3}}
PPO = {
    "steps": 2, "episodes": 8, "viter": 2, "answer_tokens": 16, "minibatches": 2, "epochs": 1, "checkpoint_every": 1,
    "schedule": {"learning_rate": 1e-3}, "unit": "token", "probe_tolerance": 0.001,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_cluster():
    import ray

    ray.init("local", num_cpus=6, include_dashboard=False, log_to_driver=False, object_store_memory=2**28)
    yield
    ray.shutdown()


def config(store: Path, learner=None, **sections) -> RunConfig:
    data = {
        "name": "seen",
        "environment": {
            "name": "general_points",
            "options": {"modality": "vision", "suits": "black", "resolution": 64, "hands": "train"},
        },
        "model": {"source": "nano", "dtype": "float32"},
        "learner": {"row_tokens": 256, **(learner or {})},
        "rollout": {"episodes_in_flight": 8, "engine": ENGINE},
        "store": {"uri": str(store)},
        **sections,
    }
    return validated(RunConfig, data, source="test")


def test_a_run_on_pictures_learns_from_what_its_engine_saw(tmp_path: Path):
    """The probe passes after every sync, and learner and engine agree on every token of every sampled episode."""
    result = launch.run(config(tmp_path, sft=SFT, ppo=PPO), progress=lambda _: None)
    assert set(result.checkpoints) == {"sft", "ppo"}
    rows = read_metrics(tmp_path / "seen-ppo")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["logp_gap"] < 1e-4 for row in rows)
    assert all(row["grad_norm"] > 0 for row in rows)
    for episode in read_episodes(tmp_path / "seen-ppo", 1):
        [segment] = episode.segments
        assert segment.images == (episode.task.id,)
        assert segment.pictures == ()  # the log keeps the key; the environment draws it again
    model = Checkpoints(tmp_path, "seen-ppo").newest()
    assert model is not None
    assert ChatFormat.load(Path(model.uri) / "model").eyes is not None


def test_a_walk_is_learned_position_by_position_each_with_its_own_picture(tmp_path: Path):
    """V-IRL in vision, from the shipped base, so that walks get further than their first position."""
    walk = {"name": "virl", "options": {"modality": "vision", "resolution": 128, "straight_line_length": 1}}
    base = {"source": str(DEPLOY / "models" / "nano-virl-vl-base"), "dtype": "float32"}
    ppo = {**PPO, "steps": 1, "answer_tokens": 32}
    launch.run(config(tmp_path, environment=walk, model=base, ppo=ppo), progress=lambda _: None)
    [row] = read_metrics(tmp_path / "seen-ppo")
    assert row["logp_gap"] < 1e-4
    assert 0 < row["per_step_accuracy"] < 1
    episodes = read_episodes(tmp_path / "seen-ppo", 0)
    assert len(episodes) == 8
    for episode in episodes:
        correct = sum(turn.status == "correct" for turn in episode.turns)
        assert len(episode.segments) == min(correct + 1, len(episode.task.data["rail"]))
        keys = [key for segment in episode.segments for key in segment.images]
        assert len(keys) == len(episode.segments) == len(set(keys))
    assert any(len(episode.segments) > 1 for episode in episodes)


def test_two_ranks_learn_from_pictures_what_one_does(tmp_path: Path):
    """Sharded under ZeRO-2, with rows of text alone among those with pictures; the tower stays frozen."""
    frozen = {"source": "nano", "dtype": "float32", "freeze": ["vision"]}
    losses = []
    for name, learner in (("one", {}), ("two", {"workers": 2, "zero_stage": 2})):
        launch.run(
            config(tmp_path / name, learner, sft={**SFT, "documents": 16}, model=frozen), progress=lambda _: None
        )
        losses.append([row["loss"] for row in read_metrics(tmp_path / name / "seen-sft")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
