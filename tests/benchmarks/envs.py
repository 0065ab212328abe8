"""How fast tasks are dealt, drawn and answers judged, in one process on one core."""

import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import envs
from envs.general_points import cards
from envs.task import State, Task
from envs.virl import album, cities, city_runs, routes, walks
from envs.virl.rail import Ways, rail_of

VERDICTS = 100_000
RESETS = 50_000
DEALS = 512
PICTURES = 50
VIEWS = 200
ROUTES = 1000
WALKS = 128
RAILS = 5000


def rows() -> list[dict[str, Any]]:
    """Verdicts per second on mixed answers, microseconds per episode reset, milliseconds per picture."""
    return [
        _verdicts("paper"),
        _verdicts("reference"),
        _verdicts("paper", modality="vision"),
        _resets(),
        *_hands(),
        _step_verdicts("paper"),
        _step_verdicts("reference"),
        *_rails(),
        *_streets(),
        _routes(),
    ]


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


def _step_verdicts(rewards: str) -> dict[str, Any]:
    walk = envs.make("virl", rewards=rewards)
    asked = list(islice(cycle(_step_answers(walk)), VERDICTS))

    def judge() -> None:
        for task, state, answer in asked:
            walk.verify(task, state, answer)

    best = min(_seconds(judge) for _ in range(3))
    return {
        "name": f"V-IRL verdicts/s/core, {rewards}, mixed answers",
        "value": VERDICTS / best,
        "unit": "1/s",
        "target": "≥ 30,000",
        "note": f"every position of {WALKS} walks",
    }


def _step_answers(walk: Any) -> list[tuple[Task, State, str]]:
    """Right; wrong; right in JSON; no action in JSON that claims an intersection; prose; right after a thought."""
    asked = []
    for task in (walk.sample("bench", index) for index in range(WALKS)):
        for state in walk.states(task):
            right, wrong = walk.expert(task, state), walk.mistake(task, state)
            claim = '{"current observation": "You observe an intersection", "action": "dance()"}'
            answers = (right, wrong, f"{right[:-3]}}}", claim, "I would go on ahead.", f"There is the corner.{right}")
            asked += [(task, state, answer) for answer in answers]
    return asked


def _rails() -> list[dict[str, Any]]:
    """Rails of the training city's routes: with two steps a leg, and as the original trains, five of which half are left out."""
    found = walks.generated(cities.TRAINED, 0, (2, 3))
    rows = []
    for told, ways in (
        ("2 steps a leg", Ways()),
        ("5 steps a leg, half left out", Ways(straight_line_length=5, drop_rate=0.5)),
    ):

        def lay(ways: Ways = ways) -> None:
            for index in range(RAILS):
                rail_of(found[index % len(found)], ways, index)

        best = min(_seconds(lay) for _ in range(3))
        rows.append({
            "name": f"V-IRL rails/s, {told}",
            "value": RAILS / best,
            "unit": "1/s",
            "target": "≥ 10,000",
            "note": f"{len(found)} routes of 2 and 3 legs",
        })  # fmt: skip
    return rows


def _streets() -> list[dict[str, Any]]:
    """Four street views in a square of 320 pixels, at places of the training city that were not drawn before."""
    city = cities.city(cities.TRAINED)
    legs = [(leg.end, leg.heading) for route in cities.routes(city, count=VIEWS) for leg in route.legs]
    keys = [album.key(f"{cities.TRAINED}:0", *leg) for leg in dict(legs).items()][:VIEWS]
    pictures = album.album(320, False, None)
    pictures(album.key(f"{cities.TRAINED}:0", city.plan.nodes[0]["geocode"], 1))  # fonts, skies and fronts
    drawn = _seconds(lambda: [pictures(key) for key in keys])
    kept = min(_seconds(lambda: [pictures(key) for key in keys[-50:]]) for _ in range(3))
    note = f"{len(keys)} places of gridport; the streets around are built when first seen"
    return [
        {
            "name": "V-IRL 2×2 view at 320 px, uncached",
            "value": drawn / len(keys) * 1e3,
            "unit": "ms",
            "target": "≤ 15",
            "note": note,
        },
        {
            "name": "V-IRL 2×2 view at 320 px, cached",
            "value": kept / 50 * 1e3,
            "unit": "ms",
            "target": "≤ 0.2",
            "note": "asked for again",
        },
    ]


def _routes() -> dict[str, Any]:
    """Every city from nothing to a written file of routes; the slowest counts."""

    def laid_out(name: str) -> None:
        cities.city.cache_clear()
        city_runs.runs_of.cache_clear()
        with tempfile.TemporaryDirectory() as folder:
            found = cities.routes(cities.city(name), count=ROUTES)
            routes.write_routes(Path(folder) / "routes.json", found)

    seconds = {name: min(_seconds(lambda name=name: laid_out(name)) for _ in range(2)) for name in cities.NAMES}
    return {
        "name": f"V-IRL file of {ROUTES:,} routes",
        "value": max(seconds.values()),
        "unit": "s",
        "target": "< 10",
        "note": "a city, its landmarks and routes, written; " + ", ".join(f"{n} {s:.2f}" for n, s in seconds.items()),
    }


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
