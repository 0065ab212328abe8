"""From panoramas to views and back: four perspective views of 90 degrees in a square picture, and six views as a panorama.

A panorama is equirectangular: [height, 2·height, 3], its left edge at north, then east, south and west, its top straight up.
Every index map depends on sizes alone and is kept.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

LEGACY_TURN = -135  # degrees from the agent's heading to the first view of the original's picture; the others follow
_GUTTER, _OF = 5, 2405  # pixels of black between the views of the original's picture


def view_size(resolution: int) -> int:
    """The side of each of the four views in a picture of that side."""
    return (resolution - max(1, round(_GUTTER * resolution / _OF))) // 2


def grid(views: Sequence[np.ndarray], resolution: int) -> np.ndarray:
    """Four views, each turned 90 degrees from the one before, as one picture: [first, second / third, fourth].

    With the first at the agent's heading it is [front, right / back, left]. The original's picture begins at -135 degrees: it
    is [back left, front left / front right, back right].
    """
    size = view_size(resolution)
    picture = np.zeros((resolution, resolution, 3), np.uint8)
    far = resolution - size
    for view, (top, left) in zip(views, ((0, 0), (0, far), (far, 0), (far, far)), strict=True):
        picture[top : top + size, left : left + size] = view
    return picture


def perspective(panorama: np.ndarray, heading: float, size: int) -> np.ndarray:
    """The view of 90 degrees at a heading, [size, size, 3] uint8."""
    high, wide = panorama.shape[:2]
    across, down = _sight(size)
    return _sampled(panorama, (across + heading / 360) * wide - 0.5, down * high - 0.5)


def panorama(faces: Mapping[str, np.ndarray], height: int) -> np.ndarray:
    """The panorama of six views at heading 0: `front` to the north, `right`, `back`, `left`, `up` and `down`."""
    size = len(faces["front"])
    atlas = np.concatenate([np.pad(faces[name], ((1, 1), (1, 1), (0, 0)), mode="edge") for name in _ORDER])
    across, down = _atlas(height, size)
    return _sampled(atlas, across, down)


# ---------------------------------------------------------------- within
_ORDER = ("front", "right", "back", "left", "up", "down")


def _sampled(picture: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Colours between pixels, each from its four neighbours. The picture goes on at its other side, and ends above and below."""
    high, wide = picture.shape[:2]
    left, top = np.floor(across), np.clip(np.floor(down), 0, high - 1)
    u, v = (across - left).astype(np.float32)[..., None], np.clip(down - top, 0, 1).astype(np.float32)[..., None]
    x, y = left.astype(np.int64) % wide, top.astype(np.int64)
    x_next, y_next = (x + 1) % wide, np.minimum(y + 1, high - 1)
    flat = picture.reshape(-1, 3)
    above = flat[y * wide + x] * (1 - u) + flat[y * wide + x_next] * u
    below = flat[y_next * wide + x] * (1 - u) + flat[y_next * wide + x_next] * u
    return (above * (1 - v) + below * v + 0.5).astype(np.uint8)


@lru_cache(maxsize=16)
def _sight(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of a view at heading 0 lies in a panorama, as shares of its width and height."""
    edge = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(edge, edge)
    return np.arctan(x) / (2 * np.pi), 0.5 + np.arctan(y / np.sqrt(x * x + 1)) / np.pi


@lru_cache(maxsize=4)
def _atlas(height: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of a panorama lies in six views of that size, one below the other, each with an edge of one pixel."""
    turn = (np.arange(2 * height) + 0.5) / height * np.pi
    rise = np.pi / 2 - (np.arange(height) + 0.5) / height * np.pi
    turn, rise = np.meshgrid(turn, rise)
    east, north, up = np.cos(rise) * np.sin(turn), np.cos(rise) * np.cos(turn), np.sin(rise)
    seen = {  # right, down and forward of each view
        "front": (east, -up, north), "right": (-north, -up, east), "back": (-east, -up, -north), "left": (north, -up, -east),
        "up": (east, north, up), "down": (east, -north, -up),
    }  # fmt: skip
    best = np.argmax(np.stack([seen[name][2] for name in _ORDER]), 0)
    right, down, forward = (np.choose(best, [seen[name][axis] for name in _ORDER]) for axis in range(3))
    across = 1 + size * (right / forward + 1) / 2 - 0.5
    return across, best * (size + 2) + 1 + size * (down / forward + 1) / 2 - 0.5
