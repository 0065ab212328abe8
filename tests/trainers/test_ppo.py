"""PPO and SFT end to end with DeepSpeed, a policy of 8,000 weights, and a sampler in place of engines and cluster."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from envs.base import seed_of
from envs.task import Status, Task
from tests.trainers.samples import VOCABULARY, make_model, make_segment
from trainers import ppo, sft
from trainers.checkpoints import Checkpoint, CheckpointInfo, Checkpoints
from trainers.config import LearnerConfig, ModelConfig, PpoConfig, ScheduleConfig, SftConfig
from trainers.episode import Episode, Segment, Turn, Usage
from trainers.journal import StageJournal
from trainers.learner import Learner
from trainers.policy import CriticSettings
from trainers.pretrained import load_model

pytestmark = pytest.mark.slow

WANTED = 7  # the verifier rewards answers by how often they hold this token
PROMPT, ANSWER = 3, 4
FLOAT32 = ModelConfig(dtype="float32")
CONFIG = PpoConfig(
    steps=6, episodes=64, epochs=2, minibatches=2, gamma=0.0, lam=1.0, critic_detached=True,
    schedule=ScheduleConfig(learning_rate=5e-3), critic_learning_rate=1e-2, critic_warmup_steps=1,
    viter=((0, 1), (4, 2)),
)  # fmt: skip


class Cluster:
    """Episodes sampled in this process from the last published weights: an EpisodeSource and a WeightSink in one."""

    def __init__(self, directory: Path) -> None:
        self.model = load_model(directory, FLOAT32)
        self.versions: list[int] = []
        self.steps: list[int] = []

    def publish(self, weights, *, version: int) -> None:
        self.model.load_state_dict(dict(weights))
        self.versions.append(version)

    def take(self, count: int, *, step: int) -> list[Episode]:
        self.steps.append(step)
        generator = torch.Generator().manual_seed(seed_of("episodes", step))
        ids = torch.randint(0, VOCABULARY, (count, PROMPT), generator=generator)
        logps = torch.zeros(count, PROMPT)
        with torch.no_grad():
            for _ in range(ANSWER):
                distribution = self.model(input_ids=ids).logits[:, -1].log_softmax(-1)
                token = torch.multinomial(distribution.exp(), 1, generator=generator)
                ids, logps = torch.cat([ids, token], 1), torch.cat([logps, distribution.gather(1, token)], 1)
        return [self.episode(i, ids[i].numpy(), logps[i].numpy(), step) for i in range(count)]

    def episode(self, index: int, ids: np.ndarray, logp: np.ndarray, step: int) -> Episode:
        sampled = np.arange(len(ids)) >= PROMPT
        reward = float((ids[PROMPT:] == WANTED).mean())
        turn = Turn(
            start=PROMPT, stop=len(ids), reward=reward, answer="", feedback="", finish_reason="stop",
            status=Status.CORRECT if reward == 1 else Status.WRONG_VALUE,
        )  # fmt: skip
        segment = Segment(
            token_ids=ids.astype(np.int32), sampled=sampled, engine_logp=logp, turns=(turn,),
            weight_versions=np.where(sampled, self.versions[-1], -1).astype(np.int32),
        )  # fmt: skip
        usage = Usage(prefill_tokens=PROMPT, cached_tokens=0, sampled_tokens=ANSWER, generate_s=0, verify_s=0)
        return Episode(
            step=step, index=index, task=Task(environment="toy", options={}, id="toy", data={}), segments=(segment,),
            terminated=reward == 1, truncated=reward < 1, usage=usage,
        )  # fmt: skip


class Run:
    """A run in a directory: the same call starts it or goes on from its newest checkpoint."""

    def __init__(self, directory: Path, store: Path, config: PpoConfig | SftConfig = CONFIG) -> None:
        self.directory, self.config = directory, config
        self.checkpoints = Checkpoints(store, "toy")
        self.metrics: list[dict[str, float]] = []
        self.cluster = Cluster(directory)
        self.committed: list[Checkpoint] = []

    def go(self, stop_after: int | None = None) -> "Run":
        is_ppo = isinstance(self.config, PpoConfig)
        learner = Learner.start(
            self.directory, FLOAT32, LearnerConfig(row_tokens=16, rows_per_pass=100), self.config.schedule,
            total_updates=ppo.total_updates(self.config) if is_ppo else self.config.steps,
            critic=CriticSettings(
                learning_rate=self.config.critic_learning_rate, detached=self.config.critic_detached,
                warmup_updates=ppo.critic_warmup_updates(self.config),
            ) if is_ppo else None,
        )  # fmt: skip
        newest = self.checkpoints.newest()
        if newest is not None:
            learner.restore(Path(newest.uri))
        journal = StageJournal(
            learner, self.checkpoints, steps=self.config.steps, every=self.config.checkpoint_every,
            info=lambda metrics: CheckpointInfo(metrics=metrics, compute=learner.spent.to_dict()),
            metrics=lambda _, values: self.metrics.append(values),
            on_commit=lambda checkpoint, _: self.committed.append(checkpoint),
            is_stopping=lambda: len(self.metrics) == stop_after,
        )  # fmt: skip
        if is_ppo:
            ppo.train(self.config, learner, self.cluster, self.cluster, journal, row_tokens=16)
        else:
            sft.train(self.config, learner, documents, journal, row_tokens=64)
        self.weights = dict(learner.weights())
        return self


def documents(step: int) -> list[Segment]:
    """The same few sequences over and over, in an order of the step's own."""
    return [make_segment(3, (9, 0.0), seed=(step * 5 + i) % 10) for i in range(5)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), seed=1)


@pytest.fixture(scope="module")
def whole(directory, tmp_path_factory):
    return Run(directory, tmp_path_factory.mktemp("whole")).go()


def test_ppo_learns_what_the_verifier_rewards(directory, tmp_path):
    rewards = [
        row["reward_mean"] for row in Run(directory, tmp_path, CONFIG.model_copy(update={"steps": 14})).go().metrics
    ]
    assert rewards[0] < 0.15  # one token in 24, by chance
    assert rewards[-1] > 3 * rewards[0]


def test_the_policy_stands_still_in_critic_warm_up_and_moves_after(whole):
    warm, moving = whole.metrics[0], whole.metrics[1]
    assert (warm["lr"], warm["kl"]) == (0.0, 0.0)
    assert moving["kl"] > 0
    assert moving["lr"] == CONFIG.schedule.learning_rate


def test_learner_and_sampler_agree_on_every_log_prob(whole):
    assert all(row["logp_gap"] < 1e-5 for row in whole.metrics)


def test_each_step_publishes_one_version_and_asks_for_episodes_once(whole):
    assert whole.cluster.versions == list(range(CONFIG.steps + 1))
    assert whole.cluster.steps == list(range(CONFIG.steps))
    assert all(row["staleness_mean"] == 0 for row in whole.metrics)
    assert [row["viter"] for row in whole.metrics] == [1, 1, 1, 1, 2, 2]


def test_the_account_holds_every_token(whole):
    tokens = CONFIG.steps * CONFIG.episodes * (PROMPT + ANSWER)
    compute = whole.committed[-1].info.compute
    assert compute["scored_tokens"] == tokens
    assert compute["trained_tokens"] == tokens * CONFIG.epochs
    assert compute["prefill_tokens"] + compute["decoded_tokens"] == tokens


@pytest.mark.parametrize("profile", ["paper", "reference"])
@pytest.mark.parametrize("unit", ["turn", "token"])
def test_every_variant_trains(directory, tmp_path, profile, unit):
    config = CONFIG.model_copy(
        update={"steps": 2, "profile": profile, "unit": unit, "max_staleness": int(profile == "paper")}
    )
    run = Run(directory, tmp_path, config).go()
    assert run.metrics[-1]["grad_norm"] > 0
    assert run.metrics[-1]["nonfinite_skips"] == 0


def test_ppo_resumed_from_its_run_ends_with_the_same_weights(directory, whole, tmp_path):
    stopped = Run(directory, tmp_path).go(stop_after=3)
    assert [checkpoint.step for checkpoint in stopped.committed] == [3]
    resumed = Run(directory, tmp_path).go()
    assert resumed.cluster.steps == [3, 4, 5]
    assert all(torch.equal(resumed.weights[name], tensor) for name, tensor in whole.weights.items())
    timeless = {name for name in whole.metrics[-1] if not name.endswith("_s")}
    assert {n: resumed.metrics[-1][n] for n in timeless} == {n: whole.metrics[-1][n] for n in timeless}


def test_sft_learns_its_documents_and_resumes_to_the_same_weights(directory, tmp_path):
    config = SftConfig(steps=30, schedule=ScheduleConfig(learning_rate=1e-2, warmup_updates=3), checkpoint_every=10)
    straight = Run(directory, tmp_path / "straight", config).go()
    losses = [row["loss"] for row in straight.metrics]
    assert losses[-1] < losses[0] / 2
    assert [checkpoint.step for checkpoint in straight.committed] == [10, 20, 30]
    Run(directory, tmp_path / "cut", config).go(stop_after=13)
    resumed = Run(directory, tmp_path / "cut", config).go()
    assert len(resumed.metrics) == 17
    assert all(torch.equal(resumed.weights[name], tensor) for name, tensor in straight.weights.items())


def test_a_batch_says_how_stale_its_tokens_were(directory, tmp_path):
    run = Run(directory, tmp_path, CONFIG.model_copy(update={"steps": 1, "max_staleness": 2}))
    original = run.cluster.episode

    def older(*arguments):
        episode = original(*arguments)
        (segment,) = episode.segments
        versions = np.where(segment.sampled, -2, -1).astype(np.int32)
        return dataclasses.replace(episode, segments=(dataclasses.replace(segment, weight_versions=versions),))

    run.cluster.episode = older
    row = run.go().metrics[0]
    assert row["staleness_mean"] == 2
    assert [row[f"staleness_{lag}"] for lag in range(3)] == [0, 0, 1]
    assert row["importance_weight"] == pytest.approx(1, abs=0.05)  # the engine's log-probs are this policy's own
    assert row["responses_masked"] == 0
