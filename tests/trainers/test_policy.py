import pytest
import torch

from envs.base import DataError
from tests.trainers.samples import make_episodes, make_model
from trainers.config import ModelConfig
from trainers.packing import Batch, pack
from trainers.policy import CriticSettings, Outputs, Policy
from trainers.pretrained import load_model

FLOAT32 = ModelConfig(dtype="float32")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def policy(directory):
    made = Policy(load_model(directory, FLOAT32), CriticSettings(learning_rate=1e-3), seed=1)
    torch.nn.init.normal_(made.critic.outer.weight)
    return made


def run(policy, batch: Batch, **options) -> Outputs:
    with torch.no_grad():
        return Outputs(*policy(batch, **options))


@pytest.fixture(scope="module")
def batch():
    return pack(make_episodes(9), row_tokens=64, unit="turn")


def test_packed_rows_give_what_each_segment_gives_alone(policy, batch):
    assert len(batch) > 1  # several rows, several segments in each
    packed = run(policy, batch)
    for number, episode in enumerate(make_episodes(9)):
        alone = pack([episode], row_tokens=64)
        single = run(policy, alone)
        rows = batch.turns.episode == number
        first, end = batch.turns.row[rows][0], batch.turns.end[rows][0] + 1
        here = slice(end - alone.token_ids.shape[1], end)
        for together, separate in zip(packed, single, strict=True):
            torch.testing.assert_close(together[first, here], separate[0], rtol=1e-4, atol=1e-5)


def test_log_probs_and_entropies_are_those_of_the_plain_model_at_the_sampling_temperature(directory, policy):
    alone = pack(make_episodes(1), row_tokens=64)
    out = run(policy, alone, temperature=0.7)
    with torch.no_grad():
        logits = load_model(directory, FLOAT32)(input_ids=alone.token_ids).logits[0]
    distribution = torch.distributions.Categorical(logits=logits[:-1] / 0.7)
    mask = alone.sampled[0, 1:]
    torch.testing.assert_close(out.logp[0, 1:][mask], distribution.log_prob(alone.token_ids[0, 1:])[mask])
    torch.testing.assert_close(out.entropy[0, 1:][mask], distribution.entropy()[mask])
    assert not out.logp[~alone.sampled].any()


def tiny(kind: str):
    """Models that differ in what they do to positions, masks, embeddings and logits."""
    import transformers as hf

    shape = {
        "vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 8, "intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(2)
    if kind == "gpt2":
        return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=24, n_embd=16, n_layer=2, n_head=2, n_positions=64))
    if kind == "gemma2":
        return hf.Gemma2ForCausalLM(hf.Gemma2Config(**shape, sliding_window=4, final_logit_softcapping=0.5))
    if kind == "granite":
        return hf.GraniteForCausalLM(hf.GraniteConfig(**shape, logits_scaling=3.0))
    return hf.LlamaForCausalLM(hf.LlamaConfig(**shape))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "granite"])
def test_any_causal_language_model_packs_and_keeps_what_it_does_to_its_logits(tmp_path, kind):
    tiny(kind).save_pretrained(tmp_path)
    made = Policy(load_model(tmp_path, FLOAT32), CriticSettings(learning_rate=1e-3))
    episodes = make_episodes(6)
    packed = run(made, pack(episodes, row_tokens=48))
    table = pack(episodes, row_tokens=48).turns
    for number, episode in enumerate(episodes):
        (segment,) = episode.segments
        ids = torch.from_numpy(segment.token_ids).long()[None]
        with torch.no_grad():
            logits = load_model(tmp_path, FLOAT32)(input_ids=ids).logits[0, :-1]
        plain = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        for turn, place in zip(episode.turns, (table.episode == number).nonzero().flatten(), strict=True):
            got = packed.logp[table.row[place], table.start[place] : table.stop[place]]
            torch.testing.assert_close(got, plain[turn.start - 1 : turn.stop - 1], rtol=1e-4, atol=1e-5)


def test_recomputing_activations_changes_no_gradient(directory, batch):
    gradients = []
    for checkpointing in (False, True):
        config = ModelConfig(dtype="float32", gradient_checkpointing=checkpointing)
        made = Policy(load_model(directory, config), None).train()
        Outputs(*made(batch)).logp.sum().backward()
        gradients.append([p.grad for p in made.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_a_value_depends_on_what_was_read_and_not_on_the_answer_that_follows(policy):
    batch = pack(make_episodes(1), row_tokens=64)
    start = batch.turns.start[0]
    changed = batch.token_ids.clone()
    changed[0, start:] = (changed[0, start:] + 1) % 24
    other = run(policy, Batch(**{f: getattr(batch, f) for f in batch.__slots__} | {"token_ids": changed}))
    value = run(policy, batch).values[0, start - 1]
    assert value != 0
    assert other.values[0, start - 1] == value


def test_the_critic_starts_at_zero(directory, batch):
    out = run(Policy(load_model(directory, FLOAT32), CriticSettings(learning_rate=1e-3)), batch)
    assert not out.values.any()


@pytest.mark.parametrize(("detached", "alone"), [(True, False), (False, True)])
def test_a_detached_critic_leaves_the_trunk_without_gradient(directory, batch, detached, alone):
    made = Policy(load_model(directory, FLOAT32), CriticSettings(learning_rate=1e-3, detached=detached))
    torch.nn.init.normal_(made.critic.outer.weight)
    Outputs(*made(batch, critic_alone=alone)).values.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in made.model.parameters())
    assert made.critic.inner.weight.grad.any()


def test_a_shared_critic_shapes_the_trunk(policy, batch):
    Outputs(*policy(batch)).values.sum().backward()
    assert policy.model.model.layers[0].mlp.up_proj.weight.grad.any()
    policy.zero_grad()


def test_what_is_no_model_is_said_in_one_sentence(tmp_path):
    with pytest.raises(DataError, match="not a language model"):
        load_model(tmp_path, FLOAT32)
