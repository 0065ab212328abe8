"""Draws a scene as flat pictures with smooth edges: six views of 90 degrees, four around, one up and one down."""

from collections.abc import Callable
from functools import lru_cache
from math import cos, radians, sin

import numpy as np
from PIL import Image, ImageDraw

from envs.virl.streets import Scene
from envs.virl.streets_signs import WIDTHS, board
from envs.virl.streets_styles import STYLES

_NEAR = 0.2  # metres before the eye; what is nearer is cut off
_LEAST_AREA = 4.0  # square pixels as drawn; smaller faces are left out
_LEAST_DRAWN = 256  # pixels as drawn: views are drawn twice as large, small ones larger still

Seen = tuple[np.ndarray, np.ndarray, np.ndarray]  # metres right, down and forward of the eye, each [4 corners, faces]
Corner = tuple[float, float, float]

_TURNS: dict[str, Callable[[Seen], Seen]] = {
    "front": lambda at: at,
    "right": lambda at: (-at[2], at[1], at[0]),
    "back": lambda at: (-at[0], at[1], -at[2]),
    "left": lambda at: (at[2], at[1], -at[0]),
    "up": lambda at: (at[0], at[2], -at[1]),
    "down": lambda at: (at[0], -at[2], at[1]),
}
AROUND = ("front", "right", "back", "left")
ALL = tuple(_TURNS)


def views(scene: Scene, heading: float, size: int, which: tuple[str, ...] = AROUND) -> dict[str, Image.Image]:
    """What somebody sees who faces `heading`, looks aside, back, or straight up and down: each `size` pixels square."""
    times = max(2, -(-_LEAST_DRAWN // size))
    faces = _level(scene.corners, scene.eye, heading)
    sign = None if scene.board is None else _level(scene.board[None], scene.eye, heading)
    pictures = {}
    for name in which:
        drawn = _background(scene.city, size * times, name if name in ("up", "down") else "level").copy()
        _draw(drawn, _TURNS[name](faces), scene.colours)
        if sign is not None and scene.landmark is not None:
            _hang(drawn, _TURNS[name](sign), scene.city, scene.landmark.name)
        pictures[name] = drawn.reduce(times)
    return pictures


def _level(corners: np.ndarray, eye: Corner, heading: float) -> Seen:
    east, north, up = (np.ascontiguousarray(corners[..., axis].T) - eye[axis] for axis in range(3))
    s, c = sin(radians(heading)), cos(radians(heading))
    return east * c - north * s, -up, east * s + north * c


def _draw(drawn: Image.Image, seen: Seen, colours: np.ndarray) -> None:
    """The faces, each over those before it."""
    x, y, z = seen
    aside = (x > z).all(0) | (-x > z).all(0) | (y > z).all(0) | (-y > z).all(0) | (z < _NEAR).all(0)
    kept = np.flatnonzero(~aside)
    x, y, z = x[:, kept], y[:, kept], z[:, kept]
    half = drawn.width / 2
    close = z < _NEAR
    depth = np.where(close, 1.0, z)
    across, down = half + half * x / depth, half + half * y / depth
    area = (across[0] - across[2]) * (down[1] - down[3]) - (across[1] - across[3]) * (down[0] - down[2])
    cut = np.any(close, axis=0)
    large = np.flatnonzero(cut | (np.abs(area) >= 2 * _LEAST_AREA))
    polygons = np.stack([across[:, large], down[:, large]], -1).transpose(1, 0, 2).reshape(-1, 8).tolist()
    for number in np.flatnonzero(cut[large]).tolist():
        polygons[number] = _before_eye([axis[:, large[number]].tolist() for axis in (x, y, z)], half)
    rgb = np.clip(np.rint(colours[kept[large]]), 0, 255).astype(np.int64)
    inks = (rgb[:, 0] | rgb[:, 1] << 8 | rgb[:, 2] << 16).tolist()
    pen = ImageDraw.Draw(drawn).draw  # beneath `ImageDraw.polygon`, whose look at outlines is a third of its time
    for points, ink in zip(polygons, inks, strict=True):
        pen.draw_polygon(points, pen.draw_ink(ink), 1)


def _before_eye(axes: list[list[float]], half: float) -> list[float]:
    """The part of a face before the eye, as picture points one after the other."""
    points: list[float] = []
    corners = list(zip(*axes, strict=True))
    for (x, y, z), (u, v, w) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if z >= _NEAR:
            points += [half + half * x / z, half + half * y / z]
        if (z >= _NEAR) != (w >= _NEAR):
            share = (_NEAR - z) / (w - z)
            points += [half + half * (x + share * (u - x)) / _NEAR, half + half * (y + share * (v - y)) / _NEAR]
    return points


def _hang(drawn: Image.Image, seen: Seen, city: str, name: str) -> None:
    """The board of a name onto the rectangle of these corners, if it is in view."""
    x, y, z = (axis[:, 0] for axis in seen)
    half = drawn.width / 2
    points = _before_eye([axis.tolist() for axis in (x, y, z)], half)
    if not points:
        return
    left, top = max(0, int(min(points[0::2]))), max(0, int(min(points[1::2])))
    right, bottom = min(drawn.width, int(max(points[0::2])) + 2), min(drawn.height, int(max(points[1::2])) + 2)
    if left >= right or top >= bottom:
        return
    wide = half * float(np.hypot(x[1] - x[0], z[1] - z[0])) / max(float(z.mean()), 1.0)
    picture = board(city, name, next((width for width in WIDTHS if width >= wide), WIDTHS[-1]))
    # A pixel's ray meets the plane of the board at top left + u·across + v·down: three equations, turned around.
    corners = np.stack([x, y, z], 1)
    across, down = (corners[2] - corners[3]) / picture.width, (corners[0] - corners[3]) / picture.height
    screen = np.array([[half, 0, half - left], [0, half, half - top], [0, 0, 1.0]])
    back = _turned_around(screen @ np.stack([across, down, corners[3]], 1))
    shown = picture.transform(
        (right - left, bottom - top), Image.Transform.PERSPECTIVE, back, Image.Resampling.BILINEAR
    )
    drawn.paste(shown, (left, top), shown)


def _turned_around(matrix: np.ndarray) -> list[float]:
    """The first eight numbers of the inverse of a 3 by 3 matrix, with the ninth made 1."""
    a, b, c = matrix.T
    inverse = np.array([np.cross(b, c), np.cross(c, a), np.cross(a, b)]).ravel()
    return (inverse[:8] / inverse[8]).tolist()


@lru_cache(maxsize=64)
def _background(city: str, size: int, pitch: str) -> Image.Image:
    """Sky above, ground below, as far as the eye can see. Shared: copied before it is drawn on."""
    style = STYLES[city]
    across = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(across, across)
    if pitch == "level":
        slope = -y / np.sqrt(x * x + 1)
    else:
        slope = (1 if pitch == "up" else -1) / np.maximum(np.sqrt(x * x + y * y), 1e-9)
    overhead, horizon, ground = (np.array(colour, float) for colour in (*style.sky, style.ground))
    high, deep = (np.clip(side, 0, None)[..., None] for side in (slope, -slope))
    sky = horizon + (overhead - horizon) * 1.15 * high / (high + 0.45)
    earth = horizon + (ground - horizon) * deep / (deep + 0.012)
    return Image.fromarray(np.clip(np.rint(np.where(high > 0, sky, earth)), 0, 255).astype(np.uint8))
