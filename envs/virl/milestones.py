"""The text that a route file holds of a route's legs: a block in braces for each, a field a line.

    {
    "intersection_idx": 0,
    "landmarks": "Blue Lantern Cafe is on your right front",
    "distance": "75 meters",
    "human_heading": "90 (east)",
    "to_next_intersection_heading": "177 (south)"
    }

It is read as JSON, in which names may hold anything. Text that is no JSON, as when a name holds quotes and nobody escaped
them, is read field by field: a quoted value ends with the last quote before the next field, another with its line.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

LANDMARK, DISTANCE, HEADING = "landmarks", "distance", "to_next_intersection_heading"
NO_LANDMARK = "No landmark nearby"  # what stands for a turning point without one
_KNOWN = ("intersection_idx", LANDMARK, DISTANCE, "human_heading", HEADING)
_FIELD = re.compile(rf"""^([ \t{{]*)(?:"([^"\n]{{1,60}})"|'?({"|".join(_KNOWN)})'?)[ \t]*:""", re.MULTILINE)
_QUOTES = ('"', "'")
_BETWEEN = " \t\r,{}"  # what may stand behind a quoted value
_json = json.JSONDecoder(strict=False)  # not strict: a name may run over lines


def read(text: str) -> list[dict[str, Any]]:
    """The fields of every block, in order. Never raises; text without blocks is an empty list."""
    blocks = _json_blocks(text)
    return blocks if blocks is not None else _loose_blocks(text)


def write(blocks: Sequence[Mapping[str, Any]]) -> str:
    """Blocks as text that `read` gives back exactly."""
    return "\n".join(json.dumps(block, ensure_ascii=False, indent=0) for block in blocks)


def _json_blocks(text: str) -> list[dict[str, Any]] | None:
    """The blocks where each is a JSON object, with commas or nothing between; None where one is not."""
    blocks: list[dict[str, Any]] = []
    place = 0
    while place < len(text):
        if text[place].isspace() or text[place] == ",":
            place += 1
            continue
        try:
            block, place = _json.raw_decode(text, place)
        except (ValueError, RecursionError):
            return None
        if not isinstance(block, dict):
            return None
        blocks.append(block)
    return blocks


def _loose_blocks(text: str) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    fields = list(_FIELD.finditer(text))
    ends = [*(field.start() for field in fields[1:]), len(text)]
    opens = True
    for field, end in zip(fields, ends, strict=False):
        key = field[2] or field[3]
        if opens or "{" in field[1] or key in blocks[-1]:
            blocks.append({})
        blocks[-1][key], rest = _value(text[field.end() : end].lstrip())
        opens = "{" in rest or "}" in rest
    return blocks


def _value(text: str) -> tuple[str, str]:
    """What a field says, and what stands behind it."""
    end = text.rfind(text[0]) if text[:1] in _QUOTES else 0
    behind = text[end + 1 :]
    if end <= 0 or behind.partition("\n")[0].strip(_BETWEEN):  # not quoted, or only its beginning
        line, _, behind = text.partition("\n")
        return line.strip().removesuffix(",").rstrip(), behind
    quoted = text[: end + 1]
    try:
        value = _json.decode(quoted)
    except ValueError:
        value = None
    return (value if isinstance(value, str) else quoted[1:-1]), behind
