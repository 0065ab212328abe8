"""Server-sent events as tests read them."""

import json


def events_of(text: str) -> list[tuple[str, dict]]:
    """Each event with its data."""
    blocks = [block.split("\n", 1) for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]
