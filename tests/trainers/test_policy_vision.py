"""What a policy makes of images, alone and packed; which of its parts are trained; and models with M-RoPE."""

import numpy as np
import pytest
import torch

from envs.base import ConfigError
from tests.trainers import seeing
from trainers.chat import ChatFormat
from trainers.config import ModelConfig
from trainers.corpus import plain_segment
from trainers.eyes import Eyes
from trainers.packing import pack_segments
from trainers.policy import Outputs, Policy
from trainers.pretrained import freeze, load_model, part_of, saved

FLOAT32 = ModelConfig(dtype="float32")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return seeing.model(tmp_path_factory.mktemp("seeing"))


@pytest.fixture(scope="module")
def chat(directory):
    return ChatFormat.load(directory)


def segment(chat, *numbers, answer="an answer to that"):
    transcript = seeing.opened(chat, *numbers, text="look " * (1 + sum(numbers)))
    reply = chat.reply_ids(answer)
    learned = [False] * len(transcript.token_ids) + [True] * len(reply)
    return plain_segment([*transcript.token_ids, *reply], learned, transcript.pictures)


def scored(policy, chat_eyes, segments, row_tokens=512):
    batch = pack_segments(segments, row_tokens=row_tokens)
    batch = batch.seen(chat_eyes.inputs([picture for row in batch.pictures for picture in row]))
    with torch.no_grad():
        return batch, Outputs(*policy(batch))


def test_packed_segments_see_their_own_pictures_whatever_row_and_place_they_got(directory, chat):
    """Packing puts long segments first, so pictures change their order; each must still meet its placeholder."""
    policy = Policy(load_model(directory, FLOAT32), None).eval()
    segments = [segment(chat, 0), segment(chat, 4, 5, 1), segment(chat), segment(chat, 2, 3), segment(chat, 7)]
    alone = sorted(scored(policy, chat.eyes, [s])[1].logp.sum().item() for s in segments)
    batch, out = scored(policy, chat.eyes, segments, row_tokens=200)
    assert 1 < len(batch) < len(segments)
    ends = (batch.positions == 0).cumsum(1)
    packed = [
        out.logp[row][ends[row] == number].sum().item()
        for row in range(len(batch))
        for number in range(1, int(ends[row].max()) + 1)
    ]
    assert sorted(total for total in packed if total) == pytest.approx(alone, abs=1e-4)


def fond_of_images(directory, chat):
    """A model that would often say an image."""
    model = load_model(directory, FLOAT32)
    with torch.no_grad():
        model.lm_head.weight[chat.eyes.image_id] += 0.2
    return model


def test_an_image_token_has_no_share_in_the_distribution_of_replies(directory, chat):
    """The definition: p(token) without it is p(token) / (1 − p(image))."""
    one = segment(chat, 0)
    ids = torch.tensor(one.token_ids[None].astype(np.int64))
    with torch.no_grad():
        p = (
            fond_of_images(directory, chat)(input_ids=ids, **chat.eyes.inputs(one.pictures))
            .logits[0, :-1]
            .double()
            .softmax(-1)
        )
    free = p.gather(1, ids[0, 1:, None])[:, 0]
    expected = (free / (1 - p[:, chat.eyes.image_id])).log()[torch.tensor(one.sampled[1:])]
    policy = Policy(fond_of_images(directory, chat), None, banned_ids=chat.banned_ids).eval()
    _, banned = scored(policy, chat.eyes, [one])
    assert torch.allclose(banned.logp[0][torch.tensor(one.sampled)].double(), expected, atol=1e-3)
    assert (expected - free.log()[torch.tensor(one.sampled[1:])]).max() > 0.01


@pytest.mark.parametrize(
    ("frozen", "moves"),
    [((), {"vision", "projector", "language"}), (("vision",), {"projector", "language"}),
     (("vision", "projector"), {"language"}), (("language",), {"vision", "projector"})],
)  # fmt: skip
def test_frozen_parts_get_no_gradient_and_the_others_do(directory, chat, frozen, moves):
    policy = Policy(load_model(directory, ModelConfig(dtype="float32", freeze=frozen)), None)
    batch = pack_segments([segment(chat, 0)], row_tokens=128)
    Outputs(*policy(batch.seen(chat.eyes.inputs(batch.pictures[0])))).logp.sum().backward()
    moved = {part_of(name) for name, p in policy.model.named_parameters() if p.grad is not None and p.grad.abs().sum()}
    assert moved == moves


def test_freezing_what_is_not_there_or_everything_is_refused(directory, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.freeze: .* nothing would be left to train"):
        load_model(directory, ModelConfig(freeze=("vision", "projector", "language")))
    with pytest.raises(ConfigError, match=r"model\.freeze: vision: this model has no such part; it has language"):
        freeze(torch.nn.Sequential(torch.nn.Linear(2, 2)), ("vision",))


def test_a_blank_image_beside_a_batch_changes_nothing_and_takes_its_gradient_through_every_part(directory, chat):
    policy = Policy(load_model(directory, FLOAT32), None)
    blank = np.zeros((64, 64, 3), np.uint8)
    batch = pack_segments([segment(chat), segment(chat)], row_tokens=30)
    wide = batch.with_blank(chat.eyes.expansion(blank), blank)
    assert wide.is_token.sum() == batch.is_token.sum()
    plain = Outputs(*policy(batch)).logp
    beside = Outputs(*policy(wide.seen(chat.eyes.inputs([blank])))).logp
    assert torch.allclose(beside[:, : plain.shape[1]], plain, atol=1e-6)
    assert not beside[:, plain.shape[1] :].any()
    beside.sum().backward()
    assert all(parameter.grad is not None for parameter in policy.model.parameters())
    assert not any(p.grad.any() for p in policy.model.model.vision_model.parameters())


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.vision_model.encoder.layers.0.mlp.fc1.weight", "vision"),
        ("model.connector.modality_projection.proj.weight", "projector"),
        ("model.text_model.layers.0.mlp.up_proj.weight", "language"),
        ("lm_head.weight", "language"),
        ("model.visual.blocks.3.attn.qkv.weight", "vision"),
        ("model.visual.merger.mlp.0.weight", "projector"),
        ("model.visual.deepstack_merger_list.0.norm.weight", "projector"),
        ("model.language_model.layers.0.self_attn.q_proj.weight", "language"),
    ],
)
def test_a_parameters_name_tells_its_part(name, part):
    assert part_of(name) == part


# ---- Qwen-VL: three axes of positions, other names in files --------------------------------------------------------


class PatchEyes(Eyes):
    """Qwen's image half, put together here since its processor also wants a video processor, which wants torchvision."""

    def __init__(self, model):
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        class Processor:
            image_token, image_processor = "<image>", Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112)

            class tokenizer:
                convert_tokens_to_ids = staticmethod(lambda token: model.config.image_token_id)

        super().__init__(Processor())


@pytest.fixture(params=["qwen2_5_vl", "qwen3_vl"])
def qwen(request):
    from transformers import AutoConfig, AutoModelForImageTextToText

    torch.manual_seed(0)
    text = {
        "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "intermediate_size": 32, "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "fullatt_block_indexes": [1], "window_size": 56,
    }  # fmt: skip
    if request.param == "qwen3_vl":
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 64}
    config = AutoConfig.for_model(
        request.param, text_config=text, vision_config=vision, image_token_id=5, vision_start_token_id=6,
        vision_end_token_id=7, video_token_id=8, tie_word_embeddings=False,
    )  # fmt: skip
    return AutoModelForImageTextToText.from_config(config).float().eval()


def patched(eyes, picture, answer):
    grid = eyes.inputs([picture])["image_grid_thw"][0]
    ids = [1, 6, *[5] * (int(grid.prod()) // 4), 7, 2, *answer]
    return plain_segment(ids, [False] * (len(ids) - len(answer)) + [True] * len(answer), [picture])


def test_packed_rows_of_a_model_with_three_axes_equal_each_sequence_alone(qwen):
    """The definition: transformers' own positions for one sequence, in a forward pass without any of our packing."""
    eyes = PatchEyes(qwen)
    segments = [patched(eyes, seeing.picture(n, side), [11 + n, 12, 13]) for n, side in ((0, 56), (1, 112), (2, 84))]
    segments.append(plain_segment([1, 2, 3, 11], [False, False, False, True]))
    alone = []
    for one in segments:
        ids = torch.tensor(one.token_ids[None].astype(np.int64))
        vision = eyes.inputs(one.pictures)
        types = {"mm_token_type_ids": (ids == 5).int()} if vision else {}
        with torch.no_grad():
            logp = qwen(input_ids=ids, **vision, **types, use_cache=False).logits[0, :-1].log_softmax(-1)
        chosen = logp.gather(1, ids[0, 1:, None])[:, 0]
        alone.append(chosen[torch.tensor(one.sampled[1:])].sum().item())
    _, out = scored(Policy(qwen, None).eval(), eyes, segments, row_tokens=64)
    assert out.logp.sum().item() == pytest.approx(sum(alone), abs=1e-3)


def test_a_blank_image_reaches_every_parameter_of_these_models_too(qwen):
    eyes, blank = PatchEyes(qwen), np.zeros((64, 64, 3), np.uint8)
    grid = eyes.inputs([blank])["image_grid_thw"][0]
    batch = pack_segments([plain_segment([1, 2, 3, 11], [False, False, False, True])], row_tokens=8)
    wide = batch.with_blank([6, *[5] * (int(grid.prod()) // 4), 7], blank).seen(eyes.inputs([blank]))
    Policy(qwen, None)(wide)[0].sum().backward()
    without = [name for name, parameter in qwen.named_parameters() if parameter.grad is None]
    qwen.zero_grad()
    assert without == []


def test_published_names_are_those_of_the_files(qwen, tmp_path):
    from safetensors import safe_open

    qwen.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        in_files = set(file.keys())
    published = {name for key, value in qwen.state_dict().items() for name, _ in saved(qwen, key, value)}
    assert published == in_files
