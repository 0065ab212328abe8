"""From a played episode to the item that is journaled and shown."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from cluster.rollout import Quarantined
from envs.task import Environment, Task
from services.evaluations.orders import Item, ItemTurn, PlayOrder, Position, item_id
from trainers.episode import Episode, Segment


def item_of(order: PlayOrder, environment: Environment, task: Task, index: int, outcome: Episode | Quarantined) -> Item:
    """An episode as it is journaled. One that could not be judged has an error and no turns."""
    known: dict[str, Any] = {
        "id": item_id(order.suite, index),
        "suite": order.suite,
        "index": index,
        "task": task.id,
        "data": dict(task.data),
        "options": dict(task.options),
        "prompt": _words(environment, task, 0),
        "digest": order.checkpoint.digest,
    }
    if isinstance(outcome, Quarantined):
        nothing = {"prefill_tokens": 0, "cached_tokens": 0, "decoded_tokens": 0}
        return Item(
            **known, success=False, reward=0.0, turns=[], error=f"{outcome.status}: {outcome.reason}", **nothing
        )
    return Item(
        **known,
        success=outcome.is_success,
        reward=outcome.reward,
        turns=turns_of(environment, outcome),
        positions=positions_of(environment, outcome),
        prefill_tokens=outcome.usage.prefill_tokens,
        cached_tokens=outcome.usage.cached_tokens,
        decoded_tokens=outcome.usage.sampled_tokens,
    )


def turns_of(environment: Environment | None, episode: Episode) -> list[ItemTurn]:
    """Every answer with its verdict, its position, and at each position whether the first answer read it rightly.

    Without its environment nothing is known of readings.
    """
    return [
        ItemTurn(
            answer=turn.answer,
            feedback=turn.feedback,
            reward=turn.reward,
            status=turn.status,
            tokens=turn.stop - turn.start,
            finish_reason=turn.finish_reason,
            position=position,
            recognised=_reads(environment, episode.task, position, turn.answer, segment) if attempt == 0 else None,
        )
        for position, segment in enumerate(episode.segments)
        for attempt, turn in enumerate(segment.turns)
    ]


def positions_of(environment: Environment | None, episode: Episode) -> list[Position]:
    """What each position showed that the one before did not. Without its environment, pictures alone."""
    lines: list[str] = []
    images: list[str] = []
    found = []
    for position, segment in enumerate(episode.segments):
        now = _words(environment, episode.task, position).splitlines() if environment else []
        news = _news(lines, now) if position else []
        found.append(Position(news="\n".join(news), images=_news_of_images(images, segment.images)))
        lines, images = now, list(segment.images)
    return found


def by_position(turns: Sequence[ItemTurn]) -> list[list[ItemTurn]]:
    """The turns of each position that was reached, in order."""
    return [list(group) for _, group in groupby(turns, key=lambda turn: turn.position)]


def _words(environment: Environment, task: Task, position: int) -> str:
    return environment.prompt(task, replace(environment.start(task), position=position))[-1].text


def _news(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Lines that were not there before, but for those that only ask, as `A_2: ` does."""
    known = set(before)
    return [line for line in now if line not in known and not line.rstrip().endswith(":")]


def _news_of_images(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Pictures behind those of the history, where a prompt carries its history along; else all of them."""
    has_history = len(now) > len(before) and list(now[: len(before)]) == list(before)
    return list(now[len(before) :]) if has_history else list(now)


def _reads(environment: Environment | None, task: Task, position: int, answer: str, segment: Segment) -> bool | None:
    """Whether an answer reads what it was shown, where the environment can tell."""
    reader: Any = environment  # the two ways to tell are optional parts of an environment
    if hasattr(reader, "observes"):
        return bool(reader.observes(task, position, answer)) if segment.images else None
    if hasattr(reader, "recognises") and position == 0:
        return bool(reader.recognises(task, answer))
    return None
