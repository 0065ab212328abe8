"""Reads a model's answer: real JSON first, then the loose layout that models are taught. Bounded, and never raises.

{"cards": ["A", "3"], "formula": "1+3=4"}            JSON: whole text, any spacing
…thoughts… "cards": ['A', '3'], "formula": "1+3=4"   loose: one space after the colon, formula on one line
"""

import json
import re
from typing import Any

MAX_ANSWER_CHARS = 16_384  # what lies beyond is not read; an answer of 512 tokens has about 2,000
NOTHING = "None"  # what an absent or unusable field reads as

_decode = json.JSONDecoder().decode
_FIELDS = ("formula", "cards", "number", "action", "current observation", "current instruction")
_LOOSE = {key: f'"{key}": ' for key in _FIELDS}
_UNWRAPPED = re.compile(r"[\[\]'\" ]")


def text_field(answer: str, key: str) -> str:
    """The string under `key`, or "None" where there is none, e.g. because JSON holds a number there."""
    found = _json_object(answer)
    if found is not None and key in found:
        text = found[key]
        return text if isinstance(text, str) else NOTHING
    answer = answer[:MAX_ANSWER_CHARS]
    opening = _LOOSE[key] + '"'
    start = answer.find(opening)
    while start >= 0:
        start += len(opening)
        stop = answer.find('"', start)
        if stop < 0:
            return NOTHING
        text = answer[start:stop]
        if "\n" not in text:
            return text
        start = answer.find(opening, start)
    return NOTHING


def list_field(answer: str, key: str, length: int) -> tuple[str, ...]:
    """The items of the list under `key` as text, `()` unless there are exactly `length`: `['A', 3]` is ("A", "3")."""
    found = _json_object(answer)
    if found is not None and key in found:
        items = found[key]
        usable = isinstance(items, list) and all(type(item) in (str, int) for item in items)
        return tuple(_text(item) for item in items) if usable and len(items) == length else ()
    answer = answer[:MAX_ANSWER_CHARS]
    start = answer.find(_LOOSE[key] + "[")
    stop = answer.find("]", start)
    if start < 0 or stop < 0:
        return ()
    items = _UNWRAPPED.sub("", answer[start + len(_LOOSE[key]) : stop]).split(",")
    return tuple(items) if len(items) == length else ()


def _json_object(answer: str) -> dict[str, Any] | None:
    """The answer as a JSON object, None where it is none. Of equal keys the last counts."""
    if len(answer) > MAX_ANSWER_CHARS or not _may_be_object(answer.strip()):
        return None
    try:
        found = _decode(answer)
    except (ValueError, RecursionError):  # ValueError also for integers of more than 4,300 digits
        return None
    return found if isinstance(found, dict) else None


def _may_be_object(text: str) -> bool:
    """False for the loose layout too, whose last comma JSON refuses: three times as fast as hearing that from its decoder."""
    return text[:1] == "{" and text[-1:] == "}" and text[:-1].rstrip()[-1:] != ","


def _text(item: str | int) -> str:
    return item if isinstance(item, str) else str(item)
