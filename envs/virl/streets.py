"""What stands around a place: the faces of ground, houses, trees and lamps, from far to near, as arrays.

    City ─► seen streets ─► roads, fronts, things beside ─► Scene ─► streets_drawing
                             streets_ground, streets_facades, streets_beside

Points are metres east, north and up, with the viewer's eye 2.5 m above the street.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import cos, radians, sin, tan

import numpy as np

from envs.base import seed_of
from envs.virl import streets_beside, streets_facades, streets_ground
from envs.virl.cities import City, Place
from envs.virl.city_ground import Point, ahead, bearing, distance, turn
from envs.virl.landmarks import Landmark
from envs.virl.streets_beside import NOTHING, Group, Layer
from envs.virl.streets_facades import CLOSE, FAR, MIDDLE, Faces
from envs.virl.streets_signs import TALL
from envs.virl.streets_styles import STYLES, SignStyle, Style

EYE = 2.5  # metres above the street
_SEEN = 330.0  # metres along a street
_SEEN_BESIDE = 130.0  # metres to crossings whose side streets are seen
_SEEN_INTO = 34.0  # metres of a side street
SIGN_WIDTH = 0.62  # of the distance from which it is read
_BENDS = 40.0  # degrees that a street may turn and still be seen along
_CLEAR, _HAZE = 30.0, 420.0  # metres: where haze begins, and where half of it is reached after that


@dataclass(frozen=True, slots=True)
class Scene:
    """Faces in the order they are drawn in, and the sign that is near, which covers them."""

    city: str
    eye: tuple[float, float, float]
    corners: np.ndarray  # [faces, 4, (east, north, up)]
    colours: np.ndarray  # [faces, RGB]
    landmark: Landmark | None
    board: np.ndarray | None  # [4, (east, north, up)]: lower left, lower right, upper right, upper left


@dataclass(frozen=True, slots=True)
class House:
    """A front where it stands. `corners[level]` and `colours[level]` are the faces that are drawn up to that level."""

    middle: Point
    out: Point  # unit vector towards the street
    corners: tuple[np.ndarray, ...]
    colours: tuple[np.ndarray, ...]


def scene(city: City, place: Place, detail: float) -> Scene:
    """What is seen from a place. `detail` is how far small things are drawn, in metres."""
    style = STYLES[city.name]
    eye = (*place.point, EYE)
    pieces = seen(city, place)
    sky, solid = streets_beside.backdrop(city.name, place.point), streets_ground.faces(city, pieces, place.point)
    groups = _upright(city, pieces, place, detail)
    groups.sort(key=lambda group: -group[0])
    solid += [(corners, colours) for _, corners, colours in groups]
    corners, colours = (np.concatenate(parts) for parts in zip(*solid, strict=True))
    facing = _facing(corners, eye)
    corners, colours = corners[facing], _hazy(corners[facing], colours[facing], eye, style)
    posts, board = _sign(place.landmark, style.sign) if place.landmark else (NOTHING, None)
    corners, colours = (np.concatenate(parts) for parts in zip(sky, (corners, colours), posts, strict=True))
    return Scene(city.name, eye, corners, colours, place.landmark, board)


def seen(city: City, place: Place) -> dict[tuple[int, int], int | None]:
    """The directed pieces of streets that are seen. Those of side streets only near the crossing that is their value."""
    points = city.plan.nodes
    if place.node is None:
        ways = [place.piece, place.piece[::-1]]
    else:
        ways = [(place.node, other) for other in city.plan[place.node]]
    found: dict[tuple[int, int], int | None] = {}
    beside: dict[tuple[int, int], int | None] = {}
    while ways:
        here, there = ways.pop()
        found[here, there] = found[there, here] = None
        metres = distance(place.point, points[there]["point"])
        heading = bearing(points[here]["point"], points[there]["point"])
        for after in city.plan[there] if metres < _SEEN else ():
            bend = abs(turn(heading, bearing(points[there]["point"], points[after]["point"])))
            if bend < _BENDS and (there, after) not in found:
                ways.append((there, after))
            elif metres < _SEEN_BESIDE:
                beside[there, after] = beside[after, there] = there
    return {**beside, **found}


def _upright(city: City, pieces: dict[tuple[int, int], int | None], place: Place, detail: float) -> list[Group]:
    """Houses, trees and lamps with their metres away; what stands before a house is never further than that house."""
    groups, wide = [], STYLES[city.name].frontage
    for piece, crossing in pieces.items():
        row = houses(city, piece)
        away = [distance(place.point, house.middle) for house in row]
        for house, metres in zip(row, away, strict=True):
            if crossing is None or distance(house.middle, city.plan.nodes[crossing]["point"]) < _SEEN_INTO:
                level = FAR if metres > 3 * detail else MIDDLE if metres > detail else CLOSE
                groups += [(metres, house.corners[level], house.colours[level])] if _faces(house, place.point) else []
        for spot, (metres, corners, colours) in streets_beside.faces(city, piece, place, detail):
            behind = [
                far
                for house, far in zip(row, away, strict=True)
                if far < metres and distance(house.middle, spot) < wide
            ]
            groups.append((min([metres, *behind]) - 0.01, corners, colours))
    return groups


def _faces(house: House, point: Point) -> bool:
    return (point[0] - house.middle[0]) * house.out[0] + (point[1] - house.middle[1]) * house.out[1] > 0


@lru_cache(maxsize=8192)
def houses(city: City, piece: tuple[int, int]) -> tuple[House, ...]:
    """The houses at the left side of a piece of street, seen in its direction."""
    style = STYLES[city.name]
    here, there = (city.plan.nodes[node]["point"] for node in piece)
    heading, length = bearing(here, there), distance(here, there)
    begin, end = (
        corner(city, piece, style.front, left=True),
        length - corner(city, piece[::-1], style.front, left=False),
    )
    if end - begin < 4:
        return ()
    count = max(1, round((end - begin) / style.frontage))
    wide = (end - begin) / count
    kinds = streets_facades.fronts(city.name)
    out = sin(radians(heading + 90)), cos(radians(heading + 90))
    made = []
    for number in range(count):
        left = ahead(ahead(here, heading, begin + number * wide), heading - 90, style.front)
        right = ahead(left, heading, wide)
        front = kinds[seed_of("virl house", city.name, city.seed, *piece, number) % len(kinds)]
        made.append(_house(front, left, right, out, _light(style, heading + 90)))
    if city.plan.degree(piece[1]) == 1:  # a wall across a blind end
        left = ahead(ahead(there, heading, style.front), heading - 90, style.front)
        right = ahead(left, heading + 90, 2 * style.front)
        out = sin(radians(heading + 180)), cos(radians(heading + 180))
        made.append(_house(kinds[sum(piece) % len(kinds)], left, right, out, _light(style, heading + 180)))
    return tuple(made)


def corner(city: City, piece: tuple[int, int], off: float, *, left: bool) -> float:
    """Metres from a crossing to where a line beside the street meets that of the next street, at one side of a piece."""
    here = city.plan.nodes[piece[0]]["point"]
    own = bearing(here, city.plan.nodes[piece[1]]["point"])
    others = [bearing(here, city.plan.nodes[node]["point"]) for node in city.plan[piece[0]] if node != piece[1]]
    if not others:
        return -off
    gap = min((own - other if left else other - own) % 360 for other in others)
    return min(off / tan(radians(gap / 2)), 4 * off)


def _house(front: Faces, left: Point, right: Point, out: Point, light: float) -> House:
    along, outwards = front.corners[..., 0], front.corners[..., 1]
    corners = np.empty(front.corners.shape, np.float32)  # half the memory; a city has 100,000 faces
    corners[..., 0] = left[0] + along * (right[0] - left[0]) + outwards * out[0]
    corners[..., 1] = left[1] + along * (right[1] - left[1]) + outwards * out[1]
    corners[..., 2] = front.corners[..., 2]
    colours = front.colours * np.float32(light)
    middle = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
    return House(middle, out, tuple(corners[s] for s in front.shown), tuple(colours[s] for s in front.shown))


def _light(style: Style, faces: float) -> float:
    """How bright a wall is that faces that way."""
    return 0.86 + 0.14 * cos(radians(turn(style.sun, faces)))


def _hazy(corners: np.ndarray, colours: np.ndarray, eye: tuple[float, float, float], style: Style) -> np.ndarray:
    centre = corners.mean(1)
    metres = np.sqrt((centre[:, 0] - eye[0]) ** 2 + (centre[:, 1] - eye[1]) ** 2)
    share = np.clip(metres - _CLEAR, 0, None)
    share = (share / (share + _HAZE))[:, None]
    return colours + share * (np.array(style.sky[1], float) - colours)


def _facing(corners: np.ndarray, eye: tuple[float, float, float]) -> np.ndarray:
    """The faces whose front is seen."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    u, v, w = b - a, c - a, np.array(eye) - a
    normal = (
        u[:, 1] * v[:, 2] - u[:, 2] * v[:, 1],
        u[:, 2] * v[:, 0] - u[:, 0] * v[:, 2],
        u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0],
    )
    return normal[0] * w[:, 0] + normal[1] * w[:, 1] + normal[2] * w[:, 2] > 0


def _sign(landmark: Landmark, style: SignStyle) -> tuple[Layer, np.ndarray]:
    """The posts of a landmark's sign, and the corners of its board, which is turned to the anchor."""
    towards = bearing(landmark.anchor, landmark.point)
    width = SIGN_WIDTH * distance(landmark.anchor, landmark.point)

    def upright(left: float, right: float, bottom: float, top: float) -> list[tuple[float, float, float]]:
        (a, b), (c, d) = (ahead(landmark.point, towards + 90, share * width) for share in (left, right))
        return [(a, b, bottom), (c, d, bottom), (c, d, top), (a, b, top)]

    posts = [upright(share - 0.025, share + 0.025, 0.0, style.bottom + 0.5) for share in (-0.32, 0.32)]
    board = upright(-0.5, 0.5, style.bottom, style.bottom + TALL * width)
    return (np.array(posts), np.array([style.post] * 2, float)), np.array(board)
