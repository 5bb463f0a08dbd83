"""The scaling of a table's columns, which travels with the model that learned from them.

It is published in steps too wide for one record: two models made around a change of one record
seldom differ in it, and then by a step, whatever the record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from daitn.learning.classifier.complaints import some_columns
from daitn.learning.classifier.config import ANY_COLUMN
from daitn.learning.classifier.parts import Standard
from daitn.learning.classifier.table import different_rows
from daitn.learning.recipe import DataFault, Fault

__all__ = ["merged", "scale_of", "shared", "stated"]

_TAIL = 10
"""Number of values at either end of a column that are replaced by the next one, so that no outlier
shows."""
_RECORDS_STEP = 5
"""Number of records that together move a mean or a share by a step, like the items of measured
values."""
_LEAST_SHARE = 0.05
"""Minimum step of the share of records with a value."""


def shared(features: NDArray[np.float32], least_records: int) -> NDArray[np.float32]:
    """The features, without the values of columns based on too few records.

    The scaling would tell the value of the only record that has one, or how many records differ
    from all others. A column with one value throughout goes too: nothing can be learned from it,
    it often stands for missing values, and merged with other sites' it would spoil their scale.
    """
    kept = features.copy()
    once = features[different_rows(features)]
    for column, values in zip(kept.T, once.T, strict=True):
        present = values[np.isfinite(values)]
        _, counts = np.unique(present, return_counts=True)
        usual = counts.max(initial=0)
        unusual = len(present) - usual
        if len(present) < least_records or unusual < min(max(1, least_records), usual):
            column[:] = np.nan
    return kept


def stated(ranges: Mapping[str, tuple[float, float]], columns: Sequence[str]) -> Standard:
    """The scaling stated by the model's owner: for values spread evenly over each column's range.

    Raises `DataFault` for a column without one.
    """
    found = [ranges.get(column, ranges.get(ANY_COLUMN)) for column in columns]
    missing = [column for column, each in zip(columns, found, strict=True) if each is None]
    if missing:
        raise DataFault(
            Fault.OTHER_COLUMNS,
            f"model.config.ranges has none for {some_columns(missing)}",
            field="model.config.ranges",
            fix=f"state the range of every column, or one for all others as {ANY_COLUMN!r}",
        )
    low, high = np.array(found, np.float64).reshape(-1, 2).T
    count = torch.ones(len(columns), dtype=torch.float64)
    return Standard(
        mean=_single((low + high) / 2), var=_single((high - low) ** 2 / 12), count=count
    )


def scale_of(features: NDArray[np.float32], examples: int) -> Standard:
    """The scaling of each column, in coarse steps, after a visit on this many examples."""
    columns = [_column(column[np.isfinite(column)], len(column)) for column in features.T]
    mean, var, share = np.array(columns, np.float64).reshape(-1, 3).T
    return Standard(mean=_single(mean), var=_single(var), count=torch.from_numpy(examples * share))


def _column(present: NDArray[np.float32], records: int) -> tuple[float, float, float]:
    """Mean, variance and share of records with a value, in steps."""
    if not len(present):
        return 0.0, 0.0, 0.0
    values = np.sort(present.astype(np.float64))
    tail = min(_TAIL, (len(values) - 1) // 4)
    low, high = float(values[tail]), float(values[-1 - tail])
    values = values.clip(low, high)
    mean, deviation = float(values.mean()), float(values.std())
    if high > low:
        mean = _stepped(mean, max(deviation / 4, _RECORDS_STEP * (high - low) / len(values)))
    share = _stepped(len(values) / records, max(_LEAST_SHARE, _RECORDS_STEP / records))
    if deviation > 0.0:
        deviation = math.sqrt(2.0) ** round(2.0 * math.log2(deviation))
    return mean, deviation**2, min(1.0, max(share, _LEAST_SHARE))


def _stepped(value: float, step: float) -> float:
    """The nearest multiple of a step, which is rounded up to a power of two so that it reveals
    nothing."""
    whole = 2.0 ** math.ceil(math.log2(step))
    return round(value / whole) * whole


def merged(known: Standard | None, here: Standard) -> Standard:
    """Mean and variance of each column over earlier data and this site's, weighted by the number of
    examples with a value (Chan, Golub and LeVeque 1979: pairwise update of variances)."""
    if known is None:
        return here
    old_mean, old_var = known.mean.double().numpy(), known.var.double().numpy()
    mean, var, seen = here.mean.double().numpy(), here.var.double().numpy(), here.count.numpy()
    count = known.count.numpy() + seen
    share = seen / np.where(count > 0.0, count, 1.0)
    gap = mean - old_mean
    return Standard(
        mean=_single(old_mean + share * gap),
        var=_single((1 - share) * old_var + share * var + share * (1 - share) * gap**2),
        count=torch.from_numpy(count),
    )


def _single(values: NDArray[np.float64]) -> Tensor:
    """As 32-bit floats, clipped: the square of a large value does not fit."""
    most = np.finfo(np.float32).max
    return torch.from_numpy(values.clip(-most, most).astype(np.float32))
