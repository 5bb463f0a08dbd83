"""Where trees may split: coarse bins of each column, derived from the scale in the model.

A threshold that lies between two records' values tells both. So thresholds are of a grid that the
model fixes before the visit looks at records other than by their coarse scale
(`daitn.learning.classifier.scale`): steps of an eighth of a deviation, three to either side of the
mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from daitn.learning.classifier.parts import Standard

__all__ = ["BINS", "edges_of", "in_bins", "threshold_of"]

_STEPS = 8
"""Steps per deviation."""
_DEVIATIONS = 3
BINS = 2 * _STEPS * _DEVIATIONS + 2
_FURTHEST = float(np.finfo(np.float32).max)


def edges_of(standard: Standard) -> NDArray[np.float32]:
    """(columns, edges): the possible thresholds of a split, in order."""
    mean, deviation = standard.mean.double().numpy(), standard.var.double().sqrt().numpy()
    steps = np.arange(-_STEPS * _DEVIATIONS, _STEPS * _DEVIATIONS + 1) / _STEPS
    edges = mean[:, None] + steps * deviation[:, None]
    found: NDArray[np.float32] = edges.clip(-_FURTHEST, _FURTHEST).astype(np.float32)
    return found


def in_bins(features: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.float32]:
    """Number of edges at or below each value; missing values stay missing."""
    found = np.empty_like(features)
    for column, of_column in enumerate(edges):
        values = features[:, column]
        number = np.searchsorted(of_column, values, side="right").astype(np.float32)
        found[:, column] = np.where(np.isnan(values), np.float32(np.nan), number)
    return found


def threshold_of(
    column: NDArray[np.int32], above: NDArray[np.float32], edges: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The value below which a column's number of edges is less than `above`. A split of all values
    from the missing ones lies beyond all edges."""
    at = np.ceil(above).astype(np.int64)
    inside = edges[column, (at - 1).clip(0, edges.shape[1] - 1)]
    beyond = np.where(at < 1, np.float32(-_FURTHEST), np.float32(_FURTHEST))
    return np.where((at >= 1) & (at <= edges.shape[1]), inside, beyond)
