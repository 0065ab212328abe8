"""Routes through a city: from the middle of a street to a landmark along another, with a turn at every crossing between.

The first landmark seen on a leg is the one at its end, so that what a leg's instruction says is what a walker meets.
"""

from random import Random

from envs.base import ConfigError, DataError, seed_of
from envs.virl import prompts
from envs.virl.cities import City
from envs.virl.city_ground import bearing, geocode_of, metres, point_of
from envs.virl.city_runs import Run, Runs, runs_of
from envs.virl.landmarks import Landmark, side
from envs.virl.routes import Leg, Route

_TRIES_PER_ROUTE = 60


def routes(city: City, *, count: int, seed: int = 0, legs: tuple[int, int] = (2, 4)) -> tuple[Route, ...]:
    """`count` distinct routes, each with as many legs as drawn between the two numbers. A smaller count is a part of a larger.

    Raises:
        ConfigError: the numbers of legs are none.
        DataError: the city has not that many routes.
    """
    if not 1 <= legs[0] <= legs[1]:
        raise ConfigError(f"legs: {legs}: a route has 1 leg at least, and the lower number comes first")
    runs, found = runs_of(city), dict[tuple[int, ...], int]()
    for attempt in range(count * _TRIES_PER_ROUTE):
        if len(found) == count:
            break
        draw = Random(seed_of("virl route", city.name, city.seed, seed, attempt))
        way = _drawn(runs, draw.randint(*legs), draw)
        if way is not None:
            found.setdefault(way, draw.randint(1, 359))
    if len(found) < count:
        raise DataError(f"{city.name}: only {len(found)} distinct routes of {legs[0]} to {legs[1]} legs were found, "
                        f"not {count}; ask for fewer, for more legs, or use another seed of the city too")  # fmt: skip
    marks = {mark.node: mark for mark in city.landmarks if mark.node is not None}
    return tuple(_route(city, [runs.runs[n] for n in way], heading, marks) for way, heading in found.items())


def _drawn(runs: Runs, legs: int, draw: Random) -> tuple[int, ...] | None:
    """The numbers of a way's runs, drawn from its end backwards; None where it crosses itself or nothing leads there."""
    way = [draw.choice(runs.last)]
    while len(way) < legs:
        choices = (runs.first_before if len(way) == legs - 1 else runs.inner_before)[way[0]]
        if not choices:
            return None
        way.insert(0, draw.choice(choices))
    touched = [node for number in way for node in runs.runs[number].crossings[:-1]]
    if not runs.runs[way[0]].starts or len(set(touched)) < len(touched):
        return None
    return tuple(way)


def _route(city: City, runs: list[Run], init_heading: int, marks: dict[int, Landmark]) -> Route:
    start = geocode_of(runs[0].points[0], city.origin)
    legs: list[Leg] = []
    for run in runs:
        begin, end = legs[-1].end if legs else start, geocode_of(run.points[-1], city.origin)
        heading = round(bearing(point_of(begin, city.origin), point_of(end, city.origin))) % 360
        mark = run.target or marks.get(run.crossings[-1])
        legs.append(
            Leg(heading=heading, distance_m=round(metres(begin, end), 1), landmark=_told(mark, heading), end=end)
        )
    streets = ".".join(str(number) for run in runs for number in run.streets)
    return Route(id=f"{city.name}-{city.seed}-{streets}-{init_heading}", start=start, init_heading=init_heading,
                 destination=runs[-1].target.name if runs[-1].target else "", legs=tuple(legs))  # fmt: skip


def _told(mark: Landmark | None, heading: int) -> str:
    """What is said of a landmark to somebody who arrives with that heading."""
    if mark is None:
        return prompts.NO_LANDMARK
    where = side(bearing(mark.anchor, mark.point), heading)
    return prompts.landmark(mark.name, where) if mark.street is None else prompts.destination(mark.name, where)
