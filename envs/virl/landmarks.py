"""Landmarks: their names, where they stand, and on which side of somebody who arrives.

A name is a colour, an emblem and a trade: "Blue Lantern Cafe". All 384 combinations are two halves of 192: the training city
has one half, the others share the other, so that a name in an unseen city is made of known words and was never read whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from random import Random
from typing import TYPE_CHECKING

from envs.virl.city_ground import Geocode, Point, ahead, bearing, between, distance, geocode_of, point_of
from envs.virl.prompts import SPATIAL

if TYPE_CHECKING:
    from networkx import Graph

COLOURS = ("Red", "Orange", "Golden", "Green", "Teal", "Blue", "Violet", "Pink")
EMBLEMS = (" Swan", " Raven", " Lantern")
TRADES = (
    " Cafe", " Bakery", " Hotel", " Theatre", " Museum", " Library", " Pharmacy", " Bank",
    " Market", " Gallery", " Cinema", " Florist", " Tavern", " Garage", " Tailor", " Jeweller",
)  # fmt: skip
WORDS: tuple[str, ...] = COLOURS + EMBLEMS + TRADES
"""The words of all names. A name is three of them, joined as they are."""

NEAR = 2.0  # metres from its anchor within which a landmark is seen: the steps of a route are further apart
_CORNER_SHARE, _STREET_SHARE = 0.62, 0.32  # of crossings and of streets that have a landmark
_OFF_STREET = 27.0  # degrees between a corner's sign and the nearest street, at most
_LEAST_GAP = 56.0  # degrees between two streets with a sign between them
_WIDE_GAP = 150.0  # degrees: here a sign may stand in the middle
_LEAST_STREET = 60.0  # metres of a street with a landmark along it
_ASKEW = 12.0  # degrees that such a sign is off a right angle to the street, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Landmark:
    """A named place with a sign.

    `anchor` is the point of a street's middle line that it belongs to: a crossing, or the middle of a street. The sign is
    read from there and stands a few metres off, at `point`.
    """

    name: str
    point: Point
    geocode: Geocode
    anchor: Point
    node: int | None  # the crossing it stands at; None along a street
    street: int | None  # the number of the street it stands along; None at a crossing


def names(*, trained: bool) -> list[str]:
    """The 192 names of the training city, or the 192 of all others, in a fixed order."""
    words = product(range(len(COLOURS)), range(len(EMBLEMS)), range(len(TRADES)))
    return [COLOURS[c] + EMBLEMS[e] + TRADES[t] for c, e, t in words if (c + e + t) % 2 == (not trained)]


def parts(name: str) -> tuple[int, int, int]:
    """The numbers of a name's colour, emblem and trade: what its sign is drawn from."""
    colour, emblem, trade = name.split(" ")
    return COLOURS.index(colour), EMBLEMS.index(f" {emblem}"), TRADES.index(f" {trade}")


def side(towards: float, heading: float) -> str:
    """Where something at the bearing `towards` is for somebody who faces `heading`: one of eight words, 45 degrees each."""
    return SPATIAL[round((towards - heading) % 360 / 45) % 8]


def placed(plan: "Graph", streets: Sequence[tuple[int, ...]], *, trained: bool, origin: Geocode, reach: float,
           draw: Random) -> tuple[Landmark, ...]:  # fmt: skip
    """Landmarks at crossings and along streets, each name once. Signs are `reach` metres from crossings."""
    left = names(trained=trained)
    draw.shuffle(left)
    spots = [*_corners(plan, reach, draw), *_fronts(plan, streets, reach, draw)]
    draw.shuffle(spots)
    found = []
    for name, (anchor, sign, node, street) in zip(left, spots, strict=False):
        geocode = geocode_of(sign, origin)
        found.append(Landmark(name=name, point=point_of(geocode, origin), geocode=geocode, anchor=anchor, node=node,
                              street=street))  # fmt: skip
    return tuple(found)


Spot = tuple[Point, Point, int | None, int | None]  # anchor, sign, crossing, street


def _corners(plan: "Graph", reach: float, draw: Random) -> Iterator[Spot]:
    for node in plan:
        anchor = plan.nodes[node]["point"]
        ways = sorted(bearing(anchor, plan.nodes[other]["point"]) for other in plan[node])
        if len(ways) < 3 or draw.random() > _CORNER_SHARE:
            continue
        choices = []
        for right, left in pairwise([*ways, ways[0] + 360]):
            gap = left - right
            off = min(_OFF_STREET, gap / 2)
            choices += [right + off, left - off] if gap >= _LEAST_GAP else []
            choices += [right + gap / 2] if gap >= _WIDE_GAP else []
        if choices:
            yield anchor, ahead(anchor, draw.choice(choices), reach), node, None


def _fronts(plan: "Graph", streets: Sequence[tuple[int, ...]], reach: float, draw: Random) -> Iterator[Spot]:
    for number, street in enumerate(streets):
        points = [plan.nodes[node]["point"] for node in street]
        if sum(distance(a, b) for a, b in pairwise(points)) < _LEAST_STREET or draw.random() > _STREET_SHARE:
            continue
        anchor, along = middle(points)
        towards = along + draw.choice((-90, 90)) + draw.uniform(-_ASKEW, _ASKEW)
        yield anchor, ahead(anchor, towards, 0.75 * reach), None, number


def middle(points: Sequence[Point]) -> tuple[Point, float]:
    """The point in the middle of a street's middle piece, and the bearing there."""
    first = (len(points) - 2) // 2
    return between(points[first], points[first + 1], 0.5), bearing(points[first], points[first + 1])
