"""An environment whose verifier now and then gives a reward near the end of float32: an honest way to a gradient beyond it.

A run's processes know it as they know anybody's environment, by an entry point; `installed` writes one.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from envs import ENTRY_POINTS
from envs.base import Config, validated
from envs.task import Message, State, Status, Task, Verdict

NAME = "chaos-overflow"
MOST = 3e38  # float32 holds it, and not its square


class OverflowOptions(Config):
    """What may be set."""

    viter: int = Field(2, ge=1)
    """Judged attempts."""
    steps: tuple[int, ...] = ()
    """Whose first episode gets `MOST` for whatever it says."""


class Overflow:
    """Rewards an answer by its length, unless its task overflows."""

    name = NAME

    def __init__(self, **options: Any) -> None:
        self.options = validated(OverflowOptions, options, source=f"{NAME} options")

    def sample(self, *counters: int | str) -> Task:
        *_, step, index = counters
        overflows = index == 0 and step in self.options.steps
        options = self.options.model_dump(mode="json")
        return Task(environment=NAME, options=options, id=f"{step}-{index}", data={"overflows": overflows})

    def start(self, task: Task) -> State:
        return State(attempts_left=task.options["viter"])

    def prompt(self, task: Task, state: State) -> tuple[Message, ...]:  # noqa: ARG002 - one position, one prompt
        return (Message(role="user", text=f"Say anything ({task.id})."),)

    def verify(self, task: Task, state: State, answer: str) -> tuple[Verdict, State]:
        left = state.attempts_left - 1
        reward = MOST if task.data["overflows"] else float(len(answer) % 7 - 3)
        verdict = Verdict(reward=reward, status=Status.WRONG_VALUE, feedback="Again.", truncated=left == 0)
        return verdict, State(attempts_left=left, is_over=left == 0)

    def feedback(self, verdict: Verdict) -> Message:
        return Message(role="user", text=verdict.feedback)

    def expert(self, task: Task, state: State, *counters: int | str) -> str:  # noqa: ARG002 - any answer will do
        return "anything"


def installed(folder: Path) -> Path:
    """A folder for PYTHONPATH that makes the environment known."""
    about = folder / "chaos_overflow-0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: chaos-overflow\nVersion: 0\n")
    (about / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{NAME} = {__name__}:{Overflow.__name__}\n")
    return folder
