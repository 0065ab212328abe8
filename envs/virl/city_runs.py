"""Straight runs through a city, from one point where somebody turns to the next: what routes are made of.

A run begins at a crossing or in the middle of a street, and ends at a crossing or at a landmark in the middle of a street. Its
pieces differ from its whole by 25 degrees at most, so that a curve may belong to it, and it passes no landmark: the first
one seen on a run is the one at its end. The middle of a street where a route starts has none either.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from envs.virl.cities import City
from envs.virl.city_ground import Point, bearing, distance, turn
from envs.virl.landmarks import Landmark, middle

_STRAIGHT = 25.0  # degrees
_SHORTEST = 25.0  # metres
_MOST_STREETS = 4  # of a run
_SHARPEST, _SLIGHTEST = 150.0, 30.0  # degrees of a turn between two runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A way straight on. `crossings` are those it touches, its ends among them; `streets` are numbers of the city's."""

    points: tuple[Point, ...]
    crossings: tuple[int, ...]
    streets: tuple[int, ...]
    starts: bool = False  # in the middle of a street
    target: Landmark | None = None  # along the last street, where it ends

    @property
    def heading(self) -> int:
        """Degrees from the first point to the last, as somebody would write them: 0 to 359."""
        return round(bearing(self.points[0], self.points[-1])) % 360

    @property
    def length(self) -> float:
        return distance(self.points[0], self.points[-1])


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of a city by what they can be in a route, and for each those that may come before it, by its number."""

    runs: tuple[Run, ...]
    last: tuple[int, ...]  # those that end at a landmark along a street
    first_before: tuple[tuple[int, ...], ...]  # those that start in the middle of a street
    inner_before: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=16)
def runs_of(city: City) -> Runs:
    runs = tuple(run for run in _all_runs(city) if run.length >= _SHORTEST)
    ending: dict[int, list[int]] = {}
    for number, run in enumerate(runs):
        if run.target is None:
            ending.setdefault(run.crossings[-1], []).append(number)
    before = []
    for run in runs:
        candidates = [] if run.starts else ending.get(run.crossings[0], [])
        before.append([number for number in candidates if _follows(runs[number], run)])
    return Runs(
        runs=runs,
        last=tuple(number for number, run in enumerate(runs) if run.target is not None),
        first_before=tuple(tuple(n for n in numbers if runs[n].starts) for numbers in before),
        inner_before=tuple(tuple(n for n in numbers if not runs[n].starts) for numbers in before),
    )


def _follows(before: Run, after: Run) -> bool:
    """Whether there is a real turn from one run into the other, and no way back."""
    angle = abs(turn(before.heading, after.heading))
    apart = not set(before.streets) & set(after.streets) and not set(before.crossings) & set(after.crossings[1:])
    return apart and _SLIGHTEST <= angle <= _SHARPEST


def _all_runs(city: City) -> Iterator[Run]:
    marked_nodes = {mark.node for mark in city.landmarks}
    marks = {mark.street: mark for mark in city.landmarks if mark.street is not None}
    points = {node: data["point"] for node, data in city.plan.nodes(data=True)}
    leaving: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    for number, street in enumerate(city.streets):
        leaving.setdefault(street[0], []).append((number, street))
        leaving.setdefault(street[-1], []).append((number, street[::-1]))

    def half(street: tuple[int, ...]) -> list[Point]:
        """From a street's beginning to its middle, where its landmark is."""
        forth = street[0] < street[-1]
        centre, _ = middle([points[node] for node in (street if forth else street[::-1])])
        before = (len(street) - 2) // 2
        return [*(points[node] for node in street[: (before if forth else len(street) - 2 - before) + 1]), centre]

    def grown(run: Run) -> Iterator[Run]:
        """The run, if it can end at its last crossing, and those that go on from there."""
        node = run.crossings[-1]
        if not _is_straight(run.points) or city.plan.degree(node) < 3:
            return
        if run.streets:
            yield run
        if (run.streets and node in marked_nodes) or len(run.streets) == _MOST_STREETS:
            return
        for number, street in leaving[node]:
            streets = (*run.streets, number)
            if number in marks:
                points_there = (*run.points, *half(street)[1:])
                if _is_straight(points_there):
                    yield Run(points=points_there, crossings=run.crossings, streets=streets, starts=run.starts,
                              target=marks[number])  # fmt: skip
            elif number not in run.streets:
                along = (*run.points, *(points[n] for n in street[1:]))
                yield from grown(Run(points=along, crossings=(*run.crossings, street[-1]), streets=streets,
                                     starts=run.starts))  # fmt: skip

    for node in leaving:
        yield from grown(Run(points=(points[node],), crossings=(node,), streets=()))
    for number, street in enumerate(city.streets):
        if number not in marks:
            for way in (street, street[::-1]):
                out = tuple(half(way)[::-1])
                yield from grown(Run(points=out, crossings=(way[0],), streets=(number,), starts=True))


def _is_straight(points: tuple[Point, ...]) -> bool:
    if len(points) < 3:
        return True
    whole = bearing(points[0], points[-1])
    return all(abs(turn(whole, bearing(a, b))) <= _STRAIGHT for a, b in pairwise(points))
