"""Which walks a variant deals: routes of a generated city or of a file, split, and laid out as rails."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from envs.base import ConfigError, DataError, seed_of
from envs.task import Task
from envs.virl.options import VirlOptions
from envs.virl.rail import Position, Snap, Ways, instructions_of, rail_of
from envs.virl.routes import Route, read_routes

NAME = "virl"
ROUTES = 600  # of a generated city: the smallest has some 670 with two or three legs
_HELD_OUT = 26  # of 256 parts


class Walks:
    """The tasks of one variant."""

    def __init__(self, options: VirlOptions, resolved: dict[str, Any]):
        self._options, self._resolved = options, resolved
        self._ways = Ways(
            actions=options.actions, straight_line_length=options.straight_line_length, drop_rate=options.drop_rate,
            legacy_headings=options.legacy_headings, legacy_legs=options.legacy_legs,
        )  # fmt: skip
        self._laid = lru_cache(maxsize=4096)(self._lay)
        self._pool: list[Task] = []

    def task(self, *counters: int | str) -> Task:
        """The walk of these counters."""
        if self._options.deals is None:
            return self._drawn(*counters)
        return self._finite_pool()[seed_of(NAME, "deals", *counters) % self._options.deals]

    @property
    def source(self) -> str:
        """Where pictures come from, as a key begins."""
        return "pano" if self._options.routes else f"{self._options.city}:{self._options.seed}"

    def _drawn(self, *counters: int | str) -> Task:
        routes = self._routes
        number = seed_of(NAME, *counters) % len(routes)
        is_fixed = self._options.drop_rate == 0 and routes[number].init_heading != 0
        return self._laid(number, () if is_fixed else counters)

    def _finite_pool(self) -> list[Task]:
        """The first `deals` distinct walks of a fixed order, so that a smaller pool is a part of a larger one."""
        wanted = self._options.deals or 0
        if not self._pool:
            if wanted > len(self._routes) and self._options.drop_rate == 0:
                raise ConfigError(f"{NAME} options: deals: {wanted}: only {len(self._routes)} different routes exist")
            pool: dict[str, Task] = {}
            for draw in range(100 * wanted):
                task = self._drawn("pool", draw)
                pool.setdefault(task.id, task)
                if len(pool) == wanted:
                    break
            if len(pool) < wanted:
                raise ConfigError(f"{NAME} options: deals: {wanted}: so many different walks were not found")
            self._pool = list(pool.values())
        return self._pool

    @property
    def _routes(self) -> tuple[Route, ...]:
        options = self._options
        return _chosen(options.routes, options.city, options.seed, options.legs, options.split)

    def _lay(self, number: int, counters: tuple[int | str, ...]) -> Task:
        route = self._routes[number]
        if route.init_heading == 0:  # any, as the original has it
            facing = 1 + seed_of(NAME, "facing", route.id, *counters) % 359
            route = Route(
                id=route.id, start=route.start, init_heading=facing, destination=route.destination, legs=route.legs
            )
        rail = rail_of(route, self._ways, route.id, *counters, snap=self._snap())
        lines = instructions_of(route, legacy_headings=self._options.legacy_headings)
        return task_of_rail(self._resolved, _id(route, rail), lines, rail)

    def _snap(self) -> Snap | None:
        if self._options.panoramas is None:
            return None
        from envs.virl.panoramas import panoramas

        return panoramas(self._options.panoramas).near


def task_of_rail(options: dict[str, Any], id: str, lines: tuple[str, ...], rail: tuple[Position, ...]) -> Task:
    """A task that holds its whole rail: whoever judges it needs neither city nor file."""
    entries = [
        [p.action, p.observation, bool(p.intersection), p.instruction_idx, p.heading, list(p.geocode)] for p in rail
    ]
    return Task(environment=NAME, options=options, id=id, data={"instructions": list(lines), "rail": entries})


def _id(route: Route, rail: tuple[Position, ...]) -> str:
    """The route's id and, in eight hexadecimal digits, which of its walks this is: equal ids are equal rails."""
    walk = ";".join(f"{p.geocode[0]:.6f},{p.geocode[1]:.6f},{p.heading}" for p in rail)
    return f"{route.id}#{hashlib.sha256(walk.encode()).hexdigest()[:8]}"


@lru_cache(maxsize=32)
def _chosen(path: str | None, city: str, seed: int, legs: tuple[int, int], split: str) -> tuple[Route, ...]:
    """The routes of a file, or of a generated city, that belong to a split."""
    if path is not None:
        every = _file(path, Path(path).stat().st_mtime_ns if Path(path).exists() else 0)
    else:
        every = generated(city, seed, legs)
    chosen = tuple(r for r in every if split == "all" or is_held_out(r) == (split == "held_out"))
    if not chosen:
        raise DataError(f"{path or city}: none of its {len(every)} routes belongs to the split {split!r}")
    return chosen


@lru_cache(maxsize=8)
def _file(path: str, changed: int) -> tuple[Route, ...]:  # noqa: ARG001 - `changed` tells a new file of that name
    return read_routes(path)


@lru_cache(maxsize=16)
def generated(city: str, seed: int, legs: tuple[int, int], count: int = ROUTES) -> tuple[Route, ...]:
    """Routes of a generated city. Raises ConfigError where there is no such city."""
    from envs.virl import cities

    return cities.routes(cities.city(city, seed), count=count, seed=seed, legs=legs)


def is_held_out(route: Route) -> bool:
    """Whether a route belongs to the fixed tenth that `split="train"` never deals."""
    return hashlib.sha256(f"{NAME}/{route.id}".encode()).digest()[0] < _HELD_OUT
