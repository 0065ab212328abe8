"""Small models, segments and episodes for the tests of the trainers."""

from pathlib import Path

import numpy as np
import torch

from envs.task import Status, Task
from trainers.episode import Episode, Segment, Turn, Usage

VOCABULARY = 24


def make_model(directory: Path, *, seed: int = 0, **changes) -> Path:
    """A Qwen3-shaped model of 8,000 weights in `directory`."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    shape = {
        "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 32, "tie_word_embeddings": False,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(Qwen3Config(**{**shape, **changes}))
    with torch.no_grad():  # far from uniform, so that a wrong position shows
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(directory)
    return directory


def make_segment(prompt: int, *turns: tuple[int, float], feedback: int = 2, tail: int = 0, seed: int = 0) -> Segment:
    """`prompt` tokens, then answers of (length, reward), `feedback` tokens between them and `tail` after the last."""
    random = np.random.default_rng((seed, prompt, len(turns)))
    sampled, made = [False] * prompt, []
    for number, (length, reward) in enumerate(turns):
        sampled += [False] * (feedback if number else 0)
        made.append(
            Turn(
                start=len(sampled),
                stop=len(sampled) + length,
                reward=reward,
                answer="",
                feedback="",
                status=Status.CORRECT if reward > 0 else Status.WRONG_VALUE,
                finish_reason="stop",
            )
        )
        sampled += [True] * length
    mask = np.array(sampled + [False] * tail)
    return Segment(
        token_ids=random.integers(0, VOCABULARY, len(mask)).astype(np.int32),
        sampled=mask,
        engine_logp=np.where(mask, -1.5, 0.0).astype(np.float32),
        weight_versions=np.where(mask, 0, -1).astype(np.int32),
        turns=tuple(made),
    )


def make_episode(*segments: Segment, terminated: bool = True, index: int = 0) -> Episode:
    usage = Usage(prefill_tokens=10, cached_tokens=0, sampled_tokens=5, generate_s=0.0, verify_s=0.0)
    task = Task(environment="none", options={}, id="none", data={})
    return Episode(
        step=0, index=index, task=task, segments=segments, terminated=terminated, truncated=not terminated, usage=usage
    )


def make_episodes(count: int, *, seed: int = 0) -> list[Episode]:
    """Episodes of one to three turns; every third is truncated."""
    random = np.random.default_rng(seed)
    episodes = []
    for index in range(count):
        turns = [(int(random.integers(1, 6)), -1.0) for _ in range(int(random.integers(1, 4)))]
        terminated = index % 3 != 2
        turns[-1] = (turns[-1][0], 5.0 if terminated else -1.0)
        segment = make_segment(int(random.integers(2, 8)), *turns, seed=seed + index)
        episodes.append(make_episode(segment, terminated=terminated, index=index))
    return episodes
