"""Cities of our own: streets, crossings and landmarks that depend on a name and a seed alone.

    city_plans ─► City ─► city_routes ─► routes.Route       streets ─► pictures
                   ▲ landmarks

`gridport` is the training city. The others differ from it in plan, style and names, and are never trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import hypot
from random import Random
from typing import TYPE_CHECKING

from envs.base import ConfigError, DataError, seed_of
from envs.virl.city_ground import Geocode, Point, bearing, between, distance, geocode_of, point_of
from envs.virl.landmarks import NEAR, WORDS, Landmark, placed

if TYPE_CHECKING:
    import numpy as np
    from networkx import Graph

    from envs.virl.routes import Route

__all__ = ["NAMES", "TRAINED", "WORDS", "City", "Place", "city", "routes"]

TRAINED = "gridport"
ORIGINS: dict[str, Geocode] = {
    "gridport": (40.72, -73.98),
    "oldtown": (45.46, 9.18),
    "ringhaven": (52.37, 4.89),
    "hillcrest": (37.77, -122.44),
}
NAMES = tuple(ORIGINS)

_REACH = {"gridport": 11.0, "oldtown": 8.0, "ringhaven": 11.5, "hillcrest": 10.5}  # metres from a crossing to its sign
_AT_NODE = 1.5  # metres
_LONGEST_WAY_OFF = 100.0  # metres that a place may be off the streets


@dataclass(frozen=True, slots=True)
class Place:
    """A point on a street: where pictures are taken."""

    point: Point
    node: int | None  # the node it is, where it is one
    piece: tuple[int, int]  # the two nodes it lies between, or one such pair
    landmark: Landmark | None  # the one that is near


@dataclass(frozen=True, eq=False)
class City:
    """A street plan with landmarks. Nodes of `plan` have a `point` in metres and a `geocode`, its edges a `length` in metres
    and a `bearing` from the lower to the higher node in degrees. `streets` are nodes from one crossing to the next."""

    name: str
    seed: int
    plan: "Graph"
    streets: tuple[tuple[int, ...], ...]
    landmarks: tuple[Landmark, ...]

    @property
    def origin(self) -> Geocode:
        return ORIGINS[self.name]

    def place(self, geocode: Sequence[float]) -> Place:
        """The point of the streets nearest to a geocode: a node where one is within 1.5 m.

        Raises:
            DataError: there is no street within 100 m.
        """
        import numpy as np

        x, y = point_of(geocode, self.origin)
        ends, begins, along, lengths = self._pieces
        away = np.array([x, y]) - begins
        share = np.clip((away * along).sum(1) / lengths**2, 0, 1)
        off = away - share[:, None] * along
        index = int((off**2).sum(1).argmin())
        if not hypot(*off[index]) <= _LONGEST_WAY_OFF:
            raise DataError(
                f"{geocode[0]:.6f},{geocode[1]:.6f} is no place in {self.name}: its streets are over 100 m away"
            )
        first, second = ends[index]
        metres = float(share[index] * lengths[index])
        node = first if metres < _AT_NODE else second if lengths[index] - metres < _AT_NODE else None
        if node is not None:
            point: Point = self.plan.nodes[node]["point"]
        else:
            point = between(self.plan.nodes[first]["point"], self.plan.nodes[second]["point"], float(share[index]))
        return Place(point, node, (first, second), self.near(point))

    def near(self, point: Point) -> Landmark | None:
        """The landmark whose anchor is within 2 m; there is never more than one."""
        close = [mark for mark in self.landmarks if distance(mark.anchor, point) <= NEAR]
        return close[0] if close else None

    @cached_property
    def _pieces(self) -> tuple[list[tuple[int, int]], "np.ndarray", "np.ndarray", "np.ndarray"]:
        """Every edge of the plan: its nodes, where it begins, the vector along it, and its length."""
        import numpy as np

        ends = list(self.plan.edges)
        begins = np.array([self.plan.nodes[a]["point"] for a, _ in ends])
        along = np.array([self.plan.nodes[b]["point"] for _, b in ends]) - begins
        return ends, begins, along, np.hypot(*along.T)


@lru_cache(maxsize=16)
def city(name: str, seed: int = 0) -> City:
    """The city of that name and seed. Equal calls return the same object.

    Raises:
        ConfigError: no city has that name.
    """
    if name not in NAMES:
        raise ConfigError(f"city {name[:40]!r} is unknown; known cities are {', '.join(NAMES)}")
    from envs.virl.city_plans import PLANS, chains

    origin = ORIGINS[name]
    plan = PLANS[name](Random(seed_of("virl plan", name, seed)))
    for _, node in plan.nodes(data=True):
        node["geocode"] = geocode_of(node["point"], origin)
        node["point"] = point_of(node["geocode"], origin)
    for a, b, edge in plan.edges(data=True):
        start, end = plan.nodes[min(a, b)]["point"], plan.nodes[max(a, b)]["point"]
        edge["length"], edge["bearing"] = distance(start, end), bearing(start, end)
    streets = tuple(chains(plan))
    draw = Random(seed_of("virl landmarks", name, seed))
    marks = placed(plan, streets, trained=name == TRAINED, origin=origin, reach=_REACH[name], draw=draw)
    return City(name, seed, plan, streets, marks)


def routes(where: City, *, count: int, seed: int = 0, legs: tuple[int, int] = (2, 4)) -> "tuple[Route, ...]":
    """`count` distinct routes with that many legs, from the lowest number to the highest. See `city_routes`."""
    from envs.virl import city_routes

    return city_routes.routes(where, count=count, seed=seed, legs=legs)
