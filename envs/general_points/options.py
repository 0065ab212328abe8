"""The options of GeneralPoints."""

import re
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator

from envs.base import Config


class GeneralPointsOptions(Config):
    """One variant of the game. Two variants with equal options are the same game."""

    model_config = ConfigDict(strict=True)

    target: int = Field(24, ge=-1_000_000, le=1_000_000)
    """The value that the formula must have."""
    face_cards: Literal["ten", "rank"] = "ten"
    """What J, Q and K count as: `ten` is 10 each, `rank` is 11, 12 and 13. An ace is always 1."""
    modality: Literal["language", "vision"] = "language"
    """How the cards are shown. Only `language` is available."""
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

    @field_validator("modality")
    @classmethod
    def _cards_are_written(cls, modality: str) -> str:
        if modality == "vision":
            raise ValueError("cards as an image are not available; use 'language'")
        return modality


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
