"""One playing card. Below 64 pixels of width a large rank over its suit; above, corner marks with pips or a court.

Everything is drawn several times as large and scaled down, so that edges are smooth at any size. Units: card widths.
"""

from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from PIL import Image, ImageDraw, ImageFont

from envs.base import DataError
from envs.general_points import courts
from envs.general_points.hands import WRITTEN
from envs.general_points.shapes import Colour, Pen

PAPER: Colour = (253, 252, 248)
EDGE: Colour = (176, 176, 168)
BLACK: Colour = (22, 24, 30)
RED: Colour = (200, 24, 40)
GREEN: Colour = (0, 120, 58)
BLUE: Colour = (18, 84, 190)
INKS = {"S": BLACK, "C": BLACK, "H": RED, "D": RED}
FOUR_INKS = {"S": BLACK, "C": GREEN, "H": RED, "D": BLUE}

_SMALL = 64  # pixels of card width; narrower cards have no room for pips
_DRAWN_WIDTH = 1024  # pixels; large cards are drawn about as wide and scaled down, by 3 to 8
_SMALL_SCALE = 12
_FONT_SIZE = 256
_SERIF = "mpl-data/fonts/ttf/STIXGeneralBol.ttf"

_LEFT, _MIDDLE, _RIGHT = 0.35, 0.5, 0.65
_TOP, _UPPER, _CENTRE, _LOWER, _BOTTOM = 0.26, 0.5533, 0.7, 0.8467, 1.14
_CORNERS = [(_LEFT, _TOP), (_RIGHT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)]
_SIDES = [(_LEFT, _CENTRE), (_RIGHT, _CENTRE)]
_FOUR_ROWS = [*_CORNERS, (_LEFT, _UPPER), (_RIGHT, _UPPER), (_LEFT, _LOWER), (_RIGHT, _LOWER)]
PIPS = {
    "2": [(_MIDDLE, _TOP), (_MIDDLE, _BOTTOM)],
    "3": [(_MIDDLE, _TOP), (_MIDDLE, _CENTRE), (_MIDDLE, _BOTTOM)],
    "4": _CORNERS,
    "5": [*_CORNERS, (_MIDDLE, _CENTRE)],
    "6": [*_CORNERS, *_SIDES],
    "7": [*_CORNERS, *_SIDES, (_MIDDLE, 0.48)],
    "8": [*_CORNERS, *_SIDES, (_MIDDLE, 0.48), (_MIDDLE, 0.92)],
    "9": [*_FOUR_ROWS, (_MIDDLE, _CENTRE)],
    "T": [*_FOUR_ROWS, (_MIDDLE, 0.4067), (_MIDDLE, 0.9933)],
}


@lru_cache(maxsize=128)
def face(suit: str, rank: str, deck: str, width: int) -> Image.Image:
    """The card `width` pixels wide and 7/5 as high, RGBA with clear corners. Shared: not to be changed."""
    height = width * 7 // 5
    scale = _SMALL_SCALE if width < _SMALL else min(max(-(-_DRAWN_WIDTH // width), 3), 8)
    unit = width * scale
    card = Image.new("RGBA", (unit, height * scale), (*PAPER, 0))
    _blank(card, unit)
    ink = (FOUR_INKS if deck == "four_colour" else INKS)[suit]
    font = "serif" if deck == "serif" else "plain"
    if width < _SMALL:
        _small(card, unit, suit, rank, ink, font)
    else:
        _large(card, unit, suit, rank, ink, font)
    return card.resize((width, height), Image.Resampling.LANCZOS)


def _blank(card: Image.Image, unit: int) -> None:
    edge = max(unit // 90, 1)
    box = (0, 0, card.width - 1, card.height - 1)
    ImageDraw.Draw(card).rounded_rectangle(box, radius=0.07 * unit, fill=(*PAPER, 255), outline=EDGE, width=edge)


def _small(card: Image.Image, unit: int, suit: str, rank: str, ink: Colour, font: str) -> None:
    _write(card, rank, font, ink, unit, centre=0.5, top=0.08, height=0.73, width=0.86)
    Pen(card, unit).suit(suit, (0.5, 1.12), 0.42, ink)


def _large(card: Image.Image, unit: int, suit: str, rank: str, ink: Colour, font: str) -> None:
    corner = Image.new("RGBA", (unit // 4, unit // 2), (*PAPER, 255))
    _write(corner, rank, font, ink, unit, centre=0.11, top=0.02, height=0.19, width=0.19)
    Pen(corner, unit).suit(suit, (0.11, 0.315), 0.135, ink)
    inset = round(0.022 * unit), round(0.055 * unit)
    card.paste(corner, inset)
    card.paste(corner.rotate(180), (card.width - inset[0] - corner.width, card.height - inset[1] - corner.height))
    pen = Pen(card, unit)
    if rank == "A":
        pen.suit(suit, (_MIDDLE, _CENTRE), 0.5, ink)
    elif rank in PIPS:
        for x, y in PIPS[rank]:
            pen.suit(suit, (x, y), 0.165, ink, upside_down=y > _CENTRE)
    else:
        panel = courts.panel(rank, suit, ink, PAPER, unit)
        card.paste(panel, ((card.width - panel.width) // 2, (card.height - panel.height) // 2))


def _write(card: Image.Image, rank: str, font: str, ink: Colour, unit: int, *, centre: float, top: float,
           height: float, width: float) -> None:  # fmt: skip
    """The rank with capitals `height` high, smaller where it has a tail, narrowed where it is wider than `width`."""
    mask, above, below = _letters(WRITTEN[rank], font)
    scale = height * unit / max(above, 0.94 * (above + below))
    size = round(min(mask.width * scale, width * unit)), round((above + below) * scale)
    letters = mask.resize(size, Image.Resampling.LANCZOS)
    card.paste(ink, (round(centre * unit - size[0] / 2), round(top * unit)), letters)


@cache
def _letters(text: str, font: str) -> tuple[Image.Image, int, int]:
    """The text in bold white on black, cut to its width; pixels above the baseline, as high as a K, and below it."""
    drawn = _font(font)
    stroke = _FONT_SIZE // 36 if font == "plain" else 0
    above = stroke - int(drawn.getbbox("K", anchor="ls")[1])
    left, _, right, bottom = (int(edge) for edge in drawn.getbbox(text, anchor="ls", stroke_width=stroke))
    below = max(bottom, 0)
    mask = Image.new("L", (right - left, above + below))
    ImageDraw.Draw(mask).text((-left, above), text, fill=255, font=drawn, anchor="ls", stroke_width=stroke)
    ink_left, _, ink_right, _ = mask.getbbox() or (0, 0, mask.width, 0)
    return mask.crop((ink_left, 0, ink_right, mask.height)), above, below


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    if name == "plain":
        return cast(ImageFont.FreeTypeFont, ImageFont.load_default(_FONT_SIZE))
    found = find_spec("matplotlib")
    folders = list(found.submodule_search_locations or []) if found else []
    path = Path(folders[0]) / _SERIF if folders else Path(_SERIF)
    try:
        return ImageFont.truetype(str(path), _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    except OSError:
        raise DataError("deck 'serif' uses a font of matplotlib, which is not installed; see requirements/") from None
