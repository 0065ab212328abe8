"""Four street plans of clearly different character, as graphs whose nodes are points in metres.

    gridport    a grid, 29 degrees off north, with four avenues across it and a park
    oldtown     streets as they grew: crossings at any angle
    ringhaven   rings around a centre, and spokes
    hillcrest   a grid bent along the hills: a street's bearing drifts, some streets end blind

Nodes of two streets are bends, all others crossings or ends. Every plan is connected and planar, with streets of 50 m and more
between crossings.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import atan2, cos, degrees, hypot, pi, radians, sin
from random import Random
from typing import TYPE_CHECKING

from envs.virl.city_ground import Point

if TYPE_CHECKING:
    from networkx import Graph

_GRID = 13, 12  # crossings eastwards and northwards
_BLOCK = 90.0, 100.0  # metres
_GRID_BEARING = 29.0  # of the avenues
_PARK = range(1, 4), range(5, 8)  # no crossings here
_DIAGONALS = ((0, 1, 11), (12, -1, 11), (6, 1, 6), (6, -1, 4))  # first column, columns for each row, rows

_OLD_RADIUS, _OLD_SPACING, _OLD_POINTS = 520.0, 66.0, 150
_OLD_LEAST_ANGLE = 40.0  # between two streets of a crossing

_RING_STEP, _RINGS = 84.0, 7
_INNER_SPOKES, _OUTER_SPOKES, _OUTER_FROM = 8, 16, 3
_ARC_PIECE = 47.0  # metres of a ring between bends, at most

_HILL_GRID, _HILL_BLOCK = 13, 104.0
_HILL_PIECES = 3  # of a street between crossings
_HILL_BEND, _HILL_WAVE = 40.0, 580.0  # metres: how far streets swing, and how long a swing is


def gridport(draw: Random) -> "Graph":
    wide, high = _GRID
    park = {(i, j) for i in _PARK[0] for j in _PARK[1]}
    nodes = [(i, j) for i in range(wide) for j in range(high) if (i, j) not in park]
    turn = radians(_GRID_BEARING)
    spots = {}
    for i, j in nodes:
        east, north = (i - wide / 2) * _BLOCK[0], (j - high / 2) * _BLOCK[1]
        spots[i, j] = east * cos(turn) + north * sin(turn), north * cos(turn) - east * sin(turn)
    streets = [(a, (a[0] + di, a[1] + dj)) for a in nodes for di, dj in ((1, 0), (0, 1))]
    across = [((i + k * di, k), (i + (k + 1) * di, k + 1)) for i, di, rows in _DIAGONALS for k in range(rows)]
    plan = _graph(spots, [(a, b) for a, b in streets + across if a in spots and b in spots])
    return _thinned(plan, draw, share=0.08)


def oldtown(draw: Random) -> "Graph":
    import numpy as np

    points: list[Point] = []
    for _ in range(6_000):
        spot = draw.uniform(-_OLD_RADIUS, _OLD_RADIUS), draw.uniform(-_OLD_RADIUS, _OLD_RADIUS)
        if hypot(*spot) < _OLD_RADIUS and all(hypot(spot[0] - x, spot[1] - y) > _OLD_SPACING for x, y in points):
            points.append(spot)
        if len(points) == _OLD_POINTS:
            break
    xy = np.array(points)
    apart = ((xy[:, None] - xy[None]) ** 2).sum(-1)
    middles = (xy[:, None] + xy[None]) / 2
    nearest = ((middles[:, :, None] - xy) ** 2).sum(-1).min(-1)
    # Gabriel's graph: two crossings are joined where no third one lies in the circle between them. It is planar.
    joined = np.argwhere(np.triu(nearest >= apart / 4 - 1e-6, 1)).tolist()
    plan = _graph(dict(enumerate(points)), [(a, b) for a, b in joined if apart[a, b] < 150**2])
    return _thinned(_largest(_without_sharp_corners(plan)), draw, share=0.1)


def ringhaven(draw: Random) -> "Graph":
    spots: dict[tuple[int, int], Point] = {(0, 0): (0.0, 0.0)}
    tilt = draw.uniform(0, 2 * pi)
    steps = 240  # a full turn; every spoke and every bend stands on one of these

    def at(ring: int, step: int) -> tuple[int, int]:
        node = ring, step % steps
        turn = tilt + 2 * pi * node[1] / steps
        spots.setdefault(node, (ring * _RING_STEP * sin(turn), ring * _RING_STEP * cos(turn)))
        return node

    streets = []
    for ring in range(1, _RINGS + 1):
        arc = steps // (_INNER_SPOKES if ring < _OUTER_FROM - 1 else _OUTER_SPOKES)
        pieces = next(p for p in (1, 3, 5) if 2 * pi * ring * _RING_STEP * arc / steps / p <= _ARC_PIECE)
        for begin in range(0, steps, arc):
            streets.append([at(ring, begin + arc * piece // pieces) for piece in range(pieces + 1)])
        for begin in range(0, steps, steps // (_INNER_SPOKES if ring < _OUTER_FROM else _OUTER_SPOKES)):
            streets.append([at(ring - 1, begin if ring > 1 else 0), at(ring, begin)])
    return _thinned(_graph(spots, streets), draw, share=0.06)


def hillcrest(draw: Random) -> "Graph":
    phases = [draw.uniform(0, 2 * pi) for _ in range(4)]

    def bent(i: float, j: float) -> Point:
        x, y = (i - _HILL_GRID / 2) * _HILL_BLOCK, (j - _HILL_GRID / 2) * _HILL_BLOCK
        wave = 2 * pi / _HILL_WAVE
        east = x + _HILL_BEND * sin(wave * y + phases[0]) + 12 * sin(2.3 * wave * x + phases[1])
        north = y + _HILL_BEND * sin(wave * x + phases[2]) + 12 * sin(1.7 * wave * (x + y) + phases[3])
        return east, north

    spots: dict[tuple[float, float], Point] = {}
    streets = []
    for i in range(_HILL_GRID):
        for j in range(_HILL_GRID):
            for di, dj in ((1, 0), (0, 1)):
                if max(i + di, j + dj) < _HILL_GRID:
                    parts = [(i + di * p / _HILL_PIECES, j + dj * p / _HILL_PIECES) for p in range(_HILL_PIECES + 1)]
                    spots.update((part, bent(*part)) for part in parts)
                    streets.append(parts)
    return _with_blind_ends(_thinned(_graph(spots, streets), draw, share=0.14), draw, share=0.06)


PLANS: dict[str, Callable[[Random], "Graph"]] = {
    "gridport": gridport,
    "oldtown": oldtown,
    "ringhaven": ringhaven,
    "hillcrest": hillcrest,
}


def chains(plan: "Graph") -> list[tuple[int, ...]]:
    """Every street from one crossing or blind end to the next, as the nodes along it, each street once."""
    found = []
    for node in plan:
        for after in plan[node] if plan.degree(node) != 2 else ():
            chain = [node, after]
            while plan.degree(chain[-1]) == 2:
                chain.append(next(n for n in plan[chain[-1]] if n != chain[-2]))
            if chain[0] < chain[-1]:
                found.append(tuple(chain))
    return found


# ---------------------------------------------------------------- within
def _graph(spots: dict, streets: Iterable[Sequence]) -> "Graph":
    """The plan of these streets with nodes numbered from 0 in the order of `spots`, each with its `point`."""
    import networkx

    number = {node: index for index, node in enumerate(spots)}
    plan = networkx.Graph()
    plan.add_nodes_from((number[node], {"point": point}) for node, point in spots.items())
    for street in streets:
        networkx.add_path(plan, [number[node] for node in street])
    return plan


def _thinned(plan: "Graph", draw: Random, *, share: float) -> "Graph":
    """The plan without about that share of its streets. It stays connected, and every crossing a crossing."""
    import networkx

    streets = chains(plan)
    for street in draw.sample(streets, round(share * len(streets))):
        if min(plan.degree(street[0]), plan.degree(street[-1])) < 4:
            continue
        pieces = list(pairwise(street))
        plan.remove_edges_from(pieces)
        if networkx.has_path(plan, street[0], street[-1]):
            plan.remove_nodes_from(street[1:-1])
        else:
            plan.add_edges_from(pieces)
    return networkx.convert_node_labels_to_integers(plan)


def _with_blind_ends(plan: "Graph", draw: Random, *, share: float) -> "Graph":
    """The plan with that share of its streets ending blind: their last piece is left out."""
    streets = chains(plan)
    for street in draw.sample(streets, round(share * len(streets))):
        if len(street) > 3 and plan.degree(street[-1]) >= 4:
            plan.remove_edge(*street[-2:])
    return _largest(plan)


def _without_sharp_corners(plan: "Graph") -> "Graph":
    """The longer one of any two streets that leave a crossing in nearly the same direction is left out."""

    def away(a: int, b: int) -> Point:
        (x, y), (u, v) = plan.nodes[a]["point"], plan.nodes[b]["point"]
        return u - x, v - y

    for node in plan:
        for other in sorted(plan[node], key=lambda n: -hypot(*away(node, n))):
            turn = atan2(*away(node, other))
            apart = [abs((degrees(atan2(*away(node, n)) - turn) + 180) % 360 - 180) for n in plan[node] if n != other]
            if apart and min(apart) < _OLD_LEAST_ANGLE and min(plan.degree(node), plan.degree(other)) > 2:
                plan.remove_edge(node, other)
    return plan


def _largest(plan: "Graph") -> "Graph":
    import networkx

    return networkx.convert_node_labels_to_integers(plan.subgraph(max(networkx.connected_components(plan), key=len)))
