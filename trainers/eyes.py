"""Images as a model takes them: the tokens that stand for one in a prompt, and the numbers its vision tower reads.

    <user> <image> What is …   ─► expansion ─►   <user> <fake> <global> <image> × 16 <fake> What is …
    pixels [H, W, 3]           ─► inputs    ─►   pixel_values, …: what the model's forward takes

Both come from the model's own Hugging Face processor, the very one that the engine asks, so learner and engine see the
same tokens and the same numbers. A model works here if one token, its processor's `image_token`, both stands for an image in
the prompt and marks where its features go: Idefics3, SmolVLM, Qwen-VL; not Gemma 3, which has two.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.base import DataError

if TYPE_CHECKING:
    from torch import Tensor

KEPT_BYTES = 2 << 30  # of prepared pictures: each is looked at in every pass of a step; one of 672 px takes 11 MB
_FILES = ("processor_config.json", "preprocessor_config.json")


class Eyes:
    """The image half of one model's processor."""

    def __init__(self, processor: Any):
        self._processor = processor
        self.image_id: int = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
        """The token that stands for an image before it is expanded, and for each of its patches after."""
        self.expansion_of_size = cache(self._expansion_of_size)
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._kept_bytes = 0

    @classmethod
    def load(cls, directory: Path | str) -> "Eyes | None":
        """The eyes of a model directory, None where it has a tokenizer alone.

        Raises:
            DataError: there is an image processor, but it cannot be loaded.
        """
        if not sees(Path(directory)):
            return None
        from transformers import AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(str(directory))
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{directory}: its image processor cannot be loaded ({reason})") from None
        if not hasattr(processor, "image_token"):
            raise DataError(
                f"{directory}: {type(processor).__name__} has no image token; use a model whose prompt has one"
            )
        eyes = cls(processor)
        if (marks := _feature_token(Path(directory))) not in (None, eyes.image_id):
            raise DataError(
                f"{directory}: the prompt's image token has id {eyes.image_id}, and config.json puts images at {marks}; "
                "models with two such tokens are not supported"
            )
        return eyes

    def expansion(self, pixels: np.ndarray) -> tuple[int, ...]:
        """The token ids that the placeholder of an image [H, W, 3] becomes. They depend on its size alone."""
        return self.expansion_of_size(*pixels.shape[:2])

    def _expansion_of_size(self, height: int, width: int) -> tuple[int, ...]:
        blank = _picture(np.zeros((height, width, 3), np.uint8))
        processor = self._processor
        found = processor(text=[processor.image_token], images=[blank], add_special_tokens=False)["input_ids"][0]
        return tuple(int(token) for token in found)

    def inputs(self, pictures: Sequence[np.ndarray]) -> "dict[str, Tensor]":
        """What the model's forward takes for these pictures, in order of their placeholders. Empty for none."""
        import torch

        prepared = [self._prepared(pixels) for pixels in pictures]
        if not prepared:
            return {}
        # models that nest images by sample (Idefics3) have an axis for the sample before the one of the images
        axis = 1 if prepared[0]["pixel_values"].ndim == 5 else 0
        return {name: torch.cat([each[name] for each in prepared], axis) for name in prepared[0]}

    def _prepared(self, pixels: np.ndarray) -> "dict[str, Tensor]":
        """One picture, prepared once while there is room to keep it."""
        key = picture_digest(pixels)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = dict(self._processor.image_processor(images=[_picture(pixels)], return_tensors="pt"))
        self._kept[key] = found
        self._kept_bytes += _bytes(found)
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= _bytes(self._kept.popitem(last=False)[1])
        return found


def _feature_token(directory: Path) -> int | None:
    """The token at whose places a model puts an image's features, as its config says."""
    config = json.loads((directory / "config.json").read_text()) if (directory / "config.json").is_file() else {}
    found: int | None = config.get("image_token_id", config.get("image_token_index"))
    return found


def sees(directory: Path) -> bool:
    """Whether a model directory has an image processor. Answered from its files, in microseconds."""
    return any(_reads_images(directory / name) for name in _FILES)


def picture_digest(pixels: np.ndarray) -> str:
    """Names a picture by its content: equal names are equal pictures, whatever environment drew them."""
    content = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    content.update(np.ascontiguousarray(pixels).data)
    return content.hexdigest()


def _picture(pixels: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(np.asarray(pixels, np.uint8))


def _bytes(tensors: "dict[str, Tensor]") -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _reads_images(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        settings = json.loads(path.read_text())
    except ValueError:
        raise DataError(f"{path}: not JSON; copy the file from the model again") from None
    return isinstance(settings, dict) and ("image_processor" in settings or "image_processor_type" in settings)
