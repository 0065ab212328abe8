"""Routes, and the file of the original that holds them: `[[route, …], k]`, read as it is and written too.

    route   start_place, dest_place {name, geocode, relocated_geocode}, init_heading, milestone_info, route_results
    milestone_info   text of one block in braces for each leg: landmarks, distance, to_next_intersection_heading
    route_results    geocode_list: where each leg ends; landmark_list, distance_list

The original cuts the text at every "}" and at the first ":" of a line, and so breaks on a name that holds them. Here each
block is read as JSON and, where it is none, line by line; names may hold whatever they like.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.base import DataError

Geocode = tuple[float, float]
"""Latitude and longitude in degrees."""

COMPASS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")
_HEADING = "to_next_intersection_heading"
_FIELDS = ("intersection_idx", "landmarks", "distance", "human_heading", _HEADING)
_NUMBER = re.compile(r"\s*(-?\d+(?:\.\d+)?)")
_LINE = re.compile(r'\s*"?([a-z_]+)"?\s*:\s*(.*?)\s*,?\s*$')
_decode = json.JSONDecoder()


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
        DataError: one sentence naming the file, the route, the field and the value that cannot be used.
    """
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not JSON ({' '.join(str(error).split())[:120]}); a route file is [[route, ...], k]"
        ) from None
    if not isinstance(data, list) or not data or not isinstance(data[0], list):
        raise DataError(f"{path}: a {type(data).__name__}; a route file is a list of two: [[route, ...], k]")
    if not data[0]:
        raise DataError(f"{path}: holds no routes")
    return tuple(_Reader(f"{path}: route {number}").route(row, number) for number, row in enumerate(data[0]))


class _Reader:
    """Reads one route; every complaint begins with `where`."""

    def __init__(self, where: str):
        self._where = where

    def route(self, row: Any, number: int) -> Route:
        row = self._mapping(row, "route")
        results = self._mapping(row.get("route_results"), "route_results")
        ends = self._list(results.get("geocode_list"), "route_results.geocode_list")
        blocks = self._milestones(row.get("milestone_info"))
        if not blocks or len(blocks) != len(ends):
            raise self._refusal(
                "milestone_info", f"{len(blocks)} blocks",
                f"one block for each of the {len(ends)} geocodes in route_results.geocode_list, and at least one",
            )  # fmt: skip
        distances = results.get("distance_list")
        exact = distances if isinstance(distances, list) and len(distances) == len(ends) else [None] * len(ends)
        return Route(
            id=row["id"] if isinstance(row.get("id"), str) else f"route-{number}",
            start=self._place(row, "start_place"),
            init_heading=int(self._number(row.get("init_heading"), "init_heading")) % 360,
            destination=self._text(self._mapping(row.get("dest_place"), "dest_place").get("name"), "dest_place.name"),
            legs=tuple(
                self._leg(block, end, metres, f"milestone_info[{i}]", f"route_results.geocode_list[{i}]")
                for i, (block, end, metres) in enumerate(zip(blocks, ends, exact, strict=True))
            ),
        )

    def _leg(self, block: Mapping[str, Any], end: Any, metres: Any, name: str, place: str) -> Leg:
        told = self._number(block.get("distance"), f"{name}.distance")
        distance = metres if _is_number(metres) else told
        if not 0 <= distance < 1e6:
            raise self._refusal(f"{name}.distance", distance, "metres from 0 to a million")
        return Leg(
            heading=int(self._number(block.get(_HEADING), f"{name}.{_HEADING}")) % 360,
            distance_m=float(distance),
            landmark=self._text(block.get("landmarks"), f"{name}.landmarks"),
            end=self._geocode(end, place),
        )

    def _milestones(self, text: Any) -> list[Mapping[str, Any]]:
        if not isinstance(text, str):
            raise self._refusal("milestone_info", text, "text with one block in braces for each leg")
        blocks = _json_blocks(text)
        return blocks if blocks is not None else _line_blocks(text)

    def _place(self, row: Mapping[str, Any], name: str) -> Geocode:
        place = self._mapping(row.get(name), name)
        return self._geocode(place.get("geocode"), f"{name}.geocode")

    def _geocode(self, value: Any, name: str) -> Geocode:
        usable = isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))
        if not usable or abs(value[0]) > 90 or abs(value[1]) > 360:
            raise self._refusal(name, value, "[latitude, longitude] in degrees")
        return float(value[0]), float(value[1])

    def _number(self, value: Any, name: str) -> float:
        if isinstance(value, str) and (found := _NUMBER.match(value[:40])):
            return float(found[1])
        if not _is_number(value):
            raise self._refusal(name, value, 'a number, or text that begins with one, as "177 (south)"')
        return float(value)

    def _text(self, value: Any, name: str) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self._refusal(name, value, "text")
        return value

    def _mapping(self, value: Any, name: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self._refusal(name, value, "an object")
        return value

    def _list(self, value: Any, name: str) -> list[Any]:
        if not isinstance(value, list):
            raise self._refusal(name, value, "a list")
        return value

    def _refusal(self, field: str, value: Any, allowed: str) -> DataError:
        seen = value if isinstance(value, str) and value.endswith("blocks") else f"{value!r:.60}"
        return DataError(f"{self._where}: {field} is {seen}; it must be {allowed}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _json_blocks(text: str) -> list[Mapping[str, Any]] | None:
    """The blocks where each is a JSON object; None where one is not."""
    blocks: list[Mapping[str, Any]] = []
    place = 0
    while place < len(text):
        if text[place].isspace() or text[place] == ",":
            place += 1
            continue
        try:
            block, place = _decode.raw_decode(text, place)
        except (ValueError, RecursionError):
            return None
        if not isinstance(block, dict):
            return None
        blocks.append(block)
    return blocks


def _line_blocks(text: str) -> list[Mapping[str, Any]]:
    """The blocks as the original's model wrote them: a field a line, quotes and braces in names left as they are."""
    blocks: list[dict[str, Any]] = []
    for line in text.splitlines():
        found = _LINE.match(line)
        if line.strip().startswith("{"):
            blocks.append({})
        elif found and found[1] in _FIELDS and blocks:
            blocks[-1][found[1]] = _unquoted(found[2])
    return [block for block in blocks if block]


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


# ---------------------------------------------------------------- writing


def write_routes(path: Path | str, routes: Sequence[Route], *, k: int = 0) -> Path:
    """Write routes in the original's format; `read_routes` gives them back exactly.

    Args:
        k: the file's second element, which the original keeps for its collector and never reads.
    """
    path = Path(path)
    path.write_text(json.dumps([[_row(route) for route in routes], k], ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def _row(route: Route) -> dict[str, Any]:
    last = route.legs[-1]
    return {
        "id": route.id,
        "start_place": {"geocode": list(route.start), "relocated_geocode": list(route.start)},
        "dest_place": {"name": route.destination, "geocode": list(last.end), "relocated_geocode": list(last.end)},
        "route_results": {
            "geocode_list": [list(leg.end) for leg in route.legs],
            "landmark_list": [{"name": leg.landmark} for leg in route.legs],
            "distance_list": [leg.distance_m for leg in route.legs],
        },
        "init_heading": route.init_heading,
        "instruction": "",
        "milestone_info": "\n".join(_block(route, number) for number in range(len(route.legs))),
    }


def _block(route: Route, number: int) -> str:
    leg = route.legs[number]
    facing = route.legs[number - 1].heading if number else route.init_heading
    fields = {
        "intersection_idx": number,
        "landmarks": leg.landmark,
        "distance": f"{round(leg.distance_m)} meters",
        "human_heading": f"{facing} ({compass_word(facing)})",
        _HEADING: f"{leg.heading} ({compass_word(leg.heading)})",
    }
    return json.dumps(fields, ensure_ascii=False, indent=0)
