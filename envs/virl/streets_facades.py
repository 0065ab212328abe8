"""Fronts of houses, four kinds: what stands between two points of a street's side.

A front is flat faces in coordinates of its own: along it from 0 at the viewer's left to 1, metres out towards the street, and
metres up. Corners run counterclockwise for who looks at the face. Later faces cover earlier ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

import numpy as np

from envs.base import seed_of
from envs.virl.streets_styles import Colour, mixed

FAR, MIDDLE, CLOSE = 0, 1, 2  # from how near a face is drawn
FRONTS = 14  # kinds of fronts in a city

Corner = tuple[float, float, float]
WHITE: Colour = (244, 242, 236)
GLASS: Colour = (70, 92, 112)
LIT: Colour = (250, 220, 150)


@dataclass(slots=True)
class Front:
    """Faces while they are put together."""

    corners: list[tuple[Corner, ...]] = field(default_factory=list)
    colours: list[Colour] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)

    def face(self, corners: tuple[Corner, ...], colour: Colour, level: int = FAR) -> None:
        self.corners.append(corners)
        self.colours.append(colour)
        self.levels.append(level)

    def panel(self, left: float, bottom: float, right: float, top: float, colour: Colour, level: int = FAR, *,
              out: float = 0.0) -> None:  # fmt: skip
        """An upright rectangle, facing the street."""
        self.face(((left, out, bottom), (right, out, bottom), (right, out, top), (left, out, top)), colour, level)

    def slope(self, left: float, right: float, low: tuple[float, float], high: tuple[float, float], colour: Colour,
              level: int = FAR) -> None:  # fmt: skip
        """A rectangle that leans: its lower and its upper edge as (out, up)."""
        self.face(((left, *low), (right, *low), (right, *high), (left, *high)), colour, level)

    def gable(self, left: float, right: float, bottom: float, top: float, colour: Colour, *, out: float = 0.0) -> None:
        peak = ((left + right) / 2, out, top)
        self.face(((left, out, bottom), (right, out, bottom), peak, peak), colour)

    def window(self, left: float, bottom: float, right: float, top: float, frame: Colour, glass: Colour, *,
               bars: int = 1) -> None:  # fmt: skip
        edge = (right - left) * 0.1
        self.panel(left - edge, bottom - 0.18, right + edge, top + 0.14, frame, CLOSE, out=0.05)
        self.panel(left, bottom, right, top, glass, MIDDLE, out=0.06)
        self.panel(left, top - 0.25 * (top - bottom), right, top, mixed(glass, (0, 0, 0), 0.25), CLOSE, out=0.07)
        for bar in range(1, bars + 1):
            at = left + (right - left) * bar / (bars + 1)
            self.panel(at - 0.004, bottom, at + 0.004, top, frame, CLOSE, out=0.08)
        self.panel(left, (bottom + top) / 2 - 0.05, right, (bottom + top) / 2 + 0.05, frame, CLOSE, out=0.08)

    def door(self, left: float, right: float, top: float, colour: Colour, frame: Colour) -> None:
        edge = (right - left) * 0.12
        self.panel(left - edge, 0, right + edge, top + 0.2, frame, CLOSE, out=0.05)
        self.panel(left, 0, right, top, colour, MIDDLE, out=0.06)
        self.panel(left + edge, top * 0.55, right - edge, top * 0.92, mixed(colour, GLASS, 0.7), CLOSE, out=0.07)
        self.panel(right - 1.6 * edge, top * 0.42, right - 0.8 * edge, top * 0.48, LIT, CLOSE, out=0.07)


@dataclass(frozen=True, slots=True)
class Faces:
    """A finished front: [faces, 4 corners, (along, out, up)], [faces, RGB], and for each level which faces are drawn."""

    corners: np.ndarray
    colours: np.ndarray
    shown: tuple[np.ndarray, ...]


@lru_cache(maxsize=8)
def fronts(city: str) -> tuple[Faces, ...]:
    """The kinds of fronts in a city."""
    made = []
    for kind in range(FRONTS):
        front = Front()
        _BUILDERS[city](front, Random(seed_of("virl front", city, kind)))
        shown = tuple(np.flatnonzero(np.array(front.levels) <= level) for level in (FAR, MIDDLE, CLOSE))
        made.append(Faces(np.array(front.corners), np.array(front.colours, np.float32), shown))
    return tuple(made)


def _glass(draw: Random, colour: Colour = GLASS) -> Colour:
    return LIT if draw.random() < 0.08 else mixed(colour, (200, 220, 232), draw.uniform(0, 0.35))


def _brick(front: Front, draw: Random) -> None:
    """A tall house of brick or stone: a shop below, sash windows, a cornice."""
    wall = draw.choice([(142, 78, 62), (160, 96, 72), (120, 72, 60), (176, 150, 122), (190, 178, 158), (134, 110, 96)])
    stone = mixed(wall, (226, 216, 198), 0.7)
    storeys, columns = draw.randint(3, 7), draw.choice((3, 4, 4, 5))
    top = 4.8 + 3.5 * storeys
    front.panel(0, 0, 1, top, wall)
    front.panel(0, 4.5, 1, 4.9, stone, MIDDLE, out=0.08)
    for storey in range(storeys):
        bottom = 5.5 + 3.5 * storey
        for column in range(columns):
            left = (column + 0.28) / columns
            front.window(left, bottom, left + 0.44 / columns, bottom + 2.1, stone, _glass(draw))
    front.panel(0, top - 0.5, 1, top, mixed(wall, (0, 0, 0), 0.3), MIDDLE, out=0.1)
    front.panel(-0.015, top, 1.015, top + 0.8, stone, out=0.5)
    front.panel(-0.015, top + 0.55, 1.015, top + 0.8, mixed(stone, WHITE, 0.4), MIDDLE, out=0.55)
    _shop(front, draw)


def _shop(front: Front, draw: Random) -> None:
    trim = draw.choice([(38, 52, 48), (60, 36, 34), (36, 42, 62), (70, 62, 52)])
    front.panel(0.05, 0, 0.95, 4.2, trim, MIDDLE, out=0.05)
    door = draw.choice((0.12, 0.45, 0.76))
    for left in (0.08, 0.37, 0.66):
        if not left <= door < left + 0.28:
            front.panel(left, 0.7, left + 0.26, 3.3, mixed(GLASS, (190, 210, 216), 0.25), MIDDLE, out=0.08)
            front.panel(left, 0.7, left + 0.26, 1.3, mixed(GLASS, LIT, 0.4), CLOSE, out=0.09)
    front.door(door, door + 0.11, 2.9, mixed(trim, (140, 70, 40), 0.5), trim)
    if draw.random() < 0.6:
        cloth = draw.choice([(176, 52, 48), (44, 104, 78), (48, 78, 128), (196, 142, 56)])
        for stripe in range(10):
            left = 0.05 + 0.09 * stripe
            colour = cloth if stripe % 2 else WHITE
            front.slope(left, left + 0.09, (1.5, 2.95), (0.1, 3.7), colour, MIDDLE)
            front.panel(left, 2.65, left + 0.09, 2.95, mixed(colour, (0, 0, 0), 0.12), CLOSE, out=1.5)


def _plaster(front: Front, draw: Random) -> None:
    """A narrow old house: plaster, shutters, an arched door, tiles."""
    wall = draw.choice(
        [(232, 196, 140), (226, 168, 128), (240, 220, 180), (214, 150, 120), (204, 196, 160), (236, 206, 196)]
    )
    shutter = draw.choice([(70, 104, 84), (88, 112, 136), (120, 72, 52), (104, 118, 76)])
    tiles = draw.choice([(168, 84, 58), (182, 98, 66), (150, 76, 58)])
    trim = mixed(wall, WHITE, 0.6)
    storeys, columns = draw.choice((2, 2, 3)), draw.choice((2, 3))
    top = 3.6 + 3.0 * storeys
    front.panel(0, 0, 1, top, wall)
    front.panel(0, 0, 1, 0.8, mixed(wall, (96, 84, 76), 0.5), MIDDLE, out=0.04)
    for storey in range(storeys):
        bottom = 4.2 + 3.0 * storey
        for column in range(columns):
            left, wide = (column + 0.34) / columns, 0.32 / columns
            front.window(left, bottom, left + wide, bottom + 1.8, trim, _glass(draw, (84, 88, 92)))
            for side in (left - 0.62 * wide, left + 1.06 * wide):
                front.panel(side, bottom - 0.05, side + 0.56 * wide, bottom + 1.85, shutter, MIDDLE, out=0.1)
            if draw.random() < 0.3:
                front.panel(left, bottom - 0.4, left + wide, bottom - 0.1, (196, 70, 78), CLOSE, out=0.25)
    if draw.random() < 0.45:
        front.gable(0, 1, top, top + 3.4, wall)
        front.window(0.42, top + 0.5, 0.58, top + 1.6, trim, _glass(draw))
        front.face(((-0.03, 0.3, top - 0.3), (0, 0.3, top - 0.5), (0.5, 0.3, top + 3.2), (0.5, 0.3, top + 3.7)), tiles)
        front.face(((1, 0.3, top - 0.5), (1.03, 0.3, top - 0.3), (0.5, 0.3, top + 3.7), (0.5, 0.3, top + 3.2)), tiles)
    else:
        front.slope(-0.02, 1.02, (0.6, top - 0.1), (-3.5, top + 2.6), tiles)
        front.panel(-0.02, top - 0.35, 1.02, top - 0.1, mixed(tiles, (40, 20, 10), 0.4), out=0.6)
    door = draw.choice((0.14, 0.42, 0.66))
    front.door(door, door + 0.18, 2.4, mixed(shutter, (60, 40, 30), 0.4), trim)
    front.face(
        ((door, 0.07, 2.4), (door + 0.18, 0.07, 2.4), (door + 0.14, 0.07, 2.85), (door + 0.04, 0.07, 2.85)), trim, CLOSE
    )
    for left in (0.12, 0.42, 0.7):
        if abs(left - door) > 0.2:
            front.window(left, 1.1, left + 0.2, 2.7, trim, _glass(draw, (84, 88, 92)), bars=2)


def _slab(front: Front, draw: Random) -> None:
    """A plain modern block: ribbons of windows, balconies, a flat roof."""
    wall = draw.choice([(232, 232, 228), (214, 218, 220), (238, 230, 210), (196, 204, 206), (222, 208, 196)])
    accent = draw.choice([(0, 134, 140), (222, 150, 50), (198, 84, 70), (92, 132, 84), (66, 96, 140)])
    storeys = draw.randint(3, 5)
    top = 3.8 + 3.1 * storeys
    front.panel(0, 0, 1, top, wall)
    front.panel(0, 0, 1, 3.4, mixed(wall, (60, 66, 72), 0.6), MIDDLE, out=0.02)
    balcony = draw.choice((0.06, 0.56, None))
    for storey in range(storeys):
        bottom = 4.7 + 3.1 * storey
        front.panel(0.04, bottom, 0.96, bottom + 1.6, _glass(draw, (92, 116, 130)), MIDDLE, out=0.03)
        for pane in range(1, 8):
            at = 0.04 + 0.115 * pane
            front.panel(at - 0.006, bottom, at + 0.006, bottom + 1.6, wall, CLOSE, out=0.05)
        front.panel(0, bottom - 0.5, 1, bottom - 0.35, mixed(wall, (0, 0, 0), 0.15), CLOSE, out=0.04)
        if balcony is not None:
            front.panel(balcony, bottom - 0.9, balcony + 0.38, bottom + 0.15, accent, MIDDLE, out=1.2)
            front.panel(
                balcony, bottom - 1.05, balcony + 0.38, bottom - 0.9, mixed(wall, (0, 0, 0), 0.3), CLOSE, out=1.2
            )
    front.panel(0, top, 1, top + 0.35, mixed(wall, (70, 76, 80), 0.6), out=0.1)
    for left in (0.05, 0.29, 0.53, 0.77):
        front.panel(left, 0.5, left + 0.19, 2.8, mixed(GLASS, (170, 190, 196), 0.3), MIDDLE, out=0.05)
    door = draw.choice((0.3, 0.54))
    front.door(door + 0.03, door + 0.14, 2.6, accent, WHITE)
    front.slope(door - 0.02, door + 0.2, (1.6, 2.9), (0.05, 3.05), accent, MIDDLE)


def _cottage(front: Front, draw: Random) -> None:
    """A house that stands alone in a garden, with a pitched roof."""
    wall = draw.choice(
        [(226, 218, 200), (176, 196, 200), (206, 188, 150), (196, 204, 172), (220, 190, 176), (184, 172, 190)]
    )
    roof = draw.choice([(92, 84, 88), (118, 82, 70), (84, 94, 102)])
    left, right, depth = 0.14, 0.86, -8.0
    high = draw.choice((3.4, 5.9, 5.9))
    shade = mixed(wall, (30, 40, 60), 0.18)
    if draw.random() < 0.5:  # the ridge runs along the street
        ridge = high + 3.0
        middle = depth / 2
        front.face(((left, depth, 0), (left, 0, 0), (left, 0, high), (left, depth, high)), shade)
        front.face(((left, depth, high), (left, 0, high), (left, middle, ridge), (left, middle, ridge)), shade)
        front.face(((right, 0, 0), (right, depth, 0), (right, depth, high), (right, 0, high)), shade)
        front.face(((right, 0, high), (right, depth, high), (right, middle, ridge), (right, middle, ridge)), shade)
        front.panel(left, 0, right, high, wall)
        front.slope(left - 0.03, right + 0.03, (0.5, high - 0.2), (middle, ridge + 0.1), roof)
    else:
        front.face(((left, depth, 0), (left, 0, 0), (left, 0, high), (left, depth, high)), shade)
        front.face(((right, 0, 0), (right, depth, 0), (right, depth, high), (right, 0, high)), shade)
        peak = high + 3.6
        front.face(
            ((left - 0.03, depth, high - 0.3), (left - 0.03, 0.4, high - 0.3), (0.5, 0.4, peak), (0.5, depth, peak)),
            roof,
        )
        front.face(
            ((right + 0.03, 0.4, high - 0.3), (right + 0.03, depth, high - 0.3), (0.5, depth, peak), (0.5, 0.4, peak)),
            roof,
        )
        front.panel(left, 0, right, high, wall)
        front.gable(left, right, high, peak - 0.3, wall)
        front.face(
            ((left - 0.03, 0.4, high - 0.3), (left, 0.4, high - 0.5), (0.5, 0.4, peak - 0.4), (0.5, 0.4, peak)),
            WHITE,
            MIDDLE,
        )
        front.face(
            ((right, 0.4, high - 0.5), (right + 0.03, 0.4, high - 0.3), (0.5, 0.4, peak), (0.5, 0.4, peak - 0.4)),
            WHITE,
            MIDDLE,
        )
        front.window(0.44, high + 0.5, 0.56, high + 1.7, WHITE, _glass(draw))
    for board in range(1, int(high / 0.7)):
        front.panel(left, 0.7 * board, right, 0.7 * board + 0.06, shade, CLOSE, out=0.02)
    for bottom in (1.0, 3.7)[: 1 if high < 4 else 2]:
        for at in (0.2, 0.66):
            front.window(at, bottom, at + 0.13, bottom + 1.5, WHITE, _glass(draw), bars=1)
    if high > 4:
        front.window(0.44, 3.7, 0.56, 5.2, WHITE, _glass(draw))
    front.door(0.46, 0.54, 2.3, draw.choice([(150, 58, 52), (52, 88, 118), (88, 104, 64), (196, 150, 62)]), WHITE)
    front.slope(0.4, 0.6, (1.6, 2.6), (0.0, 3.1), roof, MIDDLE)
    for at in (0.405, 0.585):
        front.panel(at, 0, at + 0.012, 2.6, WHITE, MIDDLE, out=1.5)
    front.face(((0.47, 5.9, 0.02), (0.53, 5.9, 0.02), (0.53, 0.1, 0.02), (0.47, 0.1, 0.02)), (206, 196, 180), MIDDLE)
    hedge = draw.choice([(74, 118, 62), (96, 130, 66), (240, 238, 230)])
    for begin, end in ((0.0, 0.45), (0.55, 1.0)):
        front.panel(begin, 0, end, 0.95, hedge, MIDDLE, out=5.6)
        front.slope(begin, end, (5.6, 0.95), (5.0, 0.98), mixed(hedge, WHITE, 0.25), CLOSE)


_BUILDERS: dict[str, Callable[[Front, Random], None]] = {
    "gridport": _brick,
    "oldtown": _plaster,
    "ringhaven": _slab,
    "hillcrest": _cottage,
}
