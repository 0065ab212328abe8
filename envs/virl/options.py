"""The options of V-IRL, and positions and walks as they come from outside."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from envs.base import Config
from envs.virl import cities, prompts
from envs.virl.routes import COMPASS
from envs.virl.verifier import CLAIM

Legs = Annotated[int, Field(ge=1, le=12)]


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
    city: str = cities.TRAINED
    """The generated city that routes lie in: gridport, oldtown, ringhaven or hillcrest. `routes` goes before it."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Names the generated city and its routes."""
    legs: tuple[Legs, Legs] = (2, 3)
    """Fewest and most legs of a generated route."""
    routes: str | None = None
    """A route file in the original's format; null takes generated routes."""
    panoramas: str | None = Field(None, validate_default=True)
    """A folder of panoramas in the original's format, for vision on the routes of a file."""
    straight_line_length: int = Field(2, ge=0, le=50)
    """Steps along a leg."""
    drop_rate: float = Field(0.0, ge=0, lt=1)
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

    @field_validator("city")
    @classmethod
    def _is_a_city(cls, city: str) -> str:
        if city not in cities.NAMES:
            raise ValueError(f"no city of ours; known cities are {', '.join(cities.NAMES)}")
        return city

    @field_validator("legs", mode="before")
    @classmethod
    def _are_two(cls, legs: Any) -> Any:
        if not isinstance(legs, list | tuple) or len(legs) != 2:
            raise ValueError("write the fewest and the most, as [2, 3]")
        return tuple(legs)

    @field_validator("legs")
    @classmethod
    def _legs_rise(cls, legs: tuple[int, int]) -> tuple[int, int]:
        if legs[0] > legs[1]:
            raise ValueError("the fewest legs come first")
        return legs

    @field_validator("panoramas")
    @classmethod
    def _belong_to_routes(cls, panoramas: str | None, info: ValidationInfo) -> str | None:
        routes, modality = info.data.get("routes"), info.data.get("modality")
        if panoramas is None and routes is not None and modality == "vision":
            raise ValueError("a route file in vision needs its panoramas; name their folder here")
        if panoramas is not None and routes is None:
            raise ValueError("panoramas belong to a route file; name it under routes")
        return panoramas

    @model_serializer(mode="wrap")
    def _as_tasks_name_it(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """JSON values alone; and no looks in `language`, where they change nothing."""
        options: dict[str, Any] = {**dump(self), "legs": list(self.legs)}
        if self.modality == "language":
            for look in ("resolution", "legacy_grid"):
                options.pop(look, None)
        return options


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
        return _checked_action(action)

    @field_validator("intersection")
    @classmethod
    def _is_told_or_empty(cls, intersection: str) -> str:
        if intersection and CLAIM not in intersection:
            raise ValueError(f"no intersection; write {prompts.AT_INTERSECTION!r}, or '' where there is none")
        return intersection


class Walk(Config):
    """A whole walk, as the `data` of its task holds it."""

    instructions: list[StrictStr] = Field(min_length=1, max_length=100)
    """Its lines."""
    rail: list[tuple[StrictStr, StrictStr, StrictBool, StrictInt, StrictInt, tuple[float, float]]] = Field(
        min_length=1, max_length=500
    )
    """Of each position the right action, what is seen, whether it is an intersection, the number of the line that is
    followed, the heading, and the geocode."""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        for action, _, _, line, *_ in self.rail:
            try:
                _checked_action(action)
            except ValueError as error:
                raise ValueError(f"rail: {action[:40]!r}: {error}") from None
            if not 0 <= line < len(self.instructions):
                raise ValueError(f"rail: line {line} is none of the {len(self.instructions)} instructions")
        return self


def _checked_action(action: str) -> str:
    turns = [prompts.turn(word) for word in (*COMPASS, *prompts.RELATIVE)]
    if action not in (prompts.FORWARD, prompts.STOP, *turns):
        raise ValueError(
            f"no action; write {prompts.FORWARD}, {prompts.STOP} or {prompts.turn('x')}, x being one of "
            f"{', '.join((*COMPASS, *prompts.RELATIVE))}"
        )
    return action
