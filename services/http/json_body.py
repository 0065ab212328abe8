"""Whether a body is JSON that every route can read: checked once, before any of them sees it.

What Python's parser would take and others would not is refused, since it fails later and further in: keys that stand
twice, NaN and infinities, numbers beyond 64 bits, half surrogate pairs, and nesting without end.
"""

import json
import math
import re
from typing import Any

DEEPEST = 64
LARGEST = 2**63 - 1
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]", re.ASCII)


class NotJson(Exception):
    """Says in one sentence what is wrong with a body."""


def check(body: bytes) -> None:
    """Returns if `body` is JSON as RFC 8259 means it.

    Raises:
        NotJson: what is wrong, in one sentence.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise NotJson(f"the body is not UTF-8: byte {error.start} is 0x{body[error.start]:02x}") from None
    try:
        value = json.loads(text, object_pairs_hook=_without_twins, parse_constant=_refuse_constant)
    except RecursionError:
        raise NotJson(f"the body is nested deeper than {DEEPEST} levels") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except ValueError:  # Python reads no number of more than 4300 digits
        raise NotJson("the body holds a number of more than 64 bits") from None
    _walk(value, may_hold_surrogates=SURROGATE.search(text) is not None)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twin = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise NotJson(f"the body is ambiguous: the key {twin[:80]!a} stands twice in one object")
    return value


def _refuse_constant(name: str) -> None:
    raise NotJson(f"the body is not JSON: {name} is no JSON number")


def _walk(value: Any, *, may_hold_surrogates: bool) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise NotJson(f"the body is nested deeper than {DEEPEST} levels")
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper += item.values()
                if may_hold_surrogates:
                    deeper += item
            elif isinstance(item, list):
                deeper += item
            elif isinstance(item, str):
                if may_hold_surrogates and not _is_text(item):
                    raise NotJson("the body holds half a surrogate pair, which is no character")
            elif isinstance(item, int):
                if not -LARGEST <= item <= LARGEST:
                    raise NotJson("the body holds a number of more than 64 bits")
            elif isinstance(item, float) and not math.isfinite(item):
                raise NotJson("the body holds a number that is larger than any float")
        level = deeper


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
