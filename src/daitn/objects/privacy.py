"""Differential privacy of what models learn: what is wished, demanded and spent.

A visit is (epsilon, delta)-private for a record if whether the record is there changes the
probability of whatever the visit leaves by a factor of at most `exp(epsilon)`, but for a chance of
`delta` (Dwork et al. 2006). A *record* is one line of the data set's file: of a patient with k
records, all together are protected k times less (group privacy).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["NoiseMechanism", "PrivacyDemand", "PrivacySpent", "PrivacyWish"]

Epsilon = Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)]
Delta = Annotated[float, msgspec.Meta(gt=0.0, le=0.01)]
Norm = Annotated[float, msgspec.Meta(ge=1e-6, le=1e6)]
"""Far above what rounding moves sums of 32 bits by."""
Steps = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class PrivacyWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How private the model's owner wants it to be."""

    epsilon: Epsilon
    """What all visits of the job at one data set may tell of a record, together."""
    delta: Delta = 1e-5
    """Chance that a visit tells more; well below one in the number of records."""
    clip: Norm = 1.0
    """Norm to which the gradient of each example is clipped."""
    visits: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1
    """Over how many visits at one data set `epsilon` is spread evenly. A site refuses more."""


class PrivacyDemand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How private a data owner wants every visit to be, and all of them together."""

    epsilon_total: Epsilon
    """What all visits of all jobs may ever tell of a record. Then the data trains no more."""
    epsilon_per_visit: Epsilon
    """What one visit may spend of it."""
    delta: Delta = 1e-5
    """Chance that more is told; well below one in the number of records."""

    def __post_init__(self) -> None:
        if self.epsilon_per_visit > self.epsilon_total:
            raise ValueError("epsilon_per_visit is more than epsilon_total")


class NoiseMechanism(msgspec.Struct, frozen=True, kw_only=True):
    """The Gaussian mechanism on a Poisson sample, some times over: DP-SGD (Abadi et al. 2016)."""

    rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
    """Probability with which a record is in a step."""
    noise: Annotated[float, msgspec.Meta(gt=0.0, le=1e9)]
    """Standard deviation of the noise on a step's sum, in the most that one record adds to it."""
    steps: Steps


class PrivacySpent(msgspec.Struct, frozen=True, kw_only=True):
    """What one visit may tell of any record, in its signed entry."""

    epsilon: Epsilon
    delta: Delta
    clip: Norm
    mechanism: NoiseMechanism
    accountant: str = "rdp"
    """How `epsilon` follows from the mechanism: `rdp` is Rényi differential privacy (Mironov 2017,
    Mironov, Talwar and Zhang 2019)."""
