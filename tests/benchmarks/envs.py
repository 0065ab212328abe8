"""How fast tasks are dealt and answers judged, in one process on one core."""

import time
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import envs
from envs.task import Task

VERDICTS = 100_000
RESETS = 50_000
DEALS = 512


def rows() -> list[dict[str, Any]]:
    """Verdicts per second on mixed answers, and microseconds per episode reset."""
    return [_verdicts("paper"), _verdicts("reference"), _resets()]


def _verdicts(rewards: str) -> dict[str, Any]:
    game = envs.make("general_points", rewards=rewards)
    pairs = list(islice(cycle(_answers(game)), VERDICTS))
    state = game.start(pairs[0][0])

    def judge() -> None:
        for task, answer in pairs:
            game.verify(task, state, answer)

    cold = _seconds(judge)
    warm = min(_seconds(judge) for _ in range(3))
    return {
        "name": f"GP verdicts/s/core, {rewards}, mixed answers",
        "value": VERDICTS / warm,
        "unit": "1/s",
        "target": "≥ 50,000",
        "note": f"{DEALS} hands; {VERDICTS / cold:,.0f} on the first pass, which also solves each hand",
    }


def _answers(game: Any) -> list[tuple[Task, str]]:
    """Right; wrong value or numbers; right in JSON; unclosed; prose; right after a thought."""
    pairs = []
    for index in range(DEALS):
        task = game.sample("bench", index)
        state = game.start(task)
        right, wrong = game.expert(task, state, index), game.mistake(task, state, index)
        formula = right.partition('"formula": "')[2].partition("=")[0]
        answers = (right, wrong, f'{{"formula": "{formula}=24"}}', f'{{"formula": "({formula}=24"}}',
                   "I would first add the two largest cards.", f"The tens go well together.{right}")  # fmt: skip
        pairs += [(task, answer) for answer in answers]
    return pairs


def _resets() -> dict[str, Any]:
    game = envs.make("general_points")

    def reset() -> None:
        for index in range(RESETS):
            task = game.sample("reset", index)
            game.prompt(task, game.start(task))

    reset()
    best = min(_seconds(reset) for _ in range(3))
    return {
        "name": "GP episode reset",
        "value": best / RESETS * 1e6,
        "unit": "µs",
        "target": "< 50",
        "note": "a new deal, its state and its prompt",
    }


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
