"""The options of GeneralPoints."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from envs.base import Config


class GeneralPointsOptions(Config):
    """One variant of the game. Two variants with equal options are the same game."""

    model_config = ConfigDict(strict=True)

    target: int = Field(24, ge=-1_000_000, le=1_000_000)
    """The value that the formula must have."""
    face_cards: Literal["ten", "rank"] = "ten"
    """What J, Q and K count as: `ten` is 10 each, `rank` is 11, 12 and 13. An ace is always 1."""
    modality: Literal["language", "vision"] = "language"
    """How the cards are shown: as a list of names, or as a picture that must be recognised first."""
    suits: Literal["mixed", "black", "red"] = "mixed"
    """Suits that are dealt: all four, spades and clubs, or hearts and diamonds."""
    rewards: Literal["paper", "reference"] = "paper"
    """`paper` gives one reward per answer, exact and capped; `reference` gives the original code's sums."""
    viter: int = Field(5, ge=1, le=1000)
    """Verification iterations: how many answers are judged before the episode ends."""
    hands: Literal["all", "train", "held_out"] = "all"
    """Which hands are dealt. A fixed tenth is held out; J, Q and K are one card in that split, so that a held-out hand
    shares its numbers with no training hand under either rule."""
    deals: int | None = Field(None, ge=1, le=100_000)
    """Only this many distinct deals, repeated; null draws new ones without end."""
    min_face_cards: int = Field(0, ge=0, le=4)
    """Deal only hands with at least so many of J, Q and K."""
    resolution: int = Field(1200, ge=64, le=4096)
    """Side of the square picture in pixels; read in `vision` only."""
    deck: Literal["standard", "serif", "four_colour"] = "standard"
    """What the cards of a picture look like: `serif` has ranks in another font, `four_colour` green clubs and blue
    diamonds."""
    scene: Literal["plain", "rotated", "noisy"] = "plain"
    """How the cards of a picture lie there: straight; each turned by a few degrees; or under slanting light with noise.
    Turns, light and noise are those of the hand, the same each time."""

    @field_validator("deck", "scene")
    @classmethod
    def _is_to_be_seen(cls, look: str, info: ValidationInfo) -> str:
        if look not in ("standard", "plain") and info.data.get("modality") == "language":
            raise ValueError("nothing is drawn in modality 'language'; set modality to 'vision'")
        return look

    @model_serializer(mode="wrap")
    def _without_unseen_looks(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """In `language` a look changes nothing, so that it is no part of what names a game."""
        options: dict[str, Any] = dump(self)
        if self.modality == "language":
            for look in ("resolution", "deck", "scene"):
                options.pop(look, None)
        return options


class Table(Config):
    """What lies on the table: the state of a game as people write it."""

    cards: Annotated[list[str], Field(min_length=4, max_length=4)]
    """Four cards, suit then rank: `["C7", "CK", "HT", "CA"]`. The same card may lie there twice."""

    @field_validator("cards")
    @classmethod
    def _are_cards(cls, cards: list[str]) -> list[str]:
        for card in cards:
            if not re.fullmatch("[SHDC][A2-9TJQK]", card):
                raise ValueError(f"{card[:20]!r} is no card; write suit S, H, D or C, then A, 2-9, T, J, Q or K")
        return cards
