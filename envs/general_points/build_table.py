"""`python -m envs.general_points.build_table` writes the solutions that are shipped for target 24."""

import gzip
import json
from itertools import combinations_with_replacement

from envs.general_points import hands, solver


def build(target: int) -> dict[str, list[str]]:
    """The table of preferred solutions of all solvable multisets of 1 to 13: `{"1,1,2,6": ["…", …], …}`."""
    multisets = combinations_with_replacement(range(1, len(hands.RANKS) + 1), 4)
    table = {",".join(map(str, values)): list(solver.plainest(values, target, hands.PREFERRED)) for values in multisets}
    return {name: solutions for name, solutions in table.items() if solutions}


def packed(table: dict[str, list[str]]) -> bytes:
    """The table as compressed JSON, the same bytes every time."""
    return gzip.compress(json.dumps(table, separators=(",", ":")).encode(), mtime=0)


if __name__ == "__main__":
    hands.SHIPPED.write_bytes(packed(build(hands.SHIPPED_TARGET)))
