"""Environments as `gymnasium` knows them: text in, text out, and a picture where the tasks are seen.

    import envs.gymnasium_face
    env = gymnasium.make("viter/GeneralPoints-v0", face_cards="rank")

An action is the model's whole answer. The observation is the user turn that it sees next: after a reset the prompt,
after a step the verdict's feedback. Of an environment that shows pictures it is `{"text": …, "image": …}`, and the
image is the latest one that a prompt named. `info` holds the task's id and the verdict's status.
"""

import string
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Space, Text

import envs
from envs.answers import MAX_ANSWER_CHARS
from envs.task import Message, Sighted, State, Task

MAX_OBSERVATION_CHARS = 65_536

Observation = str | dict[str, Any]


class TextEnv(gymnasium.Env[Observation, str]):
    """Any environment of `envs.make`, one episode after the other. `reset(seed=…)` fixes all tasks that follow."""

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, environment: str, render_mode: str | None = None, **options: Any) -> None:
        self.core = envs.make(environment, **options)
        self.render_mode = render_mode
        self.observation_space = self._space()
        self.action_space = Text(MAX_ANSWER_CHARS, min_length=0, charset=string.printable)
        self._task: Task | None = None
        self._state: State | None = None
        self._shown = ""
        self._picture: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new task. `options={"task": Task}` plays that one."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**62))
        self._task = (options or {}).get("task") or self.core.sample("gymnasium", drawn)
        self._state = self.core.start(self._task)
        self._shown = self._prompt()
        return self._observation(), {"task": self._task.id}

    def step(self, action: str) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        if self._task is None or self._state is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        before = self._state
        verdict, self._state = self.core.verify(self._task, before, action)
        moved = self._state.position != before.position and not self._state.is_over
        self._shown = self._prompt() if moved else self.core.feedback(verdict).text
        info = {"task": self._task.id, "status": verdict.status.value}
        return self._observation(), verdict.reward, verdict.terminated, verdict.truncated, info

    def render(self) -> str | None:
        return self._shown if self.render_mode == "ansi" else None

    def _prompt(self) -> str:
        assert self._task is not None
        assert self._state is not None
        messages = self.core.prompt(self._task, self._state)
        self._picture = self._latest(messages)
        return "\n".join(message.text for message in messages)

    def _observation(self) -> Observation:
        return self._shown if self._picture is None else {"text": self._shown, "image": self._picture}

    def _latest(self, messages: tuple[Message, ...]) -> np.ndarray | None:
        keys = [key for message in messages for key in message.images]
        return cast(Sighted, self.core).image(keys[-1]) if keys else None

    def _space(self) -> Space[Any]:
        """Text, and a picture of the size that a first task has where tasks have one."""
        text = Text(MAX_OBSERVATION_CHARS, min_length=0, charset=string.printable)
        task = self.core.sample("gymnasium", 0)
        picture = self._latest(self.core.prompt(task, self.core.start(task)))
        return text if picture is None else Dict({"text": text, "image": Box(0, 255, picture.shape, np.uint8)})


def register() -> None:
    """Make the ids known to `gymnasium.make`. Importing this module does it; doing it again changes nothing."""
    for name, environment in {"GeneralPoints": "general_points", "VIRL": "virl"}.items():
        key = f"viter/{name}-v0"
        if key not in gymnasium.registry:
            gymnasium.register(key, entry_point="envs.gymnasium_face:TextEnv", kwargs={"environment": environment})


register()
