"""The picture of a hand: four cards side by side on a green table, as `[H, W, 3] uint8`.

At 1200 pixels cards are 270 by 378 with their left edges at 5, 302, 599 and 896, centred in height. Other sizes keep
these proportions; the first 5 pixels shrink below 1200 and stay above it.

    cards ─► faces ─► courts ─► shapes
"""

import re
from collections.abc import Callable
from functools import lru_cache, partial
from random import Random

import numpy as np
from PIL import Image

from envs.base import DataError, seed_of
from envs.general_points import faces

TABLE = (53, 101, 77)
KEY = re.compile("([SHDC][A2-9TJQK])-([SHDC][A2-9TJQK])-([SHDC][A2-9TJQK])-([SHDC][A2-9TJQK])")

_KEPT_BYTES = 64 * 2**20  # pictures of one look: 15 at 1200 pixels, 1,365 at 128
_LEAST_TURN, _MOST_TURN = 2.0, 6.0  # degrees, to either side
_TURNED_WIDTH = 0.93  # of a straight card, so that turned ones neither touch nor leave the table
_GRAIN = 20.0  # standard deviation of the noise, of 255
_DIMMEST, _BRIGHTEST = 0.65, 1.1  # light at two ends of the table


@lru_cache(maxsize=8)
def album(deck: str, scene: str, resolution: int) -> Callable[[str], np.ndarray]:
    """The pictures of one look, by key; the latest ones are kept. See `picture`."""
    return lru_cache(maxsize=max(4, _KEPT_BYTES // (3 * resolution**2)))(
        partial(picture, deck=deck, scene=scene, resolution=resolution)
    )


def picture(key: str, *, deck: str, scene: str, resolution: int) -> np.ndarray:
    """The hand `CK-C7-HT-CA` on the table: [resolution, resolution, 3] uint8, read-only, a function of its arguments.

    Raises:
        DataError: the key names no four cards.
    """
    hand = KEY.fullmatch(key)
    if hand is None:
        raise DataError(f"image {key[:40]!r}: no hand; four cards are written like 'CK-C7-HT-CA'")
    draw = Random(seed_of("scene", scene, key))
    width = card_width(resolution)
    table = Image.new("RGB", (resolution, resolution), TABLE)
    for (suit, rank), left in zip(_cards(hand), left_edges(resolution), strict=True):
        if scene == "rotated":
            card = _turned(faces.face(suit, rank, deck, round(width * _TURNED_WIDTH)), _angle(draw))
        else:
            card = faces.face(suit, rank, deck, width)
        table.paste(card, (left + (width - card.width) // 2, (resolution - card.height) // 2), card)
    pixels = np.array(table)
    if scene == "noisy":
        pixels = _noisy(pixels, draw)
    pixels.flags.writeable = False
    return pixels


def _cards(hand: re.Match[str]) -> list[tuple[str, str]]:
    return [(card[0], card[1]) for card in hand.groups()]


def card_width(resolution: int) -> int:
    return int(resolution / 4 * 0.9)


def left_edges(resolution: int) -> list[int]:
    """Where the four cards begin, in pixels."""
    first = max(1, round(5 * min(1.0, resolution / 1200)))
    return [first + int(place * card_width(resolution) * 1.1) for place in range(4)]


def _angle(draw: Random) -> float:
    return draw.choice((-1, 1)) * draw.uniform(_LEAST_TURN, _MOST_TURN)


def _turned(face: Image.Image, degrees: float) -> Image.Image:
    clear = (*faces.PAPER, 0)
    wider = Image.new("RGBA", (face.width + 4, face.height + 4), clear)  # a clear margin, so that edges turn smoothly
    wider.paste(face, (2, 2))
    return wider.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=clear)


def _noisy(pixels: np.ndarray, draw: Random) -> np.ndarray:
    """The picture under slanting light, with grain."""
    side = len(pixels)
    slant = draw.uniform(-1, 1), draw.choice((-1, 1))
    across, down = np.linspace(-0.5, 0.5, side, dtype=np.float32), np.linspace(-0.5, 0.5, side, dtype=np.float32)
    along = (slant[0] * across[None, :] + slant[1] * down[:, None]) / (abs(slant[0]) + 1) + 0.5  # 0 to 1
    light = _DIMMEST + (_BRIGHTEST - _DIMMEST) * along
    grain = np.random.default_rng(draw.getrandbits(63)).standard_normal((side, side), dtype=np.float32) * _GRAIN
    lit = pixels * light[..., None] + grain[..., None]
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)
