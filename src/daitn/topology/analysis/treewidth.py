"""An upper bound on a graph's treewidth: how far it is from a tree (1) or a cycle (2).

Eliminate the nodes one by one, connecting the neighbours of each; the largest number of neighbours
at an elimination is a bound. The order decides how tight it is: fewest neighbours first, or fewest
added edges first. Source: Bodlaender and Koster, "Treewidth computations I. Upper bounds",
Information and Computation 208(3), 2010.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from itertools import combinations

__all__ = ["Neighbours", "treewidth_at_most"]

Neighbours = Mapping[int, frozenset[int]]

_MIN_FILL_NODES = 300
"""Above this size minimum fill-in takes seconds, so only minimum degree is used."""


def treewidth_at_most(neighbours: Neighbours) -> int:
    """The better bound of the two orders. 0 for a graph without edges.

    `neighbours` must be symmetric and free of loops.
    """
    bound = _eliminate(neighbours, _degree)
    if len(neighbours) <= _MIN_FILL_NODES:
        bound = min(bound, _eliminate(neighbours, _fill_in))
    return bound


Cost = Callable[[dict[int, set[int]], int], int]


def _degree(left: dict[int, set[int]], node: int) -> int:
    return len(left[node])


def _fill_in(left: dict[int, set[int]], node: int) -> int:
    return sum(b not in left[a] for a, b in combinations(left[node], 2))


def _eliminate(neighbours: Neighbours, cost: Cost) -> int:
    left = {node: set(around) for node, around in neighbours.items()}
    heap = [(cost(left, node), node) for node in left]
    heapq.heapify(heap)
    width = 0
    # With only bound + 1 nodes left, no node can have more neighbours than the bound.
    while heap and len(left) > width + 1:
        counted, node = heapq.heappop(heap)
        if node not in left:
            continue
        now = cost(left, node)
        if counted != now:
            heapq.heappush(heap, (now, node))
            continue
        around = left.pop(node)
        width = max(width, len(around))
        for one in around:
            left[one] |= around
            left[one] -= {one, node}
        for one in around:
            heapq.heappush(heap, (cost(left, one), one))
    return width
