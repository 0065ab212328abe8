"""Environments as `gymnasium` knows them: text in, text out.

    import envs.gymnasium_face
    env = gymnasium.make("viter/GeneralPoints-v0", face_cards="rank")

An action is the model's whole answer. The observation is the user turn that it sees next: after a reset the prompt,
after a step the verdict's feedback. `info` holds the task's id and the verdict's status.
"""

import string
from typing import Any

import gymnasium
from gymnasium.spaces import Text

import envs
from envs.answers import MAX_ANSWER_CHARS
from envs.task import State, Task

MAX_OBSERVATION_CHARS = 65_536


class TextEnv(gymnasium.Env[str, str]):
    """Any environment of `envs.make`, one episode after the other. `reset(seed=…)` fixes all tasks that follow."""

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, environment: str, render_mode: str | None = None, **options: Any) -> None:
        self.core = envs.make(environment, **options)
        self.render_mode = render_mode
        self.observation_space = Text(MAX_OBSERVATION_CHARS, min_length=0, charset=string.printable)
        self.action_space = Text(MAX_ANSWER_CHARS, min_length=0, charset=string.printable)
        self._task: Task | None = None
        self._state: State | None = None
        self._shown = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """A new task. `options={"task": Task}` plays that one."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**62))
        self._task = (options or {}).get("task") or self.core.sample("gymnasium", drawn)
        self._state = self.core.start(self._task)
        self._shown = self._prompt()
        return self._shown, {"task": self._task.id}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self._task is None or self._state is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        before = self._state
        verdict, self._state = self.core.verify(self._task, before, action)
        moved = self._state.position != before.position and not self._state.is_over
        self._shown = self._prompt() if moved else self.core.feedback(verdict).text
        info = {"task": self._task.id, "status": verdict.status.value}
        return self._shown, verdict.reward, verdict.terminated, verdict.truncated, info

    def render(self) -> str | None:
        return self._shown if self.render_mode == "ansi" else None

    def _prompt(self) -> str:
        assert self._task is not None
        assert self._state is not None
        return "\n".join(message.text for message in self.core.prompt(self._task, self._state))


def register() -> None:
    """Make the ids known to `gymnasium.make`. Importing this module does it; doing it again changes nothing."""
    for name, environment in {"GeneralPoints": "general_points"}.items():
        key = f"viter/{name}-v0"
        if key not in gymnasium.registry:
            gymnasium.register(key, entry_point="envs.gymnasium_face:TextEnv", kwargs={"environment": environment})


register()
