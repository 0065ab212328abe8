"""What stands beside streets and behind them: trees, lamps, the skyline and the clouds."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from math import cos, pi, radians, sin
from random import Random

import numpy as np

from envs.base import seed_of
from envs.virl.cities import City, Place
from envs.virl.city_ground import Point, ahead, bearing, distance
from envs.virl.streets_styles import STYLES, Colour, Style, mixed

Layer = tuple[np.ndarray, np.ndarray]
Group = tuple[float, np.ndarray, np.ndarray]  # metres away, faces and their colours

_AWAY = 600.0  # metres to the skyline
_CLOUDS_AWAY = 900.0
_SEEN = 140.0  # metres to trees and lamps
_SIGN_ROOM = 6.5  # metres around a sign without them
_STEPS = 72  # of the skyline
_PUFFS = (-0.7, 0.7), (0.0, 1.0), (0.8, 0.6)  # of a cloud: how far aside, and how large

NOTHING: Layer = (np.zeros((0, 4, 3)), np.zeros((0, 3)))

Slice = tuple[float, float, float, float, Colour]  # of something upright: half width and height below, the same above
TRUNK: Colour = (96, 76, 60)


def faces(city: City, piece: tuple[int, int], place: Place, detail: float) -> Iterator[tuple[Point, Group]]:
    """The trees and lamps at the left side of a piece of street, each with its spot and turned to the viewer."""
    for spot, kind in things(city, piece):
        metres = distance(place.point, spot)
        if 3 < metres < _SEEN and not (place.landmark and distance(place.landmark.point, spot) < _SIGN_ROOM):
            corners, colours = thing(city.name, kind)[metres > detail]
            yield spot, (metres, _stood(corners, spot, bearing(place.point, spot)), colours)


@lru_cache(maxsize=8192)
def things(city: City, piece: tuple[int, int]) -> tuple[tuple[Point, int], ...]:
    """Where trees (kind 0, 1, ...) and lamps (kind -1) stand at the left side of a piece of street."""
    style = STYLES[city.name]
    here, there = (city.plan.nodes[node]["point"] for node in piece)
    heading, length = bearing(here, there), distance(here, there)
    draw = Random(seed_of("virl beside", city.name, city.seed, *piece))
    clear = [style.front + 1 if city.plan.degree(node) > 2 else 0.0 for node in piece]
    found = []
    for gap, kinds in ((style.tree_gap, len(style.leaves)), (style.lamp_gap, 0)):
        along = draw.uniform(0.2, 1.0) * gap
        while gap and along < length - clear[1]:
            garden = style.front - style.walk
            off = style.walk + draw.uniform(0.8, max(0.8, garden - 2)) if kinds and garden else style.road + 0.9
            kind = draw.randrange(3 * kinds) if kinds else -1
            if along > clear[0]:
                found.append((ahead(ahead(here, heading, along), heading - 90, off), kind))
            along += gap + draw.uniform(-1, 1)
    return tuple(found)


@lru_cache(maxsize=64)
def thing(name: str, kind: int) -> tuple[Layer, Layer]:
    """A lamp or a tree as faces [faces, 4, (aside, up)]: near, and from afar."""
    style = STYLES[name]
    if kind < 0:
        return _lamp(style.lamp)
    leaf = style.leaves[kind % len(style.leaves)]
    shape = kind // len(style.leaves)
    return _fir(leaf) if shape == 2 else _tree(leaf, 1 + 0.18 * shape)


def _lamp(colour: Colour) -> tuple[Layer, Layer]:
    glow = (255, 240, 200)
    plain = [(0.09, 0, 0.06, 4.6, colour), (0.3, 4.6, 0.18, 5.2, glow)]
    fine = [(0.16, 0, 0.1, 0.9, colour), (0.36, 5.15, 0.1, 5.45, colour), (0.34, 4.5, 0.34, 4.62, colour)]
    return _flat([*plain, *fine]), _flat(plain)


def _fir(leaf: Colour) -> tuple[Layer, Layer]:
    dark, light = mixed(leaf, (16, 36, 34), 0.35), mixed(leaf, (220, 236, 170), 0.18)
    trunk = (0.18, 0, 0.12, 1.4, TRUNK)
    skirts: list[Slice] = []
    for low, high, wide in ((1.2, 4.2, 1.9), (2.9, 5.9, 1.5), (4.6, 7.8, 1.05)):
        skirts += [(wide, low, 0.12, high, dark), (wide * 0.72, low + 0.25, 0.1, high - 0.1, leaf)]
    return _flat([trunk, *skirts, (0.3, 5.4, 0.02, 7.4, light)]), _flat([trunk, (1.9, 1.2, 0.05, 7.8, dark)])


def _tree(leaf: Colour, size: float) -> tuple[Layer, Layer]:
    dark, light = mixed(leaf, (16, 40, 34), 0.3), mixed(leaf, (232, 242, 160), 0.22)
    trunk: Slice = (0.2, 0, 0.13, 3.2 * size, TRUNK)
    crown = _oval(0, 4.7 * size, 2.1 * size, 1.9 * size, dark)
    parts = [_flat([trunk]), crown]
    for aside, up, wide, colour in ((-0.75, 4.9, 1.3, leaf), (0.8, 4.7, 1.2, leaf), (0.05, 5.5, 1.25, leaf),
                                    (-0.35, 5.75, 0.7, light), (-0.95, 5.1, 0.5, light), (0.75, 5.05, 0.5, light)):  # fmt: skip
        parts.append(_oval(aside * size, up * size, wide * size, 0.82 * wide * size, colour))
    return _joined(parts), _joined(parts[:2])


def _joined(layers: list[Layer]) -> Layer:
    return np.concatenate([corners for corners, _ in layers]), np.concatenate([colours for _, colours in layers])


def _oval(aside: float, up: float, wide: float, high: float, colour: Colour) -> Layer:
    """An oval as five slices."""
    edge = [(wide * cos(pi * (n / 5 - 0.5)), up + high * sin(pi * (n / 5 - 0.5))) for n in range(6)]
    corners, colours = _flat([(max(a[0], 0.0), a[1], max(b[0], 0.0), b[1], colour) for a, b in pairwise(edge)])
    return corners + np.array([aside, 0.0]), colours


def _flat(slices: Sequence[Slice]) -> Layer:
    """Slices as faces [slices, 4, (aside, up)]."""
    corners = [((-wb, zb), (wb, zb), (wt, zt), (-wt, zt)) for wb, zb, wt, zt, _ in slices]
    return np.array(corners, float), np.array([colour for *_, colour in slices], float)


def backdrop(name: str, eye: Point) -> Layer:
    """Clouds and skyline as faces around the viewer, who never comes nearer to them."""
    corners, colours = _backdrop(name)
    return corners + np.array([*eye, 0.0]), colours


# ---------------------------------------------------------------- within
@lru_cache(maxsize=8)
def _backdrop(name: str) -> Layer:
    style, draw = STYLES[name], Random(seed_of("virl backdrop", name))
    layers = [_cloud(style, draw) for _ in range(11)]
    layers += [_row(style, colour, depth, draw) for depth, colour in enumerate(style.backdrop)]
    return _joined(layers)


def _cloud(style: Style, draw: Random) -> Layer:
    """Three flat ovals side by side."""
    heading, up, wide = draw.uniform(0, 360), draw.uniform(170, 520), draw.uniform(50, 120)
    colour = mixed(style.clouds, style.sky[1], 0.35 + 0.3 * draw.random())
    ovals = [_oval(shift * wide, up, size * wide, 0.22 * size * wide, colour) for shift, size in _PUFFS]
    corners, colours = _joined(ovals)
    return _stood(corners, ahead((0, 0), heading, _CLOUDS_AWAY), heading), colours


def _row(style: Style, colour: Colour, depth: int, draw: Random) -> Layer:
    """One row of the skyline, all around."""
    phases = [draw.uniform(0, 2 * pi) for _ in range(3)]

    def hill(step: int) -> float:
        turn = 2 * pi * step / _STEPS
        waves = sin(2 * turn + phases[0]) + 0.6 * sin(5 * turn + phases[1]) + 0.25 * sin(9 * turn + phases[2])
        return (70 - 16 * depth) * (1 + 0.4 * waves)

    layers = []
    for step in range(_STEPS):
        left, right = 360 * step / _STEPS, 360 * (step + 1) / _STEPS
        a, b = ahead((0, 0), left, _AWAY), ahead((0, 0), right, _AWAY)
        if style.skyline == "hills":
            low, high = hill(step), hill(step + 1)
        else:
            low = high = _roofs(style.skyline, depth, draw)
        layers.append((np.array([[(*a, -2.0), (*b, -2.0), (*b, high), (*a, low)]]), np.array([colour], float)))
        if style.skyline == "spires" and draw.random() < 0.06:
            tiles = mixed(colour, (150, 90, 70), 0.3)
            corners, colours = _flat([(6.0, 0.0, 6.0, high + 26, colour), (8.0, high + 26, 0.0, high + 74, tiles)])
            middle = (left + right) / 2
            layers.append((_stood(corners, ahead((0, 0), middle, _AWAY), middle), colours))
    return _joined(layers)


def _roofs(skyline: str, depth: int, draw: Random) -> float:
    if skyline == "towers":
        return draw.uniform(30, 90) + (draw.uniform(60, 190) if draw.random() < 0.3 else 0) * (1 - 0.4 * depth)
    if skyline == "spires":
        return draw.uniform(24, 40) - 6 * depth
    return draw.uniform(20, 34) + (draw.uniform(20, 44) if draw.random() < 0.18 else 0) - 12 * depth


def _stood(flat: np.ndarray, spot: Point, away: float) -> np.ndarray:
    """Flat faces [faces, 4, (aside, up)] at `spot`, turned to somebody who sees them at the bearing `away`."""
    east, north = cos(radians(away)), -sin(radians(away))
    return np.stack([spot[0] + flat[..., 0] * east, spot[1] + flat[..., 0] * north, flat[..., 1]], -1)
