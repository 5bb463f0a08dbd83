"""Differential privacy of training: what is requested, demanded and spent.

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
"""Far above the rounding errors of 32-bit sums."""
Steps = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class PrivacyWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The privacy that the model's owner wants."""

    epsilon: Epsilon
    """Bound on what all visits of the job to one data set together may reveal about a record."""
    delta: Delta = 1e-5
    """Probability that a visit reveals more; must be well below one over the number of records."""
    clip: Norm = 1.0
    """Norm to which the gradient of each example is clipped."""
    visits: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1
    """Number of visits to one data set over which `epsilon` is spread evenly. A site refuses
    more."""


class PrivacyDemand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The privacy that a data owner demands of every visit, and of all of them together."""

    epsilon_total: Epsilon
    """Bound on what all visits of all jobs may ever reveal about a record. Once it is spent, the
    data trains no more models."""
    epsilon_per_visit: Epsilon
    """How much of it one visit may spend."""
    delta: Delta = 1e-5
    """Probability that more is revealed; must be well below one over the number of records."""

    def __post_init__(self) -> None:
        if self.epsilon_per_visit > self.epsilon_total:
            raise ValueError("epsilon_per_visit is more than epsilon_total")


class NoiseMechanism(msgspec.Struct, frozen=True, kw_only=True):
    """The repeated Gaussian mechanism on a Poisson sample: DP-SGD (Abadi et al. 2016)."""

    rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
    """Probability that a step includes a record."""
    noise: Annotated[float, msgspec.Meta(gt=0.0, le=1e9)]
    """Standard deviation of the noise on a step's sum, relative to the maximum contribution of one
    record."""
    steps: Steps


class PrivacySpent(msgspec.Struct, frozen=True, kw_only=True):
    """What one visit may reveal about any record, in its signed entry."""

    epsilon: Epsilon
    delta: Delta
    clip: Norm
    mechanism: NoiseMechanism
    accountant: str = "rdp"
    """How `epsilon` is derived from the mechanism: `rdp` is Rényi differential privacy (Mironov
    2017, Mironov, Talwar and Zhang 2019)."""
