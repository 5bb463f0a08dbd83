"""Targets that distinguish good routes from poor ones, derived from recordings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from daitn.sim.learning.recordings import RecordedModel, Route

__all__ = ["suggested"]

_SHARE = 0.25
"""Of the routes with two visits or more, that reach all targets at once after some visit."""
_QUANTILES = np.linspace(0.95, 0.05, 19)


def suggested(nodes: Mapping[Route, RecordedModel]) -> dict[str, float]:
    """Per objective a target. None where nothing was recorded.

    For the first two objectives it is the same quantile of what models reach, the highest that
    still enough routes reach in both at once; further ones stand beside the first one's.
    """
    values = {
        route: np.array([score.value for score in node.measured.values()])
        for route, node in nodes.items()
        if route
    }
    begun = {route[:-1] for route in values}
    walked = [
        np.array([values[route[:length]] for length in range(1, len(route) + 1)])
        for route in values
        if route not in begun and len(route) > 1
    ]
    if not walked:
        return {}
    every = np.array(list(values.values()))
    aims = np.array(
        [_rounded(every[:, column], _QUANTILES[-1]) for column in range(every.shape[1])]
    )
    pair = [0, 1][: len(aims)]
    _raise(aims, pair, every, walked)
    for column in range(2, len(aims)):
        _raise(aims, [column], every, walked, beside=0)
    names = next(iter(nodes.values())).measured
    return dict(zip(names, map(float, aims), strict=True))


def _raise(
    aims: NDArray[np.float64],
    columns: list[int],
    every: NDArray[np.float64],
    walked: list[NDArray[np.float64]],
    beside: int | None = None,
) -> None:
    """Set `aims` of these objectives to the highest quantile that enough routes reach."""
    asked = columns if beside is None else [beside, *columns]
    for quantile in _QUANTILES:
        for column in columns:
            aims[column] = _rounded(every[:, column], quantile)
        reached = [(route[:, asked] >= aims[asked]).all(axis=1).any() for route in walked]
        if float(np.mean(reached)) >= _SHARE:
            return


def _rounded(values: NDArray[np.float64], quantile: float) -> float:
    return float(np.floor(np.quantile(values, quantile) * 100) / 100)
