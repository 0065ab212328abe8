"""What the tests of vision share: a nano model that sees, pictures, and an environment that shows one."""

from pathlib import Path

import numpy as np

from envs.base import Config
from envs.task import Message, State, Status, Task, Verdict
from trainers.chat import ChatFormat, Transcript
from trainers.nano.model import NanoSize, create

SMALL = NanoSize(hidden=64, layers=2, heads=2, intermediate=64, image_side=32, patch=8, vision_layers=1)
LIVELY = 0.2  # random weights this large tell pictures apart; those a model starts with hardly do


def model(directory: Path, *, seed: int = 0) -> Path:
    """A small vision-language model whose answers depend on what it sees."""
    import torch
    from safetensors.torch import load_file, save_file

    create(directory, seed=seed, size=SMALL, sees=True)
    weights = load_file(directory / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    lively = {
        name: tensor + LIVELY * torch.randn(tensor.shape, generator=generator) for name, tensor in weights.items()
    }
    save_file(lively, directory / "model.safetensors", {"format": "pt"})
    return directory


def picture(number: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)


def opened(chat: ChatFormat, *numbers: int, text: str = "look") -> Transcript:
    """A chat that begins with these pictures."""
    keys = tuple(str(number) for number in numbers)
    pictures = {key: picture(number) for key, number in zip(keys, numbers, strict=True)}
    return Transcript(chat, [Message(role="user", text=text, images=keys)], pictures)


class Peek:
    """Three positions, each with a picture of its own, and another picture in the feedback on a wrong answer."""

    name = "peek"

    class Options(Config):
        viter: int = 2
        modality: str = "vision"

    def __init__(self, **options):
        self.options = self.Options(**options)

    def sample(self, *counters):
        return Task(environment="peek", options=self.options.model_dump(), id=repr(counters), data={})

    def start(self, task):
        return State(attempts_left=self.options.viter)

    def states(self, task):
        return tuple(State(attempts_left=self.options.viter, position=p) for p in range(3))

    def prompt(self, task, state):
        return (Message(role="user", text=f"where {state.position}", images=(f"{state.position}",)),)

    def image(self, key):
        return picture(int(key))

    def verify(self, task, state, answer):
        right = answer == "on"
        after = State(attempts_left=self.options.viter, position=state.position + 1, is_over=state.position == 2)
        if not right:
            left = state.attempts_left - 1
            after = State(attempts_left=left, position=state.position, is_over=left == 0)
        status = Status.CORRECT if right else Status.WRONG_ACTION
        done = right and after.is_over
        return Verdict(
            reward=1.0, status=status, feedback="no", terminated=done, truncated=after.is_over and not done
        ), after

    def feedback(self, verdict):
        return Message(role="user", text=verdict.feedback, images=("9",))

    def expert(self, task, state, *counters):
        return "on"
