"""Routes, and the file of the original that holds them: `[[route, …], k]`, read as it is and written too.

    start_place, dest_place   name, geocode, relocated_geocode
    init_heading              degrees the walker looks at first; 0 means any
    milestone_info            text of one block in braces for each leg, see `milestones`
    route_results             geocode_list: where each leg ends; landmark_list, distance_list

The original cuts the text at every "}" and at the first ":" of a line, and so breaks on a name that holds them. Here names
may hold whatever they like.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import Repr
from typing import Any

from envs.base import DataError
from envs.virl import milestones

Geocode = tuple[float, float]
"""Latitude and longitude in degrees."""

COMPASS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")
_NUMBER = re.compile(r"\s*(-?[0-9]+(?:\.[0-9]+)?)")
_HALF = re.compile("[\ud800-\udfff]")  # half a pair of UTF-16, which JSON can name and nothing can print
_LONGEST_M = 1_000_000
_shown = Repr()  # bounded, whatever a file holds
_shown.maxstring = _shown.maxother = 60
_shown.maxlevel = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """From one turning point to the next."""

    heading: int  # degrees of travel, 0 is north, clockwise
    distance_m: float
    landmark: str  # what is observed at its end: "X is on your right front", "No landmark nearby"
    end: Geocode


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A way through a city, as somebody would be told it."""

    id: str
    start: Geocode
    init_heading: int  # degrees the walker looks before the first turn; 0 means any
    destination: str
    legs: tuple[Leg, ...]


def compass_word(heading: float) -> str:
    """The nearest of the eight words: 177 is "south"."""
    return COMPASS[math.floor(heading / 45 + 0.5) % 8]


# ---------------------------------------------------------------- reading


def read_routes(path: Path | str) -> tuple[Route, ...]:
    """Every route of a file.

    Raises:
        DataError: one sentence naming the file, the route by its number from 0, the field and the value that cannot be used.
    """
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: not JSON ({problem}); a route file is [[route, ...], k]") from None
    if not isinstance(data, list) or len(data) != 2 or not isinstance(data[0], list):
        seen = f"a list of {len(data)}" if isinstance(data, list) and len(data) != 2 else _shown.repr(data)
        raise DataError(f"{path}: {seen}; a route file is a list of two, the routes and a number: [[route, ...], k]")
    if not data[0]:
        raise DataError(f"{path}: holds no routes")
    return tuple(_Reader(f"{path}: route {number}").route(row, number) for number, row in enumerate(data[0]))


class _Reader:
    """Reads one route; every complaint begins with `where`."""

    def __init__(self, where: str):
        self._where = where

    def route(self, row: Any, number: int) -> Route:
        row = self._object(row, "the route")
        destination = self._object(row.get("dest_place"), "dest_place")
        return Route(
            id=self._text(row["id"], "id") if isinstance(row.get("id"), str) else f"route-{number}",
            start=self._geocode(
                self._object(row.get("start_place"), "start_place").get("geocode"), "start_place.geocode"
            ),
            init_heading=self._degrees(row.get("init_heading"), "init_heading"),
            destination=self._text(destination.get("name"), "dest_place.name"),
            legs=self._legs(row.get("milestone_info"), self._object(row.get("route_results"), "route_results")),
        )

    def _legs(self, told: Any, results: Mapping[str, Any]) -> tuple[Leg, ...]:
        if not isinstance(told, str):
            raise self._refusal("milestone_info", told, "text with one block in braces for each leg")
        ends, blocks = results.get("geocode_list"), milestones.read(told)
        if not isinstance(ends, list):
            raise self._refusal("route_results.geocode_list", ends, "a list")
        if not blocks or len(blocks) != len(ends):
            raise DataError(
                f"{self._where}: milestone_info holds {len(blocks)} blocks and route_results.geocode_list {len(ends)} "
                "geocodes; each leg has one of both, and there is at least one leg"
            )
        exact = results.get("distance_list")
        distances = exact if isinstance(exact, list) and len(exact) == len(ends) else [None] * len(ends)
        return tuple(self._leg(i, *parts) for i, parts in enumerate(zip(blocks, ends, distances, strict=True)))

    def _leg(self, number: int, block: Mapping[str, Any], end: Any, exact: Any) -> Leg:
        """`exact` is the distance of distance_list, for which the block's stands in where it is no number."""
        name = f"milestone_info[{number}]"
        told = block.get(milestones.DISTANCE)
        metres = float(exact) if _is_number(exact) else self._number(told, f"{name}.{milestones.DISTANCE}")
        if not 0 <= metres <= _LONGEST_M:
            raise self._refusal(f"{name}.{milestones.DISTANCE}", metres, f"metres from 0 to {_LONGEST_M:,}")
        return Leg(
            heading=self._degrees(block.get(milestones.HEADING), f"{name}.{milestones.HEADING}"),
            distance_m=metres,
            landmark=self._text(block.get(milestones.LANDMARK), f"{name}.{milestones.LANDMARK}"),
            end=self._geocode(end, f"route_results.geocode_list[{number}]"),
        )

    def _geocode(self, value: Any, name: str) -> Geocode:
        usable = isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
        if not usable or abs(value[0]) > 90 or abs(value[1]) > 180:
            raise self._refusal(name, value, "[latitude, longitude] in degrees")
        return float(value[0]), float(value[1])

    def _degrees(self, value: Any, name: str) -> int:
        return int(self._number(value, name)) % 360

    def _number(self, value: Any, name: str) -> float:
        if isinstance(value, str) and (found := _NUMBER.match(value[:40])):
            return float(found[1])
        if not _is_number(value):
            raise self._refusal(name, value, 'a number, or text that begins with one, as "177 (south)"')
        return float(value)

    def _text(self, value: Any, name: str) -> str:
        if not isinstance(value, str) or not value.strip() or _HALF.search(value):
            raise self._refusal(name, value, "text, of whole characters")
        return value

    def _object(self, value: Any, name: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self._refusal(name, value, "an object")
        return value

    def _refusal(self, field: str, value: Any, allowed: str) -> DataError:
        seen = "missing" if value is None else _shown.repr(value)
        return DataError(f"{self._where}: {field} is {seen}; it must be {allowed}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


# ---------------------------------------------------------------- writing


def write_routes(path: Path | str, routes: Sequence[Route], k: int = 0) -> Path:
    """Write routes in the original's format; `read_routes` gives them back exactly.

    Args:
        k: the file's second element, which the original keeps for its collector and never reads.

    Raises:
        DataError: the file cannot be written.
    """
    path = Path(path)
    text = json.dumps([[_row(route) for route in routes], k], ensure_ascii=False, indent=1)
    try:
        path.write_bytes(text.encode())  # encoded first, so that what cannot be written spoils no file
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return path


def _row(route: Route) -> dict[str, Any]:
    start, end = list(route.start), list(route.legs[-1].end)
    return {
        "id": route.id,
        "start_place": {"geocode": start, "relocated_geocode": start},
        "dest_place": {"name": route.destination, "geocode": end, "relocated_geocode": end},
        "route_results": {
            "geocode_list": [list(leg.end) for leg in route.legs],
            "landmark_list": [
                None if leg.landmark == milestones.NO_LANDMARK else {"name": leg.landmark} for leg in route.legs
            ],
            "distance_list": [leg.distance_m for leg in route.legs],
        },
        "init_heading": route.init_heading,
        "instruction": "",
        "milestone_info": milestones.write([_block(route, number) for number in range(len(route.legs))]),
    }


def _block(route: Route, number: int) -> dict[str, Any]:
    leg = route.legs[number]
    facing = route.legs[number - 1].heading if number else route.init_heading
    return {
        "intersection_idx": number,
        milestones.LANDMARK: leg.landmark,
        milestones.DISTANCE: f"{round(leg.distance_m)} meters",
        "human_heading": f"{facing} ({compass_word(facing)})",
        milestones.HEADING: f"{leg.heading} ({compass_word(leg.heading)})",
    }
