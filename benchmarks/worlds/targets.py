"""Targets that tell good routes from poor ones, taken from what was recorded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from daitn.sim.learning.recordings import Node, Route

__all__ = ["suggested"]

_SHARE = 0.25
"""Of the routes with two visits or more, that reach all targets at once at some visit."""
_QUANTILES = np.linspace(0.95, 0.05, 19)


def suggested(nodes: Mapping[Route, Node]) -> dict[str, float]:
    """Per objective a target; the same quantile of what nodes reach, the highest that still
    enough routes reach in all objectives at once. None where nothing was recorded.
    """
    visited = [node for route, node in nodes.items() if route]
    if not visited:
        return {}
    names = list(visited[0].measured)
    values = {
        node.route: np.array([node.measured[name].value for name in names]) for node in visited
    }
    begun = {route[:-1] for route in values}
    walked = [
        np.array([values[route[:length]] for length in range(1, len(route) + 1)])
        for route in values
        if route not in begun and len(route) > 1
    ]
    every = np.array(list(values.values()))
    for quantile in _QUANTILES:
        aims = np.floor(np.quantile(every, quantile, axis=0) * 100) / 100
        reached = [bool((route >= aims).all(axis=1).any()) for route in walked]
        if reached and float(np.mean(reached)) >= _SHARE:
            break
    return dict(zip(names, map(float, aims), strict=True))
