"""A stand-in for tasks with several positions and pictures: a walk past signs, each of which says where to turn.

Its rules are few enough to reason from: at position p the sign says `words[p]`, and the right answer ends in that word.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

import envs
from envs import suites
from envs.base import Config, DataError, validated
from envs.suites import SuiteSpec
from envs.task import Message, State, Status, Task, Verdict
from trainers.episode import Episode, Segment, Turn, Usage

WORDS = ("left", "right", "ahead", "back")
COLOURS = {"left": (200, 60, 50), "right": (60, 130, 70), "ahead": (60, 90, 180), "back": (190, 150, 40)}


class Options(Config):
    modality: Literal["language", "vision"] = "language"
    town: Literal["here", "there", "gone"] = "here"
    viter: int = Field(2, ge=1)
    resolution: int = Field(640, ge=8)


class Walks:
    """Walk past four signs. In town `gone` no picture was ever taken of the last one."""

    name = "walks"
    presentation: ClassVar[tuple[str, ...]] = ("viter", "resolution")
    headline = "per_step_accuracy"
    tasks_word = "walks"
    suites: ClassVar[Mapping[str, SuiteSpec]] = {
        "id": SuiteSpec("id", {}),
        "ood-rule": SuiteSpec("ood", {"town": "there"}),
        "vision-id": SuiteSpec("id", {"modality": "vision"}),
        "vision-ood-rule": SuiteSpec("ood", {"modality": "vision", "town": "there"}),
        "vision-ood-visual": SuiteSpec("ood", {"modality": "vision", "town": "gone"}),
    }

    def __init__(self, **options: Any) -> None:
        self.options = validated(Options, options, source="walks options")

    def sample(self, *counters: int | str) -> Task:
        first = int(counters[-1])
        words = [WORDS[(first + i) % 4] for i in range(4)]
        return Task(environment="walks", options=self.options.model_dump(), id="-".join(words), data={"words": words})

    def start(self, task: Task) -> State:
        return State(attempts_left=task.options["viter"])

    def prompt(self, task: Task, state: State) -> tuple[Message, ...]:
        words = task.data["words"]
        lines = [
            line for p in range(state.position) for line in (f"O_{p + 1}: a sign {words[p]}", f"A_{p + 1}: {words[p]}")
        ]
        seen = self.options.modality == "vision"
        now = "You observe an image" if seen else f"a sign {words[state.position]}"
        text = "\n".join(
            ["Walk past the signs.", *lines, f"O_{state.position + 1}: {now}", f"A_{state.position + 1}: "]
        )
        key = f"{self.options.town}.{state.position}.{words[state.position]}"
        return (Message(role="user", text=text, images=(key,) if seen else ()),)

    def verify(self, task: Task, state: State, answer: str) -> tuple[Verdict, State]:
        words = task.data["words"]
        if answer.rpartition(":")[2].strip() == words[state.position]:
            is_over = state.position == len(words) - 1
            verdict = Verdict(reward=1.0, status=Status.CORRECT, feedback="Correct action.", terminated=is_over)
            after = State(attempts_left=task.options["viter"], position=state.position + 1, is_over=is_over)
            return verdict, after
        left = state.attempts_left - 1
        verdict = Verdict(reward=-1.0, status=Status.WRONG_ACTION, feedback="You walk past it.", truncated=left == 0)
        return verdict, State(attempts_left=left, position=state.position, is_over=left == 0)

    def observes(self, task: Task, position: int, answer: str) -> bool:
        return f"sign {task.data['words'][position]}" in answer

    def feedback(self, verdict: Verdict) -> Message:
        return Message(role="user", text=verdict.feedback)

    def expert(self, task: Task, state: State, *_: int | str) -> str:
        return f"sign {task.data['words'][state.position]}: {task.data['words'][state.position]}"

    def image(self, key: str) -> np.ndarray:
        town, position, word = key.split(".")
        if (town, position) == ("gone", "3"):
            raise DataError(f"panorama {key}: there is no such file; fetch the town's pictures again")
        side = self.options.resolution
        picture = np.full((side, side, 3), 225, dtype=np.uint8)
        picture[side // 4 : side // 2, side // 4 : 3 * side // 4] = COLOURS[word]
        picture[:, :, 2] = np.linspace(40, 220, side, dtype=np.uint8)[:, None]  # a sky, so that it is no flat card
        return picture


@contextmanager
def registered() -> Iterator[None]:
    """`walks` as an environment that this process knows."""
    envs.register("walks", Walks)
    try:
        yield
    finally:
        del envs._registered["walks"]
        envs._made.cache_clear()
        suites.load.cache_clear()


def played(walks: Walks, task: Task, answers: list[list[str]]) -> Episode:
    """An episode with these answers at each position, as `cluster.rollout.play` leaves it."""
    state, segments, verdict = walks.start(task), [], None
    for position, replies in enumerate(answers):
        prompt, turns = walks.prompt(task, state)[-1], []
        for i, reply in enumerate(replies):
            assert (state.position, state.is_over) == (position, False)
            verdict, state = walks.verify(task, state, reply)
            turns.append(
                Turn(
                    start=2 * i, stop=2 * i + 1, reward=verdict.reward, status=verdict.status, answer=reply,
                    feedback=verdict.feedback, finish_reason="stop",
                )
            )  # fmt: skip
        length = 2 * len(turns)
        segments.append(
            Segment(
                token_ids=np.zeros(length, np.int32), sampled=np.arange(length) % 2 == 0,
                engine_logp=np.zeros(length, np.float32), weight_versions=np.zeros(length, np.int32),
                turns=tuple(turns), images=prompt.images,
            )
        )  # fmt: skip
    assert verdict is not None
    usage = Usage(prefill_tokens=1, cached_tokens=0, sampled_tokens=1, generate_s=0.0, verify_s=0.0)
    return Episode(
        step=3, index=0, task=task, segments=tuple(segments), terminated=verdict.terminated,
        truncated=not verdict.terminated, usage=usage,
    )  # fmt: skip
