"""The ground of streets: pavements, kerbs, roadways, their lines and crossings, as flat faces in the order they are drawn."""

from collections.abc import Collection
from functools import lru_cache
from math import cos, pi, radians, sin, tan

import numpy as np

from envs.virl.cities import City
from envs.virl.city_ground import Point, bearing, distance
from envs.virl.streets_styles import STYLES, Colour, mixed

Layer = tuple[np.ndarray, np.ndarray]  # faces and their colours

_LAYERS = 4  # pavements, kerbs, roadways, lines
_NEAR = 90.0  # metres within which lines are drawn
_DASH, _DASH_GAP = 3.0, 5.0
_BAR, _BARS_DEEP = 0.55, 3.0  # of a crossing for people


def faces(city: City, pieces: Collection[tuple[int, int]], eye: Point) -> list[Layer]:
    """Everything on the ground of these pieces of streets, layer by layer."""
    layers: list[list[Layer]] = [[] for _ in range(_LAYERS)]
    for piece in pieces:
        if piece[0] > piece[1]:
            continue
        near = min(distance(eye, city.plan.nodes[node]["point"]) for node in piece) < _NEAR
        for layer, found in zip(layers, piece_faces(city, piece), strict=True):
            if found is not None and (near or layer is not layers[-1]):
                layer.append(found)
    for node in {node for piece in pieces for node in piece}:
        for layer, found in zip(layers, node_faces(city, node), strict=False):
            layer.append(found)
    return [found for layer in layers for found in layer]


@lru_cache(maxsize=4096)
def piece_faces(city: City, piece: tuple[int, int]) -> tuple[Layer | None, ...]:
    """The layers of one piece of street."""
    style = STYLES[city.name]
    here, there = (city.plan.nodes[node]["point"] for node in piece)
    strip = _Strip(here, there)
    pavement = strip.layer([(0, strip.length, -style.walk, style.walk, style.pavement)])
    edge = style.road + 0.25
    kerb = strip.layer([(0, strip.length, -edge, edge, style.kerb)])
    road: list[_Patch] = [(0, strip.length, -style.road, style.road, style.roadway)]
    worn = mixed(style.roadway, style.pavement, 0.1)
    road += [(0, strip.length, off - 0.35, off + 0.35, worn) for off in (-2.9, -1.5, 1.5, 2.9) if style.road > 4]
    if style.lane:
        for side in (-1, 1):
            inner, outer = sorted((side * (style.road - 1.7), side * (style.road - 0.15)))
            road.append((0, strip.length, inner, outer, style.lane))
    begin, end = (_open(city, node, other) for node, other in (piece, piece[::-1]))
    lines = _lines(city.name, begin, strip.length - end)
    for crossing, at in ((piece[0], begin), (piece[1], strip.length - end - _BARS_DEEP)):
        if style.crossing and city.plan.degree(crossing) > 2:
            bars = int(2 * style.road / (2 * _BAR))
            lines += [(at, at + _BARS_DEEP, -style.road + 2 * _BAR * (bar + 0.25), -style.road + 2 * _BAR * (bar + 0.75),
                       style.crossing) for bar in range(bars)]  # fmt: skip
    return pavement, kerb, strip.layer(road), strip.layer(lines) if lines else None


@lru_cache(maxsize=4096)
def node_faces(city: City, node: int) -> tuple[Layer, ...]:
    """Where streets meet: round pavement, kerb and roadway, so that no gap is left between them."""
    style = STYLES[city.name]
    middle = city.plan.nodes[node]["point"]
    wide = max(1.0, max((_open(city, node, other) / style.road for other in city.plan[node]), default=1.0) * 0.7)
    rounds = (
        (style.walk * 1.02, style.pavement),
        (style.road * wide + 0.25, style.kerb),
        (style.road * wide, style.roadway),
    )
    return tuple(_round(middle, radius, colour) for radius, colour in rounds)


_Patch = tuple[float, float, float, float, Colour]  # begin and end along the street, left and right of its middle


class _Strip:
    def __init__(self, here: Point, there: Point) -> None:
        self.length = distance(here, there)
        self._here = here
        self._along = (there[0] - here[0]) / self.length, (there[1] - here[1]) / self.length

    def layer(self, patches: list[_Patch]) -> Layer:
        begin, end, left, right = np.array([patch[:4] for patch in patches]).T
        along, off = np.stack([begin, begin, end, end], 1), np.stack([left, right, right, left], 1)
        east = self._here[0] + along * self._along[0] + off * self._along[1]
        north = self._here[1] + along * self._along[1] - off * self._along[0]
        colours = np.array([patch[-1] for patch in patches], float)
        return np.stack([east, north, np.zeros_like(east)], -1), colours


def _lines(name: str, begin: float, end: float) -> list[_Patch]:
    style = STYLES[name]
    if style.middle_line == "double":
        clear = _BARS_DEEP + 1
        return (
            [(begin + clear, end - clear, off, off + 0.18, style.lines) for off in (-0.3, 0.12)]
            if end - begin > 9
            else []
        )
    if style.middle_line == "dashed":
        clear = _BARS_DEEP + 1 if style.crossing else 0.0
        count = int((end - begin - 2 * clear) // (_DASH + _DASH_GAP))
        starts = [begin + clear + _DASH_GAP / 2 + n * (_DASH + _DASH_GAP) for n in range(count)]
        return [(at, at + _DASH, -0.12, 0.12, style.lines) for at in starts]
    gutters: list[_Patch] = [
        (begin, end, off, off + 0.3, style.lines) for off in (-style.road * 0.72, style.road * 0.72 - 0.3)
    ]
    pale = mixed(style.lines, style.roadway, 0.5)
    rows: list[_Patch] = [
        (at, at + 0.22, -style.road * 0.7, style.road * 0.7, pale) for at in np.arange(begin, end, 1.7).tolist()
    ]
    return rows + gutters


def _open(city: City, node: int, other: int) -> float:
    """Metres from a node to where the roadway of a piece is its own."""
    here = city.plan.nodes[node]["point"]
    own = bearing(here, city.plan.nodes[other]["point"])
    others = [bearing(here, city.plan.nodes[n]["point"]) for n in city.plan[node] if n != other]
    gap = min((abs((own - b + 180) % 360 - 180) for b in others), default=180.0)
    road = STYLES[city.name].road
    return min(max(road / tan(radians(max(gap, 30) / 2)), 0.0), 3 * road)


def _round(middle: Point, radius: float, colour: Colour) -> Layer:
    turns = [2 * pi * n / 18 for n in range(19)]
    edge = [(middle[0] + radius * cos(turn), middle[1] + radius * sin(turn), 0.0) for turn in turns]
    corners = [((*middle, 0.0), edge[n], edge[n + 1], edge[n + 2]) for n in range(0, 18, 2)]
    return np.array(corners), np.array([colour] * len(corners), float)
