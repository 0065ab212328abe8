"""The learner against a PyTorch loop written by hand: same model, same packed rows, same loss, same AdamW.

The hand loop is a strong one: logits at sampled positions alone, fused AdamW, torch's own clipping, no diagnostics.
"""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainers.config import LearnerConfig, ModelConfig, PpoConfig, ScheduleConfig
from trainers.episode import Segment
from trainers.learner import Learner
from trainers.objectives import PpoObjective
from trainers.packing import Batch, pack_segments
from trainers.policy import CriticSettings, ValueHead
from trainers.pretrained import load_model

ROUNDS = 12
LEARNER = LearnerConfig(row_tokens=512, rows_per_pass=4)
CRITIC = CriticSettings(learning_rate=1e-3, detached=True)
SCHEDULE = ScheduleConfig(learning_rate=1e-5)
PPO = PpoConfig(episodes=4)


def make_model(directory: Path) -> None:
    """The nano shape: hidden 128, 4 layers, 4 heads, SwiGLU 256, 300 words."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=300, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
        head_dim=32, intermediate_size=256, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(directory)


def make_batch(rows: int = 16) -> Batch:
    """Rows of three episodes of about 170 tokens, half of them sampled, with made-up advantages and returns."""
    random = np.random.default_rng(0)
    segments = []
    for _ in range(3 * rows):
        length = int(random.integers(150, 171))
        sampled = np.arange(length) % 60 >= 30
        segments.append(
            Segment(
                token_ids=random.integers(0, 300, length).astype(np.int32),
                sampled=sampled,
                turns=(),
                engine_logp=np.zeros(length, np.float32),
                weight_versions=np.where(sampled, 0, -1).astype(np.int32),
            )
        )
    batch = pack_segments(segments, row_tokens=512)
    learns = torch.zeros_like(batch.sampled)
    learns[:, :-1] = batch.sampled[:, 1:] & ~batch.sampled[:, :-1]
    noise = torch.randn(batch.sampled.shape, generator=torch.Generator().manual_seed(0))
    return replace(
        batch, critic_reads=learns, critic_learns=learns, advantages=noise * batch.sampled, returns=noise * learns,
        values=torch.zeros_like(noise), old_logp=torch.where(batch.sampled, -5.7, 0.0),
    )  # fmt: skip


def by_hand(directory: Path, batch: Batch, dtype: str = "float32") -> Callable[[], None]:
    """One update of the same loss, as one would write it without a framework."""
    model = load_model(directory, ModelConfig(dtype=dtype))
    critic = ValueHead(model.config.hidden_size, model.dtype)
    weights = [*model.parameters(), *critic.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    tokens, turns = batch.sampled.sum(), batch.critic_learns.sum()

    def update() -> None:
        for first in range(0, len(batch), LEARNER.rows_per_pass):
            part = batch.rows(torch.arange(first, min(first + LEARNER.rows_per_pass, len(batch))))
            hidden = model.model(
                input_ids=part.token_ids, position_ids=part.positions, use_cache=False
            ).last_hidden_state
            predicted = part.sampled[:, 1:]
            logits = model.lm_head(hidden[:, :-1][predicted]).float()
            logp = -torch.nn.functional.cross_entropy(logits, part.token_ids[:, 1:][predicted], reduction="none")
            ratio = (logp - part.old_logp[:, 1:][predicted]).exp()
            advantages = part.advantages[:, 1:][predicted]
            surrogate = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
            values, returns = critic(hidden[part.critic_learns].detach()), part.returns[part.critic_learns]
            errors = torch.maximum((values - returns).square(), (values.clamp(-0.2, 0.2) - returns).square())
            (0.25 * errors.sum() / turns - surrogate.sum() / tokens).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return update


def by_learner(directory: Path, batch: Batch, dtype: str = "float32") -> Callable[[], None]:
    learner = Learner.start(directory, ModelConfig(dtype=dtype), LEARNER, SCHEDULE, total_updates=100, critic=CRITIC)
    objective = PpoObjective(PPO)
    return lambda: learner.update(batch, objective)


def rows() -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    batch = make_batch()
    tokens = int(batch.is_token.sum())
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        make_model(directory)
        hand_s, learner_s, bf16_s = _alternating(
            by_hand(directory, batch), by_learner(directory, batch), by_learner(directory, batch, "bfloat16")
        )
        hand_peak, learner_peak = (_peak_growth(maker, directory) for maker in (by_hand, by_learner))
    note = f"nano, fp32, 1 thread: learner {tokens / learner_s:,.0f}, by hand {tokens / hand_s:,.0f} tok/s"
    return [
        _row("learner tokens/s ÷ PyTorch by hand", hand_s / learner_s, "ratio", "≥ 0.90", note),
        _row(
            "learner peak memory ÷ PyTorch by hand", learner_peak / hand_peak, "ratio", "≤ 1.25",
            f"growth over imports: {learner_peak / 2**20:.0f} and {hand_peak / 2**20:.0f} MiB",
        ),
        _row("learner bf16 ÷ fp32 tokens/s", learner_s / bf16_s, "ratio", "-", f"bf16 {tokens / bf16_s:,.0f} tok/s"),
    ]  # fmt: skip


def _row(name: str, value: float, unit: str, target: str, note: str) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "target": target, "note": note}


def _alternating(*updates: Callable[[], None]) -> list[float]:
    """Median seconds of each, taken in turns so that all see the same machine."""
    seconds: list[list[float]] = [[] for _ in updates]
    for number in range(ROUNDS + 2):
        for own, update in zip(seconds, updates, strict=True):
            started = time.perf_counter()
            update()
            if number >= 2:  # the first ones allocate
                own.append(time.perf_counter() - started)
    return [statistics.median(own) for own in seconds]


def _peak_growth(maker: Callable[[Path, Batch], Callable[[], None]], directory: Path) -> int:
    """Bytes by which four updates raise the peak of a process of their own, imports left out."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measure_peak, (maker.__name__, directory))


def _measure_peak(name: str, directory: Path) -> int:
    import deepspeed  # noqa: F401  both sides start from the same imports

    torch.set_num_threads(1)
    batch = make_batch()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = _status_kib("VmRSS")
    update = globals()[name](directory, batch)
    for _ in range(4):
        update()
    return (_status_kib("VmHWM") - before) * 1024


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])
