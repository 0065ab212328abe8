"""One line of `viter verify`: a JSON object with an answer in, the verdict on it out."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Protocol, cast

from pydantic import Field, StrictInt, StrictStr, field_validator

import envs
from envs.base import Config, ConfigError, ViterError, validated
from envs.task import Environment, State, Task, Verdict


class LineError(ViterError):
    """A line that cannot be judged: its number, the field, and what is wrong with it."""


class FromState(Protocol):
    """An environment whose tasks people can write down."""

    def task_of(self, state: Mapping[str, Any]) -> Task:
        """The task of a line's `state`; a ConfigError names the field that is wrong."""


class _Line(Config):
    """What a line holds. All of it is required: the rule that an answer is judged by is never guessed."""

    env: StrictStr
    options: dict[str, Any]
    state: dict[str, Any]
    attempts_left: Annotated[StrictInt, Field(ge=0)]
    answer: Any

    @field_validator("answer")
    @classmethod
    def _is_text(cls, answer: Any) -> str:
        if not isinstance(answer, str):  # by hand: pydantic's str refuses lone surrogates, which are judged here
            raise ValueError("expected a string")
        return answer


def verify_line(line: str, number: int) -> dict[str, Any]:
    """The verdict on the answer in line `number`, as a JSON-able object.

        {"env": "general_points", "options": {"face_cards": "ten"}, "state": {"cards": ["C7", "CK", "C7", "CA"]},
         "attempts_left": 5, "answer": "…"}
        -> {"reward": 5.0, "status": "correct", "feedback": "Correct solution.", "terminated": True, "truncated": False}

    Raises:
        LineError: names the line and the field.
    """
    environment, question = _asked(line, number)
    verdict, _ = environment.verify(*question)
    return told(verdict)


def question_of(line: str, number: int) -> tuple[Task, State, str]:
    """What line `number` asks, for a verifier elsewhere. Raises as `verify_line`."""
    return _asked(line, number)[1]


def _asked(line: str, number: int) -> tuple[Environment, tuple[Task, State, str]]:
    order = _read(line, number)
    environment = _environment(order, number)
    if not hasattr(environment, "task_of"):
        raise LineError(f"line {number}: env: {order.env!r} has no states that a line could hold")
    try:
        task = cast(FromState, environment).task_of(order.state)
    except ConfigError as error:
        raise LineError(f"line {number}: {_dotted(str(error), 'state')}") from None
    return environment, (task, State(attempts_left=order.attempts_left), order.answer)


def told(verdict: Verdict) -> dict[str, Any]:
    """A verdict as a JSON-able object."""
    return {
        "reward": verdict.reward,
        "status": verdict.status.value,
        "feedback": verdict.feedback,
        "terminated": verdict.terminated,
        "truncated": verdict.truncated,
    }


def _read(line: str, number: int) -> _Line:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        problem = getattr(error, "msg", "nested too deeply, or a number too long")
        raise LineError(f"line {number}: (whole line): not valid JSON: {problem}") from None
    if not isinstance(data, dict):
        raise LineError(f"line {number}: (whole line): a {type(data).__name__}; expected a JSON object")
    try:
        return validated(_Line, data, source=f"line {number}")
    except ConfigError as error:
        raise LineError(str(error)) from None


def _environment(order: _Line, number: int) -> Environment:
    try:
        envs.factory(order.env)
    except ConfigError as error:
        raise LineError(f"line {number}: env: {error}") from None
    try:
        return envs.make(order.env, **order.options)
    except ConfigError as error:
        raise LineError(f"line {number}: {_dotted(str(error), f'{order.env} options')}") from None
    except TypeError as error:  # a factory of others without strict options
        raise LineError(f"line {number}: options: {error}") from None


def _dotted(problem: str, source: str) -> str:
    """`general_points options: target: …` -> `options.target: …`: the field's path within the line."""
    field = source.rpartition(" ")[2]
    return (
        problem.replace(f"{source}: ", f"{field}.", 1) if problem.startswith(f"{source}: ") else f"{field}: {problem}"
    )
