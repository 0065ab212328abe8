"""The picture of a key: what is seen in four directions from a place, as `[H, W, 3] uint8`.

gridport:0:40.719123,-73.981456@119     drawn from a city of our own: name, seed, place and heading
pano:40.719123,-73.981456@119           cut from a panorama of the user's

key ─► City ─► streets ─► streets_drawing ─┐
   └► panoramas ─► views.perspective ──────┴► views.grid
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np

from envs.base import DataError
from envs.virl import views
from envs.virl.cities import NAMES, city
from envs.virl.panoramas import panoramas
from envs.virl.streets import Scene

KEY = re.compile(
    r"(?:(?P<city>[a-z]{1,20}):(?P<seed>\d{1,19})|pano)"
    r":(?P<lat>-?\d{1,2}\.\d{6}),(?P<lng>-?\d{1,3}\.\d{6})@(?P<heading>\d{1,3})"
)

_KEPT_BYTES = 256 * 2**20  # pictures of one kind: 5,000 at 128 pixels, more than a training city has
_DETAIL = 0.2  # metres, for each pixel of a view, within which small things are drawn
_LEAST_DETAIL, _MOST_DETAIL = 24.0, 150.0


def key(source: str, geocode: Sequence[float], heading: float) -> str:
    """The key of a picture from `source`, which is "city:seed" or "pano"."""
    return f"{source}:{geocode[0]:.6f},{geocode[1]:.6f}@{round(heading) % 360}"


@lru_cache(maxsize=8)
def album(resolution: int, legacy_grid: bool, folder: str | None) -> Callable[[str], np.ndarray]:
    """The pictures of one kind, by key; the latest ones are kept. See `picture`."""
    return lru_cache(maxsize=max(4, _KEPT_BYTES // (3 * resolution**2)))(
        partial(picture, resolution=resolution, legacy_grid=legacy_grid, folder=folder)
    )


def picture(key: str, *, resolution: int, legacy_grid: bool = False, folder: str | None = None) -> np.ndarray:
    """Four views around: [resolution, resolution, 3] uint8, read-only, a function of its arguments and the user's files.

    Raises:
        DataError: the key names no place, or the user's panorama there is missing or damaged.
    """
    found = KEY.fullmatch(key)
    if found is None:
        raise DataError(f"image {key[:60]!r}: no place; one is written like 'gridport:0:40.719123,-73.981456@119'")
    place = float(found["lat"]), float(found["lng"])
    heading = int(found["heading"]) + (views.LEGACY_TURN if legacy_grid else 0)
    size = views.view_size(resolution)
    if found["city"] is not None:
        if found["city"] not in NAMES:
            raise DataError(f"image {key[:60]!r}: no such city; known ones are {', '.join(NAMES)}")
        around = _drawn(found["city"], int(found["seed"]), place, heading, size)
    elif folder is None:
        raise DataError(f"image {key[:60]!r}: no folder of panoramas is given; set the option panoramas")
    else:
        around = [panoramas(folder).view(place, heading + turn, size) for turn in (0, 90, 180, 270)]
    pixels = views.grid(around, resolution)
    pixels.flags.writeable = False
    return pixels


def panorama(name: str, seed: int, geocode: tuple[float, float], height: int) -> np.ndarray:
    """All that is seen from a place of a city: [height, 2·height, 3] uint8, its left edge at north."""
    from envs.virl import streets_drawing

    faces = streets_drawing.views(_scene(name, seed, geocode, height // 2), 0, height, streets_drawing.ALL)
    return views.panorama({face: np.asarray(view) for face, view in faces.items()}, height)


def _drawn(name: str, seed: int, geocode: tuple[float, float], heading: int, size: int) -> list[np.ndarray]:
    from envs.virl import streets_drawing

    shown = streets_drawing.views(_scene(name, seed, geocode, size), heading, size)
    return [np.asarray(view) for view in shown.values()]


@lru_cache(maxsize=32)
def _scene(name: str, seed: int, geocode: tuple[float, float], size: int) -> Scene:
    from envs.virl import streets

    where = city(name, seed)
    return streets.scene(where, where.place(geocode), min(max(_DETAIL * size, _LEAST_DETAIL), _MOST_DETAIL))
