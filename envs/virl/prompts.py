"""The words of V-IRL: what the model is asked, how an answer is laid out, and what it hears back.

Every text is fixed phrases with few holes: numbers, names of places, and the words for directions. `PHRASES` lists the
fixed parts, so that a tokenizer may hold each as one token.
"""

import json
import re
from collections.abc import Sequence

from envs.virl import milestones
from envs.virl.routes import COMPASS

RELATIVE = ("left", "right", "slightly left", "slightly right")
SPATIAL = ("front", "right front", "right", "right behind", "behind", "left behind", "left", "left front")
"""Where a landmark is, clockwise from ahead."""

# ---------------------------------------------------------------- observations, instructions, actions
NO_LANDMARKS = "No landmarks nearby"  # along a street
NO_LANDMARK = milestones.NO_LANDMARK  # at a turning point
AT_INTERSECTION = "You observe an intersection"
FOUR_VIEWS = "You observe an image of 4 views"
FORWARD, STOP = "forward()", "stop()"
_ON_YOUR = " is on your "
_DESTINATION = "The destination "
_FIRST, _TURN, _TO_FACE = "First, turn ", "Turn ", " to face "
_MOVE = "Move forward until you reach next intersection"
_ARRIVE = "Move forward until you reach destination"
_WHERE = " where "


def turn(word: str) -> str:
    """The action that turns: `turn_direction(north)`."""
    return f"turn_direction({word})"


def landmark(name: str, spatial: str) -> str:
    return f"{name}{_ON_YOUR}{spatial}"


def destination(name: str, spatial: str) -> str:
    return f"{_DESTINATION}{name}{_ON_YOUR}{spatial}"


def turn_instruction(is_first: bool, relative: str, absolute: str) -> str:
    return f"{_FIRST if is_first else _TURN}{relative}{_TO_FACE}{absolute}."


def move_instruction(seen: str, *, is_last: bool) -> str:
    """Args: seen: the landmark's observation at the end of the leg, or that there is none."""
    where = "" if seen in (NO_LANDMARK, NO_LANDMARKS) else f"{_WHERE}{seen}"
    return f"{_ARRIVE if is_last else _MOVE}{where}."


def observation(seen: str, intersection: str) -> str:
    """`No landmarks nearby; `: what stands behind O_n. The second half is empty away from intersections."""
    return f"{seen}; {intersection}"


# ---------------------------------------------------------------- the question
_TASK = (
    "[Task Description]\nYou are an expert in navigation. You walk through a city by the instructions below, and choose "
    "one action at a time from what you observe and what you did before.\n\n[Instruction]\n"
)
_FORMAT = (
    "\n[Observation format]\nYou see a picture of four street views in a 2x2 grid:\n[front, right\n back, left]\n"
    "Look in it for the landmarks that the instructions name, and tell on which side of you they are.\n"
)
_ACTION_SPACE = '\n[Action space]\n"forward()": move one step ahead\n"turn_direction(x)": turn, x being one of '
_STOP = '\n"stop()": end here, at the destination\n'
_SEQUENCE = "\n[Observations and actions sequence]\n"
_OUTPUT = "\n[Output]\nAnswer in the following format:\n"
BLOCK = (
    '{\n  "current observation": what you observe now,\n  "current instruction": the instruction to follow now,\n'
    '  "action": the action to take,\n}'
)
_SPACES = {"absolute": f"8 directions: {', '.join(COMPASS)}", "relative": f"4 directions: {', '.join(RELATIVE)}"}
_O, _A = "O_", "A_"


def question(
    instructions: Sequence[str], past: Sequence[tuple[str, str]], now: str, *, actions: str, sees: bool
) -> str:
    """The whole prompt.

    Args:
        past: what was observed and done at each position before, in order.
        now: the present observation.
        actions: the action space, `absolute` or `relative`.
        sees: the present observation is a picture.
    """
    numbered = "".join(f"{number}. {line}\n" for number, line in enumerate(instructions, start=1))
    steps = "".join(f"{_O}{n}: {seen}\n{_A}{n}: {done}\n" for n, (seen, done) in enumerate(past, start=1))
    n = len(past) + 1
    space = action_space(actions)
    latest = f"{_O}{n}: {now}\n{_A}{n}: \n"
    return f"{_TASK}{numbered}{_FORMAT if sees else ''}{space}{_SEQUENCE}{steps}{latest}{_OUTPUT}{BLOCK}"


def action_space(actions: str) -> str:
    """The section that says what an action may be."""
    return f"{_ACTION_SPACE}{_SPACES[actions]}{_STOP}"


# ---------------------------------------------------------------- the answer
_OBSERVED = '\n{\n  "current observation": "'
_INSTRUCTED = '",\n  "current instruction": "'
_ACTED = '",\n  "action": "'
_DONE = '",\n}'
_UNPLAIN = re.compile(r'["\\\x00-\x1f]')


def answer(observed: str, instruction: str, action: str) -> str:
    """An answer in the layout that models are taught: a trailing comma, as GeneralPoints has it.

    Texts of places whose names hold quotes, backslashes or line breaks are told in JSON, which alone can tell them.
    """
    if _UNPLAIN.search(observed + instruction):
        fields = {"current observation": observed, "current instruction": instruction, "action": action}
        return f"\n{json.dumps(fields, ensure_ascii=False, indent=2)}"
    return f"{_OBSERVED}{observed}{_INSTRUCTED}{instruction}{_ACTED}{action}{_DONE}"


# ---------------------------------------------------------------- the verdict
FAILED = "You failed this trial because "
CORRECT = "Correct action."
LIMIT = "Exceed maximum verify steps"
_AGAIN = " and try again in the same format:\n"
_NOT_AT = "you are not at any intersection. Please avoid this observation"
_AT = "you are at an intersection. Please avoid this observation"
_WRONG = "you make incorrect action. Please avoid this action"


def wrong_action(*, doubled: bool) -> str:
    """Args: doubled: braces stand twice, as in the original's messages."""
    return f"{_WRONG}{_AGAIN}{_braced(doubled)}."


def not_at_intersection(*, doubled: bool) -> str:
    return f"{_NOT_AT}{_AGAIN}{_braced(doubled)}."


def at_intersection(*, doubled: bool) -> str:
    return f"{_AT}{_AGAIN}{_braced(doubled)}."


def _braced(doubled: bool) -> str:
    return BLOCK.replace("{", "{{").replace("}", "}}") if doubled else BLOCK


PHRASES: tuple[str, ...] = (
    NO_LANDMARKS, NO_LANDMARK, AT_INTERSECTION, FORWARD, STOP, "; ", ".", ".\n", ". ", ": ", "\n", _O, _A,
    *(f"{_ON_YOUR}{spatial}" for spatial in SPATIAL), _DESTINATION,
    *(turn(word) for word in (*COMPASS, *RELATIVE)), *COMPASS, *RELATIVE,
    _FIRST, _TURN, _TO_FACE, _MOVE, f"{_MOVE}{_WHERE}", _ARRIVE, f"{_ARRIVE}{_WHERE}{_DESTINATION}", _WHERE,
    _TASK, *map(action_space, _SPACES), _SEQUENCE, f": \n{_OUTPUT}{BLOCK}",
    f": {NO_LANDMARKS}; \n{_A}", f"; \n{_A}", f"; {AT_INTERSECTION}", f"; {AT_INTERSECTION}\n{_A}",
    *(f": {action}\n{_O}" for action in (FORWARD, *(turn(word) for word in (*COMPASS, *RELATIVE)))),
    _OBSERVED, f"{_OBSERVED}{NO_LANDMARKS}; {_INSTRUCTED}", _INSTRUCTED, _ACTED, f".{_ACTED}", _DONE,
    FAILED, CORRECT, LIMIT, wrong_action(doubled=False), not_at_intersection(doubled=False), at_intersection(doubled=False),
)  # fmt: skip
VISION_PHRASES: tuple[str, ...] = (_FORMAT, FOUR_VIEWS)
