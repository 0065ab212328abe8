"""The learner with DeepSpeed, on one rank: against torch by hand, under every ZeRO stage, saved and restored."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from envs.base import DataError
from tests.trainers.samples import make_episodes, make_model
from trainers.config import LearnerConfig, ModelConfig, PpoConfig, ScheduleConfig
from trainers.learner import MAX_SKIPS, DivergedError, Learner
from trainers.objectives import Counts, PpoObjective, SftObjective, with_advantages
from trainers.packing import Batch, pack
from trainers.policy import CriticSettings, Outputs, Policy
from trainers.pretrained import load_model

pytestmark = pytest.mark.slow

RATE = 1e-3
EPS = 1e-4  # large: AdamW makes whole steps of rounding errors where a gradient is far below its epsilon
PPO = PpoConfig(entropy_coef=0.01)
STAGES = [0, 1, 2, 3]
KINDS = [*((stage, "float32") for stage in STAGES), (0, "bfloat16"), (3, "bfloat16")]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


def start(
    directory: Path, *, stage=0, dtype="float32", rows_per_pass=2, norm=1.0, warmup=0, offload=False, **options
) -> Learner:  # fmt: skip
    return Learner.start(
        directory, ModelConfig(dtype=dtype),
        LearnerConfig(zero_stage=stage, row_tokens=64, rows_per_pass=rows_per_pass, max_grad_norm=norm, adam_eps=EPS,
                      offload_optimizer=offload),
        ScheduleConfig(learning_rate=RATE, decay="linear"), total_updates=100,
        critic=CriticSettings(learning_rate=2 * RATE, warmup_updates=warmup), **options,
    )  # fmt: skip


def scored(learner: Learner, count: int = 24) -> Batch:
    batch = learner.score(pack(make_episodes(count), row_tokens=64), temperature=PPO.temperature)
    return with_advantages(batch, PPO, learner.mean_std)


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return dict(learner.weights())


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def by_hand(directory: Path, batch: Batch, updates: int, norm: float) -> tuple[dict[str, torch.Tensor], list[float]]:
    """What a few updates should give: one backward pass over all rows, torch's clipping, AdamW as its paper reads."""
    policy = Policy(load_model(directory, ModelConfig(dtype="float32")), CriticSettings(learning_rate=0.0))
    parameters = list(policy.named_parameters())
    first = {name: torch.zeros_like(p) for name, p in parameters}
    second = {name: torch.zeros_like(p) for name, p in parameters}
    counts = Counts(int(batch.sampled.sum()), int(batch.critic_learns.sum()), len(batch.turns))
    norms = []
    for update in range(updates):
        policy.zero_grad()
        PpoObjective(PPO).loss(batch, Outputs(*policy(batch, 1.0, True)), counts).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(policy.parameters(), norm).item())
        for name, p in parameters:
            first[name] = 0.9 * first[name] + 0.1 * p.grad
            second[name] = 0.95 * second[name] + 0.05 * p.grad**2
            mean, square = first[name] / (1 - 0.9 ** (update + 1)), second[name] / (1 - 0.95 ** (update + 1))
            rate = 2 * RATE if name.startswith("critic") else RATE * (1 - update / 100)
            p.data -= rate * mean / (square.sqrt() + EPS)
    return {name.removeprefix("model."): p.detach() for name, p in parameters if name.startswith("model.")}, norms


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("norm", [0.05, 100.0])
def test_updates_are_those_of_torch_by_hand_clipped_or_not(directory, stage, norm):
    learner = start(directory, stage=stage, norm=norm)
    batch = scored(learner)
    assert len(batch) > 4  # several passes are accumulated
    done = [learner.update(batch, PpoObjective(PPO)) for _ in range(3)]
    expected, norms = by_hand(directory, batch, 3, norm)
    assert [update["grad_norm"] for update in done] == pytest.approx(norms, rel=1e-3)
    assert [update["lr"] for update in done] == pytest.approx([RATE, RATE * 0.99, RATE * 0.98])
    assert largest_difference(weights(learner), expected) < 2e-5


def test_scoring_gives_the_updates_own_log_probs_so_the_first_ratio_is_one(directory):
    learner = start(directory)
    done = learner.update(scored(learner), PpoObjective(PPO))
    assert done["kl"] == 0
    assert done["clip_fraction"] == 0


def test_how_rows_are_cut_into_passes_does_not_matter(directory):
    results = []
    for rows_per_pass in (1, 3, 100):
        learner = start(directory, rows_per_pass=rows_per_pass)
        metrics = learner.update(scored(learner), PpoObjective(PPO))
        results.append((metrics, weights(learner)))
    for metrics, after in results[1:]:
        assert metrics == pytest.approx(results[0][0], rel=1e-4, abs=1e-6)
        assert largest_difference(after, results[0][1]) < 1e-5


@pytest.mark.parametrize(("stage", "dtype"), KINDS)
def test_a_gradient_that_is_not_finite_is_skipped_counted_and_forgotten(directory, stage, dtype):
    learner, untouched = (start(directory, stage=stage, dtype=dtype) for _ in range(2))
    batch = scored(learner)
    before = weights(learner)
    poisoned = replace(batch, advantages=torch.full_like(batch.advantages, float("inf")))
    assert learner.update(poisoned, PpoObjective(PPO))["skipped"] == 1
    assert largest_difference(weights(learner), before) == 0
    assert (learner.nonfinite_skips, learner.updates_done) == (1, 0)
    for _ in range(2):
        after, expected = learner.update(batch, PpoObjective(PPO)), untouched.update(batch, PpoObjective(PPO))
        assert after["skipped"] == 0
        assert after["lr"] == expected["lr"]
    assert largest_difference(weights(learner), weights(untouched)) == 0


def test_a_run_that_stays_without_finite_gradients_ends_in_one_sentence(directory):
    learner = start(directory)
    batch = scored(learner)
    poisoned = replace(batch, advantages=torch.full_like(batch.advantages, float("nan")))
    for _ in range(MAX_SKIPS - 1):
        learner.update(poisoned, PpoObjective(PPO))
    with pytest.raises(DivergedError, match="lower the learning rate"):
        learner.update(poisoned, PpoObjective(PPO))


@pytest.mark.parametrize("stage", STAGES)
def test_while_the_critic_warms_up_the_policy_stands_still_and_the_critic_learns(directory, stage):
    learner = start(directory, stage=stage, warmup=3)
    batch = scored(learner)
    before = weights(learner)
    warming = PpoObjective(PPO, critic_alone=True)
    losses = [learner.update(batch, warming)["loss"] for _ in range(3)]
    assert largest_difference(weights(learner), before) == 0
    assert losses[2] < losses[0]
    learner.update(batch, PpoObjective(PPO))
    assert largest_difference(weights(learner), before) > 0


@pytest.mark.parametrize(("stage", "dtype"), KINDS)
def test_a_restored_learner_goes_on_bit_for_bit(directory, tmp_path, stage, dtype):
    learner = start(directory, stage=stage, dtype=dtype)
    batch = scored(learner)
    learner.update(batch, PpoObjective(PPO))
    learner.steps_done = 7
    learner.save(tmp_path)
    on = [learner.update(batch, PpoObjective(PPO)) for _ in range(2)]
    restored = start(directory, stage=stage, dtype=dtype)
    restored.restore(tmp_path)
    assert (restored.steps_done, restored.updates_done) == (7, 1)
    assert [restored.update(batch, PpoObjective(PPO)) for _ in range(2)] == on
    assert largest_difference(weights(restored), weights(learner)) == 0
    assert restored.spent.trained_tokens == learner.spent.trained_tokens


def test_a_learner_saved_before_its_first_update_is_restored(directory, tmp_path):
    for stage in STAGES:
        learner = start(directory, stage=stage)
        learner.save(tmp_path / str(stage))
        restored = start(directory, stage=stage)
        restored.restore(tmp_path / str(stage))
        batch = scored(learner)
        assert restored.update(batch, PpoObjective(PPO)) == learner.update(batch, PpoObjective(PPO))


def test_state_crosses_zero_stages(directory, tmp_path):
    one = start(directory, stage=3)
    batch = scored(one)
    one.update(batch, PpoObjective(PPO))
    one.save(tmp_path)
    other = start(directory, stage=0)
    other.restore(tmp_path)
    one.update(batch, PpoObjective(PPO))
    other.update(batch, PpoObjective(PPO))
    assert largest_difference(weights(one), weights(other)) < 1e-6


@pytest.mark.parametrize("stage", [0, 3])
def test_the_saved_model_is_what_transformers_loads_and_the_value_head_is_not_in_it(directory, tmp_path, stage):
    learner = start(directory, stage=stage)
    batch = scored(learner)
    learner.update(batch, PpoObjective(PPO))
    learner.save(tmp_path)
    loaded = load_model(tmp_path / "model", ModelConfig(dtype="float32"))
    assert largest_difference(dict(loaded.state_dict()), weights(learner)) == 0
    names = load_file(tmp_path / "model" / "model.safetensors").keys()
    assert not any("critic" in name for name in names)
    assert not list(tmp_path.rglob("*.pt"))  # nothing is pickled


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_offloading_the_optimizer_changes_no_update_and_skips_as_well(directory, tmp_path, stage):
    plain, offloaded = start(directory), start(directory, stage=stage, offload=True)
    batch = scored(plain)
    plain.update(batch, PpoObjective(PPO))
    offloaded.update(batch, PpoObjective(PPO))
    offloaded.save(tmp_path)
    poisoned = replace(batch, advantages=torch.full_like(batch.advantages, float("nan")))
    assert offloaded.update(poisoned, PpoObjective(PPO))["skipped"] == 1
    restored = start(directory, stage=stage, offload=True)
    restored.restore(tmp_path)
    for learner in (plain, offloaded, restored):
        learner.update(batch, PpoObjective(PPO))
    assert largest_difference(weights(offloaded), weights(plain)) < 1e-6
    assert largest_difference(weights(restored), weights(offloaded)) == 0


@pytest.mark.parametrize("stage", [0, 3])
def test_a_model_with_tied_embeddings_is_saved_and_published_once(tmp_path, stage):
    learner = start(make_model(tmp_path / "tied", tie_word_embeddings=True), stage=stage)
    learner.update(scored(learner), PpoObjective(PPO))
    learner.save(tmp_path)
    published = weights(learner)
    assert "lm_head.weight" not in published
    loaded = load_model(tmp_path / "model", ModelConfig(dtype="float32"))
    assert torch.equal(loaded.lm_head.weight, published["model.embed_tokens.weight"])


def test_published_weights_are_copies(directory):
    learner = start(directory)
    published = weights(learner)
    kept = {name: tensor.clone() for name, tensor in published.items()}
    learner.update(scored(learner), PpoObjective(PPO))
    assert largest_difference(published, kept) == 0


def test_the_state_of_another_model_is_refused(directory, tmp_path):
    learner = start(directory)
    learner.save(tmp_path)
    larger = start(make_model(tmp_path / "larger", num_hidden_layers=3))
    with pytest.raises(DataError, match="lacks"):
        larger.restore(tmp_path)
    (tmp_path / "learner" / "state.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        learner.restore(tmp_path)


def test_a_kl_penalty_holds_the_policy_near_where_it_started(directory):
    config = replace_kl(10.0)
    drifts = []
    for kl_coef in (0.0, config.kl_coef):
        learner = start(directory, with_reference=True)
        batch = scored(learner)
        assert torch.equal(batch.reference_logp, batch.old_logp)
        for _ in range(5):
            done = learner.update(batch, PpoObjective(replace_kl(kl_coef)))
        drifts.append(done["reference_kl"])
    assert drifts[1] < drifts[0] / 2


def replace_kl(coefficient: float) -> PpoConfig:
    return PpoConfig(kl_coef=coefficient)


def test_tokens_are_counted_once_per_pass_over_them_and_padding_never(directory):
    learner = start(directory)
    batch = scored(learner)
    for _ in range(2):
        learner.update(batch, SftObjective())
    tokens = int(batch.is_token.sum())
    assert tokens < batch.token_ids.numel()
    assert (learner.spent.scored_tokens, learner.spent.trained_tokens) == (tokens, 2 * tokens)
    assert learner.spent.parameters == sum(tensor.numel() for tensor in weights(learner).values())


def test_bfloat16_keeps_float32_master_weights(directory, tmp_path):
    learner = start(directory, dtype="bfloat16")
    learner.update(scored(learner), PpoObjective(PPO))
    learner.save(tmp_path)
    state = load_file(tmp_path / "learner" / "state-00000.safetensors")
    name, published = next(iter(weights(learner).items()))
    master = state[f"master.model.{name}"]
    assert (published.dtype, master.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(master.bfloat16(), published)
    assert not torch.equal(master, published.float())
    assert json.loads((tmp_path / "learner" / "state.json").read_text())["adam_step"] == 1


def test_a_rank_without_episodes_still_takes_part(directory):
    learner = start(directory)
    batch = learner.score(pack([], row_tokens=64, rows_multiple=2))
    batch = with_advantages(batch, PPO, learner.mean_std)
    before = weights(learner)
    done = learner.update(batch, PpoObjective(PPO))
    assert (done["loss"], done["grad_norm"], done["skipped"]) == (0, 0, 0)
    assert largest_difference(weights(learner), before) == 0
