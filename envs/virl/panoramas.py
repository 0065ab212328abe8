"""Panoramas that a user has, in the original's layout: a folder of street pictures and an index of where they were taken.

    gps_pano_mapping.pkl         {(latitude, longitude): pano_id}
    <pano_id>.jpg                equirectangular
    <pano_id>.metadata.json      {"rotation": degrees from its left edge to north, leftwards, ...}

The index is a pickle, and pickles can run code when they are loaded. This one is not loaded: its instructions are read one by
one, and any that is not needed to write down such a dictionary is refused.
"""

import json
import pickletools
import re
from functools import lru_cache
from math import cos, isfinite, radians
from pathlib import Path
from typing import Any

import numpy as np

from envs.base import DataError
from envs.virl import views
from envs.virl.city_ground import METRES_PER_DEGREE, Geocode

INDEX = "gps_pano_mapping.pkl"
RADIUS = 20.0  # metres within which a panorama serves a place
_MOST_BYTES, _MOST_PIXELS = 256 * 2**20, 200_000_000
_KEPT = 32  # decoded panoramas
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")


class Panoramas:
    """The panoramas of one folder. Reading the index is all that making it does.

    Raises:
        DataError: the folder or its index is missing, or the index is no dictionary of places.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        path = self.folder / INDEX
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise DataError(f"{path}: {path.stat().st_size} bytes; an index has at most {_MOST_BYTES}")
            data = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path}: {error.strerror or error}; give the folder that holds the panoramas and {INDEX}"
            ) from None
        self._ids = read_index(data, source=str(path))
        self._geocodes = list(self._ids)
        self._places = np.array(self._geocodes, float).reshape(-1, 2)

    def near(self, geocode: Geocode) -> Geocode | None:
        """Where the panorama for this place was taken: there, or as near as possible within 20 m; else None."""
        if tuple(geocode) in self._ids:
            return geocode
        if not len(self._places):
            return None
        metres = _metres(self._places, geocode)
        nearest = int(metres.argmin())
        return self._geocodes[nearest] if metres[nearest] < RADIUS else None

    def view(self, geocode: Geocode, heading: float, size: int) -> np.ndarray:
        """What is seen there at a heading, [size, size, 3] uint8.

        Raises:
            DataError: no panorama is near, or its files are missing, damaged or not what they should be.
        """
        spot = self.near(geocode)
        if spot is None:
            raise DataError(f"{self.folder}: no panorama within {RADIUS:.0f} m of {geocode[0]:.6f},{geocode[1]:.6f}; "
                            "leave the route out, or add one to the folder and its index")  # fmt: skip
        pixels, rotation = _loaded(self.folder, self._ids[spot], 4 * size)
        return views.perspective(pixels, heading + rotation, size)


@lru_cache(maxsize=8)
def panoramas(folder: str) -> Panoramas:
    """The panoramas of a folder, whose index is read once."""
    return Panoramas(folder)


def _metres(places: np.ndarray, geocode: Geocode) -> np.ndarray:
    """Great-circle distances, by haversine."""
    rise = np.radians(places[:, 0] - geocode[0]) / 2
    turn = np.radians(places[:, 1] - geocode[1]) / 2
    share = np.sin(rise) ** 2 + np.cos(np.radians(places[:, 0])) * cos(radians(geocode[0])) * np.sin(turn) ** 2
    return 2 * np.degrees(np.arcsin(np.minimum(1, np.sqrt(share)))) * METRES_PER_DEGREE


# ---------------------------------------------------------------- pictures
@lru_cache(maxsize=_KEPT)
def _loaded(folder: Path, pano_id: str, wide: int) -> tuple[np.ndarray, float]:
    """The panorama, about `wide` pixels wide where it is wider, and its rotation."""
    from PIL import Image

    rotation = _rotation(folder / f"{pano_id}.metadata.json")
    path = folder / f"{pano_id}.jpg"
    try:
        with Image.open(path, formats=["JPEG"]) as picture:
            width, height = picture.size
            if abs(width - 2 * height) > 0.05 * width or width * height > _MOST_PIXELS:
                raise DataError(
                    f"{path}: {width} by {height} pixels; an equirectangular panorama is twice as wide as high"
                )
            picture.draft("RGB", (min(wide, width), min(wide, width) // 2))
            shown = picture.convert("RGB")
            if shown.width > wide:
                shown = shown.resize((wide, wide // 2), Image.Resampling.BOX)
    except FileNotFoundError:
        raise DataError(f"{path}: missing, though the index names it; restore it or take it out of {INDEX}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable JPEG picture ({error}); fetch it again") from None
    pixels = np.array(shown)
    pixels.flags.writeable = False
    return pixels, rotation


def _rotation(path: Path) -> float:
    try:
        metadata = json.loads(path.read_bytes())
        rotation = float(metadata["rotation"])
    except FileNotFoundError:
        raise DataError(f"{path}: missing; a panorama needs its rotation from there") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        rotation = float("nan")
    if not isfinite(rotation):
        raise DataError(f"{path}: no object with a number as its 'rotation'; fetch it again")
    return rotation


# ---------------------------------------------------------------- the index
_MARK = object()


def read_index(data: bytes, *, source: str) -> dict[Geocode, str]:
    """The dictionary of places that a pickle spells, read without running it.

    Raises:
        DataError: the bytes are no pickle, need anything but tuples, numbers and strings, or spell something else.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return _checked(stack.pop())
            _step(opcode.name, argument, stack, memo)
    except (ValueError, IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: not an index of panoramas ({str(error)[:120]}); it must be a pickle of "
                        "{(latitude, longitude): pano_id} and of nothing else") from None  # fmt: skip
    raise DataError(f"{source}: the index ends before its dictionary does; fetch it again")


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """One instruction of a pickle."""
    if name in ("PROTO", "FRAME"):
        return
    if name in _VALUES:
        stack.append(argument)
    elif name == "MARK":
        stack.append(_MARK)
    elif name == "EMPTY_DICT":
        stack.append({})
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
        memo[int(argument)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET", "GET"):
        stack.append(memo[int(argument)])
    elif name == "TUPLE2":
        stack[-2:] = [tuple(stack[-2:])]
    elif name == "TUPLE":
        stack.append(tuple(_to_mark(stack)))
    elif name == "DICT":
        items = _to_mark(stack)
        stack.append(dict(zip(items[0::2], items[1::2], strict=True)))
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        stack[-1][key] = value
    elif name == "SETITEMS":
        items = _to_mark(stack)
        stack[-1].update(zip(items[0::2], items[1::2], strict=True))
    else:
        raise ValueError(f"it holds the instruction {name}")


_VALUES = frozenset({
    "BINFLOAT", "FLOAT", "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE",
})  # fmt: skip


def _to_mark(stack: list[Any]) -> list[Any]:
    """What was stacked since the last mark, taken off with it."""
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _checked(index: Any) -> dict[Geocode, str]:
    if not isinstance(index, dict):
        raise ValueError(f"it spells a {type(index).__name__}")
    for key, pano_id in index.items():
        if not (isinstance(key, tuple) and len(key) == 2 and all(isinstance(part, int | float) for part in key)
                and abs(key[0]) <= 90 and abs(key[1]) <= 360):  # fmt: skip
            raise ValueError(f"the key {str(key)[:60]} is no (latitude, longitude)")
        if not isinstance(pano_id, str) or not _ID.fullmatch(pano_id):
            raise ValueError(f"{str(pano_id)[:60]!r} is no id of a panorama")
    return index
