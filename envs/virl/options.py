"""The options of V-IRL, and a position as people write one down."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StrictStr, field_validator, model_validator

from envs.base import Config
from envs.virl import prompts
from envs.virl.routes import COMPASS

Legs = tuple[Annotated[int, Field(ge=1, le=12)], Annotated[int, Field(ge=1, le=12)]]


class VirlOptions(Config):
    """One variant of the task. Two variants with equal options are the same task."""

    model_config = ConfigDict(strict=True)

    actions: Literal["absolute", "relative"] = "absolute"
    """What a turn is named by: one of eight compass words, or left, right, slightly left, slightly right."""
    modality: Literal["language", "vision"] = "language"
    """How the present position is shown: the landmark in words, or four street views in a picture."""
    viter: int = Field(2, ge=1, le=1000)
    """Verification iterations: how many answers are judged at a position before the episode ends."""
    rewards: Literal["paper", "reference"] = "paper"
    """`paper` ends an episode with its last attempt; `reference` spends one more call on saying that the limit is reached,
    and doubles the braces in its messages, as the original does."""
    city: str = Field("gridport", pattern=r"^[a-z]{1,40}$")
    """The generated city that routes lie in: gridport, oldtown, ringhaven or hillcrest. `routes` goes before it."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Names the generated city and its routes."""
    legs: Annotated[Legs, Field(strict=False)] = (2, 3)
    """Fewest and most legs of a generated route."""
    routes: str | None = None
    """A route file in the original's format; null takes generated routes."""
    panoramas: str | None = None
    """A folder of panoramas in the original's format, for vision on the routes of a file."""
    straight_line_length: int = Field(2, ge=0, le=50)
    """Steps along a leg."""
    drop_rate: float = Field(0.0, ge=0, lt=1, strict=False)
    """Chance of a step to be left out, drawn for each task."""
    split: Literal["all", "train", "held_out"] = "all"
    """Which routes are walked. A fixed tenth, named by the routes' ids, is held out."""
    deals: int | None = Field(None, ge=1, le=100_000)
    """Only this many distinct tasks, repeated; null draws without end."""
    resolution: int = Field(1200, ge=32, le=4096)
    """Side of the picture of four views, in pixels."""
    legacy_headings: bool = False
    """Reproduce the original's relative words, which do not wrap at 360 degrees: wrong for a quarter of all turns."""
    legacy_grid: bool = False
    """Reproduce the original's order of views: back left, front left, front right, back right."""
    legacy_intersections: bool = False
    """Reproduce the original's check of claims about intersections, which reads the landmark's name for the answer."""
    legacy_legs: bool = False
    """Reproduce what the original makes of legs of up to 5 m, after which each instruction is told one position late, and of
    two steps that share a panorama, which it walks twice."""

    @field_validator("legs")
    @classmethod
    def _legs_rise(cls, legs: tuple[int, int]) -> tuple[int, int]:
        if legs[0] > legs[1]:
            raise ValueError("the fewest legs come first")
        return legs

    @model_validator(mode="after")
    def _pictures_can_be_had(self) -> Self:
        if self.modality == "vision" and self.routes is not None and self.panoramas is None:
            raise ValueError("routes: a route file in vision needs its panoramas; name their folder under panoramas")
        if self.panoramas is not None and self.routes is None:
            raise ValueError("panoramas: these belong to a route file; name it under routes")
        return self


class Spot(Config):
    """One position of a rail, as people write it."""

    action: StrictStr
    """The right action: `forward()`, `stop()`, `turn_direction(north)`."""
    landmark: StrictStr
    """What is observed: "Blue Lantern Cafe is on your left", "No landmarks nearby"."""
    intersection: StrictStr
    """"You observe an intersection", or nothing."""
    instruction: StrictStr
    """The line that is followed."""

    @field_validator("action")
    @classmethod
    def _is_an_action(cls, action: str) -> str:
        turns = [prompts.turn(word) for word in (*COMPASS, *prompts.RELATIVE)]
        if action not in (prompts.FORWARD, prompts.STOP, *turns):
            raise ValueError(f"no action; write {prompts.FORWARD}, {prompts.STOP} or turn_direction(x)")
        return action
