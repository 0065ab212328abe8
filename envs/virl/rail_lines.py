"""The rail of a route in a file, as lines for people and programs: `viter rail`."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from envs.base import ConfigError, validated
from envs.virl.options import VirlOptions
from envs.virl.rail import Ways, rail_of
from envs.virl.routes import read_routes

KEYS = ("action", "observation", "intersection", "instruction", "instruction_idx", "heading", "geocode")


def of_file(path: Path, number: int, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every position of route `number`, in order. An initial heading of 0, which means any, is taken as north.

    Raises:
        ConfigError: an option that cannot be, or no such route.
        DataError: the file is missing or malformed.
    """
    asked = validated(VirlOptions, dict(options), source="viter rail")
    every = read_routes(path)
    if not 0 <= number < len(every):
        held = f"{len(every)} routes, numbered from 0 to {len(every) - 1}" if len(every) > 1 else "1 route, numbered 0"
        raise ConfigError(f"--route {number}: {path} holds {held}")
    ways = Ways(
        actions=asked.actions, straight_line_length=asked.straight_line_length, drop_rate=asked.drop_rate,
        legacy_headings=asked.legacy_headings,
    )  # fmt: skip
    for position in rail_of(every[number], ways, "rail", number):
        row = asdict(position)
        yield {key: row[key] for key in KEYS}
