"""What an expert would have said: chat documents for supervised fine-tuning."""

from dataclasses import dataclass
from typing import Any, Protocol, cast

import envs
from envs.base import ConfigError, seed_of
from envs.task import Environment, Message, Staged, State, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A chat and which of its messages are learned: some of the assistant's, never a user's."""

    messages: tuple[Message, ...]
    trained: tuple[bool, ...]

    def as_openai(self) -> dict[str, Any]:
        """`{"messages": [{"role": …, "content": …}, …]}`, with `"weight": 0` on what the assistant says untrained.

        Content with images is a list of parts, each image as its key, to be drawn by `Environment.image`.
        """
        rows: list[dict[str, Any]] = []
        for message, trained in zip(self.messages, self.trained, strict=True):
            row: dict[str, Any] = {"role": message.role, "content": _content(message)}
            rows.append(row if trained or message.role != "assistant" else {**row, "weight": 0})
        return {"messages": rows}


def _content(message: Message) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.text
    images = [{"type": "image_url", "image_url": {"url": key}} for key in message.images]
    return [*images, {"type": "text", "text": message.text}]


class Fallible(Protocol):
    """An environment that also knows plausible wrong answers."""

    def mistake(self, task: Task, state: State, *counters: int | str) -> str:
        """An answer that the verifier does not accept."""


def expert_document(
    environment: Environment, *counters: int | str, deals: int | None = None, retry_share: float = 0.0
) -> Document:
    """The document of these counters: a task's prompt and an expert's answer, which alone is learned.

    Of a task with several positions it is one of them, each as likely as any other. A share of documents,
    `retry_share`, first holds a wrong answer and the verifier's feedback on it. With `deals` there are only so many
    documents: one per position of the deals in the environment's finite pool.
    """
    if deals is not None:
        environment = envs.make(environment.name, **{**environment.options.model_dump(), "deals": deals})
    task = environment.sample(*counters)
    state = _asked_in(environment, task, *counters)
    draw: tuple[int | str, ...] = counters
    if deals is not None:
        draw = ("deal", task.id, state.position) if state.position else ("deal", task.id)
    messages = [*environment.prompt(task, state)]
    if seed_of("retry", *draw) < retry_share * 2**63:
        messages += _failed_attempt(environment, task, state, *draw)
    messages.append(Message(role="assistant", text=environment.expert(task, state, *draw)))
    return Document(messages=tuple(messages), trained=(False,) * (len(messages) - 1) + (True,))


def _asked_in(environment: Environment, task: Task, *counters: int | str) -> State:
    if not hasattr(environment, "states"):
        return environment.start(task)
    states = cast(Staged, environment).states(task)
    return states[seed_of("position", *counters) % len(states)]


def _failed_attempt(environment: Environment, task: Task, state: State, *counters: int | str) -> list[Message]:
    """A wrong answer and the verifier's real words on it."""
    if not hasattr(environment, "mistake"):
        raise ConfigError(f"environment {environment.name} knows no wrong answers; set retry_share to 0")
    answer = cast(Fallible, environment).mistake(task, state, *counters)
    verdict, _ = environment.verify(task, state, answer)
    return [Message(role="assistant", text=answer), environment.feedback(verdict)]
