"""Which walks a variant deals: routes of a generated city or of a file, split, and laid out as rails."""

import hashlib
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

from envs.base import ConfigError, DataError, seed_of
from envs.task import Task
from envs.virl import cities
from envs.virl.options import VirlOptions
from envs.virl.rail import Position, Snap, Ways, instructions_of, rail_of
from envs.virl.routes import Route, read_routes

NAME = "virl"
ROUTES = 600  # of a generated city, where it has so many of these lengths
_HELD_OUT = 26  # of 256 parts
_DRAWS = 100  # tries for each distinct walk of a finite pool


class Walks:
    """The tasks of one variant."""

    def __init__(self, options: VirlOptions, resolved: dict[str, Any]):
        self._options, self._resolved = options, resolved
        self._ways = Ways(
            actions=options.actions, straight_line_length=options.straight_line_length, drop_rate=options.drop_rate,
            legacy_headings=options.legacy_headings, legacy_legs=options.legacy_legs,
        )  # fmt: skip
        self._laid = lru_cache(maxsize=4096)(self._lay)

    @property
    def source(self) -> str:
        """Where pictures come from, as a key begins."""
        return "pano" if self._options.routes else f"{self._options.city}:{self._options.seed}"

    def task(self, *counters: int | str) -> Task:
        """The walk of these counters."""
        if self._options.deals is None:
            return self._drawn(*counters)
        return self._pool[seed_of(NAME, "deals", *counters) % len(self._pool)]

    def _drawn(self, *counters: int | str) -> Task:
        number = seed_of(NAME, *counters) % len(self._routes)
        return self._laid(number, () if self._is_one_walk(self._routes[number]) else counters)

    def _is_one_walk(self, route: Route) -> bool:
        """Whether nothing of a route is drawn for each task."""
        return self._options.drop_rate == 0 and route.init_heading != 0

    @cached_property
    def _pool(self) -> list[Task]:
        """The first `deals` distinct walks of a fixed order, so that a smaller pool is a part of a larger one."""
        wanted = self._options.deals or 0
        if wanted > len(self._routes) and all(map(self._is_one_walk, self._routes)):
            raise ConfigError(f"{NAME} options: deals: {wanted}: only {len(self._routes)} different walks exist")
        pool: dict[str, Task] = {}
        for draw in range(_DRAWS * wanted):
            task = self._drawn("pool", draw)
            pool.setdefault(task.id, task)
            if len(pool) == wanted:
                return list(pool.values())
        raise ConfigError(f"{NAME} options: deals: {wanted}: only {len(pool)} different walks were found")

    @cached_property
    def _routes(self) -> tuple[Route, ...]:
        """The routes of the split.

        Raises:
            DataError: the route file is missing or malformed, or none of its routes belongs to the split.
        """
        options = self._options
        every = read_routes(options.routes) if options.routes else _as_many(options.city, options.seed, options.legs)
        held_out = options.split == "held_out"
        chosen = tuple(route for route in every if options.split == "all" or is_held_out(route) == held_out)
        if not chosen:
            where = options.routes or options.city
            raise DataError(f"{where}: none of its {len(every)} routes belongs to the split {options.split!r}")
        return chosen

    def _lay(self, number: int, counters: tuple[int | str, ...]) -> Task:
        route = self._routes[number]
        if route.init_heading == 0:  # any, as the original has it
            route = replace(route, init_heading=1 + seed_of(NAME, "facing", route.id, *counters) % 359)
        rail = rail_of(route, self._ways, route.id, *counters, snap=self._snap)
        lines = instructions_of(route, legacy_headings=self._options.legacy_headings)
        return Task(
            environment=NAME, options=self._resolved, id=_id(route, rail),
            data={"instructions": list(lines), "rail": [entry(position) for position in rail]},
        )  # fmt: skip

    @cached_property
    def _snap(self) -> Snap | None:
        if self._options.panoramas is None:
            return None
        from envs.virl.panoramas import panoramas  # here, since it loads Pillow

        return panoramas(self._options.panoramas).near


def entry(position: Position) -> list[Any]:
    """A position as tasks hold it, so that whoever judges one needs neither city nor file. See `navigation`."""
    return [
        position.action, position.observation, bool(position.intersection), position.instruction_idx,
        position.heading, list(position.geocode),
    ]  # fmt: skip


def is_held_out(route: Route) -> bool:
    """Whether a route belongs to the fixed tenth that `split="train"` never deals."""
    return hashlib.sha256(f"{NAME}/{route.id}".encode("utf-8", "surrogatepass")).digest()[0] < _HELD_OUT


@lru_cache(maxsize=16)
def generated(city: str, seed: int, legs: tuple[int, int], count: int = ROUTES) -> tuple[Route, ...]:
    """`count` routes of a generated city. Raises ConfigError where there is no such city, DataError where it has fewer."""
    return cities.routes(cities.city(city, seed), count=count, seed=seed, legs=legs)


def _as_many(city: str, seed: int, legs: tuple[int, int]) -> tuple[Route, ...]:
    """600 routes, or the first half of them, or of that half, where the city has fewer of these lengths."""
    count = ROUTES
    while True:
        try:
            return generated(city, seed, legs, count)
        except DataError:
            if count == 1:
                raise
            count //= 2


def _id(route: Route, rail: tuple[Position, ...]) -> str:
    """The route's id and, in eight hexadecimal digits, which of its walks this is: equal ids are equal rails."""
    walk = ";".join(f"{p.geocode[0]:.6f},{p.geocode[1]:.6f},{p.heading}" for p in rail)
    return f"{route.id}#{hashlib.sha256(walk.encode()).hexdigest()[:8]}"
