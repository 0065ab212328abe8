"""A history with images as vLLM takes it, and the proof that it reads it as the learner will.

The house keeps histories with every image expanded to its tokens. vLLM expands placeholders itself, so each expansion is
folded back into one; the prompt that vLLM then reports must be the history that was given, token for token.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from vllm.inputs import TokensPrompt
from vllm.inputs.engine import tokens_input

from envs.base import DataError
from trainers.eyes import Eyes, picture_digest


class Placeholders:
    """Folds the images of one model's histories."""

    def __init__(self, eyes: Eyes | None):
        self._eyes = eyes

    def prompt(self, token_ids: Sequence[int], pictures: Sequence[np.ndarray]) -> Any:
        """vLLM's input. The engine remembers a picture by its content, so that it prepares each one once.

        Raises:
            DataError: the model reads no images, or a picture's tokens are not in the history.
        """
        if not pictures:
            return tokens_input(list(token_ids))
        if self._eyes is None:
            raise DataError(f"{len(pictures)} images for a model that reads text alone; use a vision model")
        return TokensPrompt(
            prompt_token_ids=self._folded(token_ids, pictures),
            multi_modal_data={"image": [Image.fromarray(np.asarray(picture)) for picture in pictures]},
            multi_modal_uuids={"image": [picture_digest(picture) for picture in pictures]},
        )

    def check(self, token_ids: Sequence[int], reported: Sequence[int] | None) -> None:
        """Raises DataError where the engine's own expansion differs from the history's."""
        if list(reported or ()) != list(token_ids):
            raise DataError(
                f"the engine reads the images of a prompt as {len(reported or ())} tokens, the chat format wrote "
                f"{len(token_ids)}; their processors differ, and what is sampled would not be what is trained on"
            )

    def _folded(self, token_ids: Sequence[int], pictures: Sequence[np.ndarray]) -> list[int]:
        assert self._eyes is not None
        left, folded = list(token_ids), []
        for number, picture in enumerate(pictures):
            expansion = list(self._eyes.expansion(picture))
            start = _find(expansion, left)
            if start is None:
                raise DataError(
                    f"image {number} of {len(pictures)}: its {len(expansion)} tokens do not stand in the prompt"
                )
            folded += [*left[:start], self._eyes.image_id]
            left = left[start + len(expansion) :]
        return folded + left


def _find(part: list[int], whole: list[int]) -> int | None:
    """Where `part` first stands in `whole`."""
    places = (i for i, token in enumerate(whole) if token == part[0])
    return next((i for i in places if whole[i : i + len(part)] == part), None)
