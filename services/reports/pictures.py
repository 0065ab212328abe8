"""Pictures of an environment inside a page: drawn again from their keys, made small, and written into the page itself."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import envs
from envs.base import ViterError
from envs.task import Sighted
from services.evaluations.orders import Item

if TYPE_CHECKING:
    import numpy as np

SIDE_PX = 320
"""The longest side in a page."""
BUDGET = 4_000_000
"""Bytes of a page that pictures may take before the rest are left out."""
JPEG_QUALITY = 85


class PictureMissing(ViterError):
    """An episode showed no such picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture as a page shows it, or the sentence that stands in its place."""

    alt: str
    source: str = ""  # a data: URI
    width: int = 0
    height: int = 0
    problem: str = ""


class Pictures:
    """Pictures for one page. Draws until they fill the page's share for them, then leaves the others out."""

    def __init__(self, budget: int = BUDGET):
        self.left_out = 0
        """How many were asked for beyond the budget."""
        self._budget = budget

    def of(self, environment: str, options: Mapping[str, Any], keys: Sequence[str], alt: str) -> tuple[Picture, ...]:
        """The pictures that an environment with these options draws for `keys`; a failure is told in its place."""
        if self._budget <= 0:
            self.left_out += len(keys)
            return ()
        drawn = tuple(_picture(environment, options, key, alt) for key in keys)
        self._budget -= sum(len(picture.source) for picture in drawn)
        return drawn


def _picture(environment: str, options: Mapping[str, Any], key: str, alt: str) -> Picture:
    try:
        made = envs.make(environment, **options)
        if not hasattr(made, "image"):
            return Picture(alt=alt, problem=f"no picture: environment {environment} draws none")
        source, width, height = data_uri(cast(Sighted, made).image(key))
    except ViterError as error:
        return Picture(alt=alt, problem=f"no picture: {error}")
    return Picture(alt=alt, source=source, width=width, height=height)


def data_uri(pixels: "np.ndarray") -> tuple[str, int, int]:
    """[H, W, 3] uint8 as a data: URI, with its width and height in a page: PNG or JPEG, whichever is smaller."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    written = {}
    for kind, settings in (("png", {"optimize": True}), ("jpeg", {"quality": JPEG_QUALITY})):
        file = io.BytesIO()
        image.save(file, kind, **settings)
        written[kind] = file.getvalue()
    kind = min(written, key=lambda name: len(written[name]))
    return f"data:image/{kind};base64,{base64.b64encode(written[kind]).decode()}", image.width, image.height


def picture_of(item: Item, key: str) -> bytes:
    """A picture that an episode showed, as PNG.

    Raises:
        PictureMissing: the episode showed no picture of this key.
    """
    if not any(key in position.images for position in item.positions):
        raise PictureMissing(f"{item.id} showed no picture {key[:80]!r}; its positions name those it showed")
    return png(item.suite.partition("/")[0], item.options, key)


def png(environment: str, options: Mapping[str, Any], key: str) -> bytes:
    """What an environment with these options draws for `key`, in full size."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(cast(Sighted, envs.make(environment, **options)).image(key)).save(file, "png")
    return file.getvalue()
