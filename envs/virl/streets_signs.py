"""The sign of a landmark: an emblem and the name on a board, as RGBA with clear surroundings.

The emblem says the name once more, for who cannot read it at a few pixels: its shape is the trade, its ground the colour, its
mark the second word. All cities draw the same emblems with their hue turned a little; board and lettering are their own.
"""

import colorsys
from collections.abc import Callable
from functools import cache, lru_cache
from math import cos, pi, sin
from typing import cast

from PIL import Image, ImageDraw, ImageFont

from envs.virl.landmarks import TRADES, parts
from envs.virl.streets_styles import STYLES, Colour, SignStyle

TALL = 1.3  # a board's height in widths
WIDTHS = 32, 64, 128, 256, 480  # pixels of a board that are kept ready
_LEAST_DRAWN = 192  # pixels of a board's width; then scaled down, by half at least
_EMBLEM, _NAME = 0.51, 0.49  # of a board's height
_FONT = 96

GROUNDS: tuple[Colour, ...] = (
    (204, 36, 44), (240, 122, 16), (214, 168, 0), (44, 148, 56), (0, 148, 156), (36, 84, 204), (126, 58, 178), (240, 116, 168),
)  # fmt: skip
ACCENTS: tuple[Colour, ...] = (
    (255, 220, 60), (20, 60, 150), (150, 20, 110), (255, 236, 80), (255, 190, 40), (255, 214, 40), (120, 236, 120), (30, 90, 60),
)  # fmt: skip
WHITE, BLACK = (255, 255, 255), (16, 16, 20)

Shape = list[tuple[float, float]]  # a polygon from -1 to 1 both ways, y down


@lru_cache(maxsize=1024)
def board(city: str, name: str, width: int) -> Image.Image:
    """The board `width` pixels wide, RGBA. Shared: not to be changed."""
    style = STYLES[city].sign
    drawn = max(_LEAST_DRAWN, 2 * width)
    size = drawn, round(drawn * TALL)
    edge = drawn // 28
    colour, mark, trade = parts(name)
    whole = Image.new("RGB", size, style.plate)
    emblem_top = round(size[1] * _NAME) if style.name_first else 0
    name_top = 0 if style.name_first else round(size[1] * _EMBLEM)
    ground = turned(GROUNDS[colour], style.hue_turn)
    ink = turned((WHITE, BLACK, ACCENTS[colour])[mark], style.hue_turn)
    emblem_size = size[0], size[1] - round(size[1] * _NAME)
    whole.paste(emblem(trade, ground, ink, emblem_size), (0, emblem_top))
    _write(whole, name, style, name_top, round(size[1] * _NAME), edge)
    framed = Image.new("RGB", size, style.frame)
    framed.paste(whole, mask=_outline(style.outline, size, edge))
    framed.putalpha(_outline(style.outline, size, 0))
    return framed.resize((width, round(TALL * width)), Image.Resampling.BOX)


def emblem(trade: int, ground: Colour, ink: Colour, size: tuple[int, int]) -> Image.Image:
    """The sign of a trade on its ground."""
    drawn = Image.new("RGB", size, ground)
    pen = ImageDraw.Draw(drawn)
    reach = 0.4 * min(size)
    for shape in SHAPES[TRADES[trade]]():
        fill = ink if shape.inside else ground
        pen.polygon([(size[0] / 2 + x * reach, size[1] / 2 + y * reach) for x, y in shape.points], fill=fill)
    return drawn


def turned(colour: Colour, degrees: float) -> Colour:
    """The colour with its hue turned."""
    hue, light, full = colorsys.rgb_to_hls(*(part / 255 for part in colour))
    red, green, blue = colorsys.hls_to_rgb((hue + degrees / 360) % 1, light, full)
    return round(red * 255), round(green * 255), round(blue * 255)


# ---------------------------------------------------------------- shapes
class Part:
    """A polygon of a shape; what is not `inside` is cut out of those before it."""

    def __init__(self, points: Shape, *, inside: bool = True) -> None:
        self.points, self.inside = points, inside


def _oval(radius: float = 1.0, x: float = 0.0, y: float = 0.0, start: float = 0.0, end: float = 1.0) -> Shape:
    turns = [2 * pi * (start + (end - start) * step / 40) for step in range(41)]
    return [(x + radius * cos(turn), y + radius * sin(turn)) for turn in turns]


def _box(left: float, top: float, right: float, bottom: float) -> Shape:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _star(points: int, inner: float) -> Shape:
    turns = [(pi * step / points - pi / 2, 1.05 if step % 2 == 0 else inner) for step in range(2 * points)]
    return [(radius * cos(turn), radius * sin(turn)) for turn, radius in turns]


def _slanted(by: float) -> Shape:
    corners = [(-0.95, -0.28), (0.95, -0.28), (0.95, 0.28), (-0.95, 0.28)]
    return [(x * cos(by) - y * sin(by), x * sin(by) + y * cos(by)) for x, y in corners]


SHAPES: dict[str, Callable[[], list[Part]]] = {
    " Cafe": lambda: [Part(_oval())],
    " Bakery": lambda: [Part([(x, y + 0.5) for x, y in _oval(1.0, start=0.5, end=1.0)])],
    " Hotel": lambda: [
        Part(_box(-0.9, -1, -0.35, 1)),
        Part(_box(0.35, -1, 0.9, 1)),
        Part(_box(-0.5, -0.25, 0.5, 0.25)),
    ],
    " Theatre": lambda: [Part([(-1, -0.85), (1, -0.85), (0, 1)])],
    " Museum": lambda: [Part([(0, -1), (1, 0.85), (-1, 0.85)])],
    " Library": lambda: [Part(_box(x, -0.95, x + 0.42, 0.95)) for x in (-0.95, -0.21, 0.53)],
    " Pharmacy": lambda: [Part(_box(-0.33, -1, 0.33, 1)), Part(_box(-1, -0.33, 1, 0.33))],
    " Bank": lambda: [Part(_box(-0.85, -0.85, 0.85, 0.85))],
    " Market": lambda: [Part(_box(-0.95, y, 0.95, y + 0.42)) for y in (-0.95, -0.21, 0.53)],
    " Gallery": lambda: [Part(_box(-0.95, -0.95, 0.95, 0.95)), Part(_box(-0.5, -0.5, 0.5, 0.5), inside=False)],
    " Cinema": lambda: [Part([(-0.75, -1), (1, 0), (-0.75, 1)])],
    " Florist": lambda: [Part(_star(5, 0.42))],
    " Tavern": lambda: [Part(_oval()), Part(_oval(0.85, 0.48, -0.1), inside=False)],
    " Garage": lambda: [Part(_oval()), Part(_oval(0.52), inside=False)],
    " Tailor": lambda: [Part(_slanted(pi / 4)), Part(_slanted(-pi / 4))],
    " Jeweller": lambda: [Part([(0, -1.05), (0.8, 0), (0, 1.05), (-0.8, 0)])],
}


# ---------------------------------------------------------------- boards and letters
def _outline(outline: str, size: tuple[int, int], edge: int) -> Image.Image:
    """What lies within the board, `edge` pixels in, as a mask."""
    mask = Image.new("L", size, 0)
    pen = ImageDraw.Draw(mask)
    wide, high = size[0] - 1 - edge, size[1] - 1 - edge
    if outline == "square":
        pen.rectangle((edge, edge, wide, high), fill=255)
    elif outline == "round":
        pen.rounded_rectangle((edge, edge, wide, high), radius=size[0] // 7, fill=255)
    elif outline == "arch":
        pen.pieslice((edge, edge, wide, size[1] * 0.4), 180, 360, fill=255)
        pen.rectangle((edge, round(size[1] * 0.2), wide, high), fill=255)
    else:  # a shield: cut corners
        cut = size[0] // 9
        pen.polygon([(edge + cut, edge), (wide - cut, edge), (wide, edge + cut), (wide, high - cut), (wide - cut, high),
                     (edge + cut, high), (edge, high - cut), (edge, edge + cut)], fill=255)  # fmt: skip
    return mask


def _write(board: Image.Image, name: str, style: SignStyle, top: int, high: int, edge: int) -> None:
    """The name in three lines, as large as there is room."""
    masks = [_letters(word.upper() if style.capitals else word) for word in name.split(" ")]
    above, below = (3.2 * edge, 0.3 * edge) if style.outline == "arch" else (1.3 * edge, 0.9 * edge)
    line = (high - above - below) / len(masks)
    scale = min(0.98 * line / masks[0].height, (board.width - 3.6 * edge) / max(mask.width for mask in masks))
    for number, mask in enumerate(masks):
        size = round(mask.width * scale), round(mask.height * scale)
        corner = (board.width - size[0]) // 2, round(top + above + line * (number + 0.5) - size[1] / 2)
        board.paste(style.letters, corner, mask.resize(size, Image.Resampling.BOX))


@cache
def _letters(text: str) -> Image.Image:
    """The word in bold white on black, as high as capitals with a tail."""
    font = cast(ImageFont.FreeTypeFont, ImageFont.load_default(_FONT))
    stroke = 3
    left, _, right, _ = (int(edge) for edge in font.getbbox(text, anchor="ls", stroke_width=stroke))
    above, below = round(0.78 * _FONT), round(0.22 * _FONT)
    mask = Image.new("L", (right - left, above + below))
    ImageDraw.Draw(mask).text((-left, above), text, fill=255, font=font, anchor="ls", stroke_width=stroke)
    return mask
