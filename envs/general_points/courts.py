"""Jack, queen and king: a bust and its reflection in a frame, in the colour of the suit and gold.

Units: card widths; x from the middle of the frame, y down from its top edge.
"""

from PIL import Image, ImageDraw

from envs.general_points.shapes import Colour, Pen, Point, bezier, mirrored, oval

GOLD: Colour = (226, 176, 62)
PALE: Colour = (248, 226, 164)
HAIR: Colour = (176, 126, 52)
SKIN: Colour = (250, 231, 208)
LINE: Colour = (44, 40, 38)

WIDTH, HEIGHT = 0.5, 1.16
_HALF = HEIGHT / 2
_FINE = 0.007
_HEAD = (0.0, 0.27)


def panel(rank: str, suit: str, ink: Colour, paper: Colour, unit: int) -> Image.Image:
    """The framed picture on a court card whose width is `unit` pixels, RGB."""
    half = Image.new("RGB", (round(WIDTH * unit), round(_HALF * unit)), paper)
    pen = Pen(half, unit, middle=WIDTH / 2)
    {"J": _jack, "Q": _queen, "K": _king}[rank](pen, ink)
    _belt(pen, ink)
    pen.suit(suit, (-0.176, 0.083), 0.088, ink)
    whole = Image.new("RGB", (half.width, 2 * half.height), paper)
    whole.paste(half, (0, 0))
    whole.paste(half.rotate(180), (0, half.height))
    for inset, line, colour in ((0, 0.014, ink), (round(0.02 * unit), 0.006, GOLD)):
        box = (inset, inset, whole.width - 1 - inset, whole.height - 1 - inset)
        ImageDraw.Draw(whole).rectangle(box, outline=colour, width=max(1, round(line * unit)))
    return whole


def _king(pen: Pen, ink: Colour) -> None:
    _sceptre(pen, ink)
    pen.oval((0, 0.28), 0.112, 0.11, HAIR, outline=LINE, line=_FINE)
    _robe(pen, ink)
    _face(pen)
    beard = bezier((0, 0.33), (0.03, 0.3), (0.07, 0.33), (0.083, 0.27))
    beard += bezier((0.083, 0.27), (0.1, 0.38), (0.04, 0.42), (0, 0.45))
    pen.shape(mirrored(beard), HAIR, outline=LINE, line=_FINE)
    pen.curve([(-0.022, 0.345), (0.022, 0.345)], LINE, 0.008)
    points = [(0, 0.055), (0.028, 0.125), (0.062, 0.075), (0.072, 0.13), (0.122, 0.085), (0.098, 0.195), (0, 0.205)]
    pen.shape(mirrored(points), GOLD, outline=LINE, line=_FINE)
    for x, y in ((0, 0.052), (0.064, 0.073), (-0.064, 0.073), (0.122, 0.083), (-0.122, 0.083)):
        pen.oval((x, y), 0.015, 0.015, ink)
    pen.curve([(-0.096, 0.176), (0, 0.184), (0.096, 0.176)], ink, 0.02)


def _queen(pen: Pen, ink: Colour) -> None:
    _flower(pen, ink)
    hair = bezier((0, 0.14), (0.1, 0.13), (0.14, 0.22), (0.125, 0.32))
    hair += bezier((0.125, 0.32), (0.12, 0.38), (0.17, 0.4), (0.15, 0.47))
    pen.shape(mirrored([*hair, (0, 0.47)]), HAIR, outline=LINE, line=_FINE)
    _robe(pen, ink)
    _face(pen)
    fringe = bezier((0, 0.19), (0.03, 0.235), (0.07, 0.235), (0.084, 0.27))
    pen.shape(mirrored([(0, 0.16), *fringe, (0.09, 0.2), (0.05, 0.16)]), HAIR)
    pen.oval((0, 0.338), 0.02, 0.009, ink)
    for x in (-0.072, 0.0, 0.072):
        arch = bezier((x - 0.04, 0.185), (x - 0.045, 0.1), (x - 0.01, 0.105), (x, 0.075))
        arch += bezier((x, 0.075), (x + 0.01, 0.105), (x + 0.045, 0.1), (x + 0.04, 0.185))
        pen.shape(arch, GOLD, outline=LINE, line=_FINE)
        pen.oval((x, 0.072), 0.016, 0.016, PALE, outline=LINE, line=_FINE)
        pen.suit("D", (x, 0.145), 0.05, ink)
    pen.curve([(-0.112, 0.188), (0, 0.198), (0.112, 0.188)], LINE, 0.03)
    pen.curve([(-0.11, 0.188), (0, 0.198), (0.11, 0.188)], GOLD, 0.018)


def _jack(pen: Pen, ink: Colour) -> None:
    _spear(pen, ink)
    hair = bezier((0, 0.15), (0.09, 0.15), (0.115, 0.2), (0.112, 0.28))
    hair += bezier((0.112, 0.28), (0.11, 0.33), (0.13, 0.36), (0.1, 0.385))
    pen.shape(mirrored([*hair, (0, 0.385)]), HAIR, outline=LINE, line=_FINE)
    _robe(pen, ink)
    _face(pen)
    fringe = [(0, 0.16), (0.09, 0.2), (0.085, 0.262), (0.055, 0.228), (0, 0.222)]
    pen.shape(mirrored(fringe), HAIR)
    pen.curve([(-0.02, 0.34), (0.024, 0.336)], LINE, 0.008)
    cap = bezier((-0.12, 0.205), (-0.15, 0.1), (-0.02, 0.075), (0.06, 0.1))
    cap += bezier((0.06, 0.1), (0.13, 0.12), (0.13, 0.17), (0.118, 0.205))
    pen.shape([*cap, (0, 0.19)], ink, outline=LINE, line=_FINE)
    feather = bezier((-0.07, 0.16), (-0.02, 0.05), (0.06, 0.03), (0.125, 0.06))
    feather += bezier((0.125, 0.06), (0.07, 0.09), (0.03, 0.12), (-0.07, 0.16))
    pen.shape(feather, PALE, outline=LINE, line=_FINE)
    pen.curve([(-0.118, 0.205), (0, 0.19), (0.116, 0.205)], GOLD, 0.022)


def _face(pen: Pen) -> None:
    """Neck is part of the robe; here are head, eyes and nose."""
    pen.oval(_HEAD, 0.084, 0.105, SKIN, outline=LINE, line=_FINE)
    for x in (-0.034, 0.034):
        pen.oval((x, 0.268), 0.011, 0.009, LINE)
        pen.curve(bezier((x - 0.02, 0.25), (x - 0.01, 0.24), (x + 0.01, 0.24), (x + 0.02, 0.25)), LINE, _FINE)
    pen.curve([(0, 0.27), (-0.012, 0.312), (0.006, 0.314)], LINE, _FINE)


def _robe(pen: Pen, ink: Colour) -> None:
    side = bezier((0.045, 0.37), (0.06, 0.42), (0.16, 0.41), (0.2, 0.45))
    side += bezier((0.2, 0.45), (0.235, 0.48), (0.25, 0.53), (0.25, 0.6))
    pen.shape(mirrored([(0, 0.37), *side, (0, 0.6)]), ink, outline=LINE, line=_FINE)
    pen.shape([(-0.045, 0.34), (0.045, 0.34), (0.05, 0.4), (0, 0.44), (-0.05, 0.4)], SKIN, outline=LINE, line=_FINE)
    collar = [(0, 0.44), (0.055, 0.395), (0.105, 0.418), (0.035, 0.6), (0, 0.6)]
    pen.shape(mirrored(collar), PALE, outline=LINE, line=_FINE)
    for y in (0.475, 0.515, 0.555):
        pen.suit("D", (0, y), 0.034, ink)
    for x, y in ((0.12, 0.49), (0.17, 0.52), (0.11, 0.56), (0.205, 0.56)):
        for mirror in (x, -x):
            pen.suit("D", (mirror, y), 0.045, GOLD)


def _belt(pen: Pen, ink: Colour) -> None:
    """What joins the figure to its reflection."""
    pen.shape([(-0.25, 0.552), (0.25, 0.552), (0.25, 0.6), (-0.25, 0.6)], GOLD, outline=LINE, line=_FINE)
    for step in range(-4, 5):
        pen.suit("D", (step * 0.056, 0.58), 0.04, ink)


def _sceptre(pen: Pen, ink: Colour) -> None:
    _staff(pen, 0.15)
    pen.oval((0.185, 0.13), 0.03, 0.03, GOLD, outline=LINE, line=_FINE)
    pen.curve([(0.185, 0.07), (0.185, 0.1)], LINE, 0.014)
    pen.curve([(0.168, 0.083), (0.202, 0.083)], LINE, 0.014)
    pen.oval((0.185, 0.13), 0.012, 0.012, ink)


def _flower(pen: Pen, ink: Colour) -> None:
    _staff(pen, 0.15)
    for x, y in ((0, -0.033), (0.031, -0.01), (0.019, 0.027), (-0.019, 0.027), (-0.031, -0.01)):
        pen.oval((0.185 + x, 0.125 + y), 0.021, 0.021, ink, outline=LINE, line=_FINE)
    pen.oval((0.185, 0.125), 0.017, 0.017, GOLD)


def _spear(pen: Pen, ink: Colour) -> None:
    _staff(pen, 0.12)
    blade: list[Point] = [(0.185, 0.06), (0.215, 0.125), (0.195, 0.165), (0.175, 0.165), (0.155, 0.125)]
    pen.shape(blade, PALE, outline=LINE, line=_FINE)
    pen.shape(oval((0.185, 0.175), 0.022, 0.012), ink)


def _staff(pen: Pen, top: float) -> None:
    pen.curve([(0.185, top), (0.185, 0.58)], LINE, 0.022)
    pen.curve([(0.185, top), (0.185, 0.58)], GOLD, 0.01)
