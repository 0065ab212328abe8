"""How fast tasks are dealt, drawn and answers judged, in one process on one core."""

import time
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import envs
from envs.general_points import cards
from envs.task import Task

VERDICTS = 100_000
RESETS = 50_000
DEALS = 512
PICTURES = 50


def rows() -> list[dict[str, Any]]:
    """Verdicts per second on mixed answers, microseconds per episode reset, milliseconds per picture."""
    return [_verdicts("paper"), _verdicts("reference"), _verdicts("paper", modality="vision"), _resets(), *_hands()]


def _verdicts(rewards: str, modality: str = "language") -> dict[str, Any]:
    game = envs.make("general_points", rewards=rewards, modality=modality)
    pairs = list(islice(cycle(_answers(game)), VERDICTS))
    state = game.start(pairs[0][0])

    def judge() -> None:
        for task, answer in pairs:
            game.verify(task, state, answer)

    cold = _seconds(judge)
    warm = min(_seconds(judge) for _ in range(3))
    return {
        "name": f"GP verdicts/s/core, {rewards}, mixed answers" + (", vision" if modality == "vision" else ""),
        "value": VERDICTS / warm,
        "unit": "1/s",
        "target": "≥ 50,000",
        "note": f"{DEALS} hands; {VERDICTS / cold:,.0f} on the first pass, which also solves each hand",
    }


def _answers(game: Any) -> list[tuple[Task, str]]:
    """Right; wrong value, numbers or cards; right in JSON; unclosed; prose; right after a thought."""
    pairs = []
    for index in range(DEALS):
        task = game.sample("bench", index)
        state = game.start(task)
        right, wrong = game.expert(task, state, index), game.mistake(task, state, index)
        formula = right.partition('"formula": "')[2].partition("=")[0]
        dealt = right.partition('cards": ')[2].partition("]")[0].replace("'", '"')
        listed = f'"cards": {dealt}], ' if game.options.modality == "vision" else ""
        answers = (right, wrong, f'{{{listed}"formula": "{formula}=24"}}', f'{{{listed}"formula": "({formula}=24"}}',
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


def _hands() -> list[dict[str, Any]]:
    """Pictures of hands at 1200 pixels: with each card drawn before, and asked for again."""
    game = envs.make("general_points", modality="vision", suits="black")
    keys = [game.sample("draw", index).id for index in range(PICTURES)]

    def draw() -> None:
        for key in keys:
            cards.picture(key, deck="standard", scene="plain", resolution=1200)

    def ask() -> None:
        for _ in range(PICTURES):
            game.image(keys[0])

    first = _seconds(draw)
    ask()
    notes = f"{first / PICTURES * 1e3:.0f} on the first pass, which also draws each card", "asked for again"
    return [
        {
            "name": f"GP image at 1200 px, {name}",
            "value": best / PICTURES * 1e3,
            "unit": "ms",
            "target": target,
            "note": note,
        }
        for name, work, target, note in zip(("uncached", "cached"), (draw, ask), ("< 15", "< 0.2"), notes, strict=True)
        for best in [min(_seconds(work) for _ in range(3))]
    ]


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
