"""What cards are drawn with: a pen, the marks of the suits, smooth curves. y points down."""

from collections.abc import Sequence
from functools import cache
from math import cos, pi, sin

from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]

_STEPS = 24  # points per curve: smooth at any card size


class Pen:
    """Draws on an image in units of `unit` pixels from `middle` on, so that a shape serves every size."""

    def __init__(self, image: Image.Image, unit: float, *, middle: float = 0) -> None:
        self._draw = ImageDraw.Draw(image)
        self._unit = unit
        self._middle = middle  # where x is 0, in units

    def shape(self, points: Sequence[Point], fill: Colour, *, outline: Colour | None = None, line: float = 0) -> None:
        """A filled polygon, with an outline `line` units wide where one is named."""
        self._draw.polygon(self._placed(points), fill=fill)
        if outline is not None:
            self.curve([*points, points[0], points[1]], outline, line)

    def curve(self, points: Sequence[Point], colour: Colour, line: float) -> None:
        """A stroke `line` units wide through the points."""
        width = max(1, round(line * self._unit))
        self._draw.line(self._placed(points), fill=colour, width=width, joint="curve")

    def oval(self, centre: Point, rx: float, ry: float, fill: Colour, *, outline: Colour | None = None,
             line: float = 0) -> None:  # fmt: skip
        self.shape(oval(centre, rx, ry), fill, outline=outline, line=line)

    def suit(self, suit: str, centre: Point, size: float, fill: Colour, *, upside_down: bool = False) -> None:
        """A suit mark `size` units high around its centre."""
        down = -size if upside_down else size
        for outline in outlines(suit):
            self.shape([(centre[0] + x * size, centre[1] + y * down) for x, y in outline], fill)

    def _placed(self, points: Sequence[Point]) -> list[Point]:
        return [((x + self._middle) * self._unit, y * self._unit) for x, y in points]


@cache
def outlines(suit: str) -> tuple[tuple[Point, ...], ...]:
    """The polygons that together are the mark of S, H, D or C, within -0.5 and 0.5 both ways."""
    if suit == "H":
        return (_heart(),)
    if suit == "D":
        return (mirrored(bezier((0, -0.5), (0.08, -0.33), (0.25, -0.1), (0.38, 0))
                          + bezier((0.38, 0), (0.25, 0.1), (0.08, 0.33), (0, 0.5))),)  # fmt: skip
    if suit == "S":
        return tuple((x, -0.05 - 0.88 * (y + 0.02)) for x, y in _heart()), _stem(0.0)
    leaves = tuple(tuple(oval(centre, 0.235, 0.235)) for centre in ((0, -0.265), (-0.265, 0.075), (0.265, 0.075)))
    heart_of_it = tuple(oval((0, -0.03), 0.13, 0.13))
    return (*leaves, heart_of_it, _stem(-0.05))


def bezier(start: Point, out: Point, into: Point, end: Point) -> list[Point]:
    """A cubic Bézier curve as points, both ends among them."""
    points = []
    for step in range(_STEPS + 1):
        t = step / _STEPS
        a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        x, y = (a * p + b * q + c * r + d * s for p, q, r, s in zip(start, out, into, end, strict=True))
        points.append((x, y))
    return points


def oval(centre: Point, rx: float, ry: float) -> list[Point]:
    turns = (pi * step / _STEPS for step in range(2 * _STEPS))
    return [(centre[0] + rx * cos(turn), centre[1] + ry * sin(turn)) for turn in turns]


def _heart() -> tuple[Point, ...]:
    side = bezier((0, -0.3), (0.04, -0.42), (0.13, -0.5), (0.25, -0.5))
    side += bezier((0.25, -0.5), (0.4, -0.5), (0.5, -0.38), (0.5, -0.21))
    side += bezier((0.5, -0.21), (0.5, 0.05), (0.17, 0.26), (0, 0.5))
    return mirrored(side)


def _stem(top: float) -> tuple[Point, ...]:
    """The foot of spades and clubs, from `top` down to 0.5."""
    return mirrored([(0, top), (0.035, top), *bezier((0.035, 0.2), (0.06, 0.36), (0.13, 0.46), (0.23, 0.5)), (0, 0.5)])


def mirrored(right: list[Point]) -> tuple[Point, ...]:
    """The shape whose right half this is."""
    return (*right, *((-x, y) for x, y in reversed(right)))
