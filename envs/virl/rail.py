"""The oracle's way along a route: every position with what is observed there and the right action. Pure.

    start ─ turn ─► forward … ─► intersection ─ turn ─► forward … ─► destination ─ stop

The walker never leaves the rail: a correct action moves to the next position, a wrong one stays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from envs.base import seed_of
from envs.virl import prompts
from envs.virl.city_ground import distance, point_of
from envs.virl.routes import Geocode, Leg, Route, compass_word

SHORT_LEG_M = 5.0  # no step fits on a leg this short
CLEAR_OF_ENDS_M = 8.0  # a step that is moved to a panorama keeps this far from both ends of its leg

Snap = Callable[[Geocode], Geocode | None]
"""Moves a geocode to where there is a panorama; None where none is near."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """One entry of the rail."""

    action: str
    observation: str  # of the landmark
    intersection: str  # "You observe an intersection", or nothing
    instruction: str
    instruction_idx: int
    heading: int  # on arrival, in degrees
    geocode: Geocode


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How a rail is laid along a route."""

    actions: str = "absolute"
    straight_line_length: int = 2  # steps along a leg
    drop_rate: float = 0.0  # chance of a step to be left out
    legacy_headings: bool = False
    legacy_legs: bool = False


def instructions_of(route: Route, *, legacy_headings: bool) -> tuple[str, ...]:
    """Two lines for each leg: turn, then move. They hold the relative and the absolute word, whatever the action space."""
    lines = []
    for number, (leg, before) in enumerate(zip(route.legs, _headings_before(route), strict=True)):
        relative = relative_word(before, leg.heading, legacy=legacy_headings)
        lines.append(prompts.turn_instruction(number == 0, relative, compass_word(leg.heading)))
        lines.append(prompts.move_instruction(leg.landmark, is_last=number == len(route.legs) - 1))
    return tuple(lines)


def relative_word(before: float, after: float, *, legacy: bool = False) -> str:
    """The turn between two headings: left, right, slightly left, slightly right.

    Args:
        legacy: as the original, which does not wrap the difference, so that 350 to 10 degrees is a turn to the left.
    """
    turned = after - before if legacy else 180 - (180 - (after - before)) % 360  # wrapped into (−180, 180]
    if turned < -45:
        return "left"
    if turned > 45:
        return "right"
    return "slightly left" if turned <= 0 else "slightly right"


def rail_of(route: Route, ways: Ways, *counters: int | str, snap: Snap | None = None) -> tuple[Position, ...]:
    """Every position of a route, in order; `counters` name the draws of dropped steps.

    Args:
        snap: where pictures exist; steps without one near are left out.
    """
    lines = instructions_of(route, legacy_headings=ways.legacy_headings)
    told = 0  # the line that is followed
    entries: list[Position] = []

    def add(action: str, seen: str, intersection: str, place: Geocode, heading: int) -> None:
        entries.append(
            Position(
                action=action, observation=seen, intersection=intersection, instruction=lines[told],
                instruction_idx=told, heading=heading, geocode=place,
            )
        )  # fmt: skip

    start, seen, intersection = route.start, prompts.NO_LANDMARKS, ""
    for number, (leg, before) in enumerate(zip(route.legs, _headings_before(route), strict=True)):
        relative = relative_word(before, leg.heading, legacy=ways.legacy_headings)
        word = compass_word(leg.heading) if ways.actions == "absolute" else relative
        add(prompts.turn(word), seen, intersection, start, before)
        is_short = leg.distance_m <= SHORT_LEG_M
        told += 0 if is_short and ways.legacy_legs else 1
        for place in [] if is_short else _steps(start, leg, ways, snap, "drop", *counters, number):
            add(prompts.FORWARD, prompts.NO_LANDMARKS, "", place, leg.heading)
        start, seen, intersection = leg.end, leg.landmark, prompts.AT_INTERSECTION
        if number < len(route.legs) - 1:
            told += 1
    add(prompts.STOP, seen, "", start, route.legs[-1].heading)
    return tuple(entries)


def _headings_before(route: Route) -> list[int]:
    return [route.init_heading, *(leg.heading for leg in route.legs[:-1])]


def _steps(start: Geocode, leg: Leg, ways: Ways, snap: Snap | None, *counters: int | str) -> list[Geocode]:
    """Where the walker steps along a leg: at equal distances, but for those that are left out."""
    count = ways.straight_line_length
    kept = [
        (start[0] + (leg.end[0] - start[0]) * share, start[1] + (leg.end[1] - start[1]) * share)
        for step in range(count)
        if not ways.drop_rate or seed_of(*counters, step) >= ways.drop_rate * 2**63
        for share in ((step + 1) / (count + 1),)
    ]
    return kept if snap is None else _snapped(kept, start, leg.end, snap, keep_doubles=ways.legacy_legs)


def _snapped(
    places: Sequence[Geocode], start: Geocode, end: Geocode, snap: Snap, *, keep_doubles: bool
) -> list[Geocode]:
    """The places where there are pictures, clear of both ends, each once unless `keep_doubles`."""
    found = [near for place in places if (near := snap(place)) is not None]
    clear = [
        near for near in found if all(distance(point_of(near, each), (0, 0)) > CLEAR_OF_ENDS_M for each in (start, end))
    ]
    return clear if keep_doubles else list(dict.fromkeys(clear))
