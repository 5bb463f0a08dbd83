"""The accountant of differential privacy: how much visits together reveal about a record.

In Rényi differential privacy (Mironov 2017, arXiv:1702.07476) what several visits tell adds up,
order by order, also where each is chosen by what earlier ones revealed, and a budget can be kept at
the best order (Lécuyer 2021, arXiv:2103.01379). Neighbours are data sets of which one has one
record more. The orders are whole numbers, for which the divergence of a step has a closed form
(Mironov, Talwar and Zhang 2019, arXiv:1908.10530, section 3.3). The library `dp-accounting` takes
fractions, too: below epsilon 10 it finds at most a hundredth less. It would bring SciPy (110 MB)
and a version of `attrs` from 2023 to every data site.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daitn.objects.errors import InvalidInput
from daitn.objects.privacy import NoiseMechanism, PrivacyDemand, PrivacyWish

__all__ = [
    "NOTHING",
    "PrivacyTerms",
    "epsilon",
    "fits",
    "least_noise",
    "schedule",
    "spent_by",
    "stricter",
    "visits_left",
]

Curve = NDArray[np.float64]
"""What was revealed, for each order."""

_ORDERS = np.array([*range(2, 65), 72, 80, 96, 128, 192, 256, 512, 1024], dtype=np.int64)
NOTHING: Curve = np.zeros(len(_ORDERS))
NOTHING.setflags(write=False)

_LOT_SHARE = 0.25
"""Approximate share of the records in one step of a visit."""
_MOST_LOT = 256
"""Records of a step, about."""
_MOST_NOISE = 1e6
_NOISE_DIGITS = 4
_ROUNDING = 1e-9
"""Tolerance for sums whose terms were added in another order."""
_COUNTED = (0, 1, 2, 5, 10, 20, 50, 100)
"""Steps in which numbers of visits are published."""

_LOG_FACTORIAL = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, _ORDERS[-1] + 1)))))


class PrivacyTerms(NamedTuple):
    """The terms of a visit."""

    noise: float
    """Minimum noise, see `NoiseMechanism.noise`."""
    delta: float
    clip: float


def spent_by(mechanisms: Iterable[NoiseMechanism]) -> Curve:
    """What these revealed together."""
    total = NOTHING.copy()
    for one in mechanisms:
        total += one.steps * _step(one.rate, one.noise)
    return total


def epsilon(curve: Curve, delta: float) -> float:
    """The epsilon for `delta` (Canonne, Kamath and Steinke 2020, arXiv:2004.00010, proposition 12),
    at the best order."""
    if not curve.any():
        return 0.0
    order = _ORDERS
    each = curve + np.log1p(-1.0 / order) - (math.log(delta) + np.log(order)) / (order - 1)
    return max(0.0, float(each.min()))


def least_noise(rate: float, steps: int, most: float, delta: float, times: int = 1) -> float:
    """The least noise with which `times` visits of this many steps spend at most epsilon `most`.
    Raises `InvalidInput` if no noise is enough."""

    def enough(noise: float) -> bool:
        spent = times * steps * _step(rate, noise)
        return epsilon(spent, delta) <= most

    low, high = 1e-2, 1.0
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST_NOISE:
            raise InvalidInput(
                f"no noise keeps {steps} steps within epsilon {most:g} at delta {delta:g}",
                field="training.privacy",
                fix="allow a larger epsilon or delta, or train on fewer examples",
            )
    while high - low > 10.0**-_NOISE_DIGITS * high:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def schedule(samples: int, examples: int) -> tuple[float, int]:
    """Rate and number of the steps of a visit on an average of at most `examples` of `samples`
    records."""
    lot = max(1.0, min(_LOT_SHARE * samples, _MOST_LOT, examples))
    return min(1.0, lot / samples), max(1, int(examples / lot))


def stricter(
    wish: PrivacyWish | None, demand: PrivacyDemand | None, rate: float, steps: int
) -> PrivacyTerms | None:
    """Terms that satisfy both the model owner's wish and the data owner's demand; `None` means
    neither asked for privacy. Raises like `least_noise`."""
    noises, deltas = list[float](), list[float]()
    if wish is not None:
        noises.append(least_noise(rate, steps, wish.epsilon, wish.delta, wish.visits))
        deltas.append(wish.delta)
    if demand is not None:
        noises.append(least_noise(rate, steps, demand.epsilon_per_visit, demand.delta))
        deltas.append(demand.delta)
    if not noises:
        return None
    return PrivacyTerms(max(noises), min(deltas), wish.clip if wish else 1.0)


def fits(spent: Curve, more: Curve, most: float, delta: float) -> bool:
    """Whether a budget permits revealing more."""
    return epsilon(spent + more, delta) <= most * (1 + _ROUNDING)


def visits_left(spent: Curve, demand: PrivacyDemand) -> int:
    """About how many more visits a demand allows, in coarse numbers, rounded down."""
    noise = least_noise(1.0, 1, demand.epsilon_per_visit, demand.delta)
    each = _step(1.0, noise)
    total, delta = demand.epsilon_total, demand.delta
    return max(n for n in _COUNTED if n == 0 or fits(spent, n * each, total, delta))


@lru_cache(maxsize=1024)
def _step(rate: float, noise: float) -> Curve:
    """What one step reveals, at each order. A ledger has many visits of few kinds."""
    if rate == 1.0:
        curve: Curve = _ORDERS / (2 * noise**2)
    else:
        curve = np.array([_at_order(rate, noise, int(order)) for order in _ORDERS])
    curve.setflags(write=False)
    return curve


def _at_order(rate: float, noise: float, order: int) -> float:
    k = np.arange(order + 1)
    choices = _LOG_FACTORIAL[order] - _LOG_FACTORIAL[k] - _LOG_FACTORIAL[order - k]
    terms = choices + (order - k) * math.log1p(-rate) + k * math.log(rate)
    terms += (k * k - k) / (2 * noise**2)
    most = terms.max()
    return float(most + np.log(np.exp(terms - most).sum())) / (order - 1)
