"""How many verifiers measure each objective, and the record of one that disagrees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from daitn.objects.identifiers import ObjectiveName, SiteId
from daitn.objects.sampling import COUNT_STEP

__all__ = [
    "BALANCED",
    "LEAST_ITEMS",
    "MOST_VERIFIERS",
    "ONE",
    "PLAIN_SHARES",
    "Disagreement",
    "Quorum",
    "comparable_items",
    "hides_labels",
    "voice_of",
]

LEAST_ITEMS: Final = 100
"""Verifiers are compared only if their test sets have this many items: with fewer, honest values
differ by more than 0.28, so that a lie of that size would pass."""
PLAIN_SHARES: Final = frozenset({"accuracy", "unexposed"})
"""Metrics to which each item counts equally."""
BALANCED: Final = "balanced_accuracy"
"""The mean of such shares, one of each label's items."""

MOST_VERIFIERS = 15
"""Verifiers that measure one objective of one model."""

Verifiers = Annotated[int, msgspec.Meta(ge=1, le=MOST_VERIFIERS)]


class Quorum(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Several verifiers measure each objective, so that none of them decides alone."""

    quorum: Verifiers
    """Number that must agree, within the sampling error of their test sets: more than half of
    `of`. All are of different owners."""
    of: Verifiers
    """Number that are asked; fewer if fewer are connected, but at least `quorum`."""

    def __post_init__(self) -> None:
        if self.quorum > self.of:
            raise ValueError(f"quorum: {self.quorum} of {self.of} cannot agree")
        if 2 * self.quorum <= self.of:
            raise ValueError(f"quorum: {self.quorum} of {self.of} is not a majority: raise it")


ONE = Quorum(quorum=1, of=1)
"""One verifier decides alone."""


def voice_of(site: SiteId, owners: Mapping[SiteId, str]) -> str:
    """Whose voice a site has: its owner's, who has one however many sites it runs, or, where that
    is not among `owners`, its own, which is no owner's."""
    return owners.get(site, f"site:{site}")


def hides_labels(items: int, labels: Mapping[str, int]) -> bool:
    """Whether some items of a test set have labels that it does not show, as too few have them:
    more items than are lost where each label's number is rounded down."""
    return sum(labels.values()) < items - (COUNT_STEP - 1) * len(labels)


def comparable_items(metric: str, items: int, labels: Mapping[str, int]) -> int:
    """Number of items of which a share has at most the sampling error of this metric on a test set
    with these `labels`; 0 if the error is unknown, or if some items have labels too rare to show.

    Balanced accuracy is the mean of K shares, each of its own n items: its variance is at most
    (1/n1 + ... + 1/nK) / 4K^2, that of a share of N items at most 1/4N.
    """
    if metric in PLAIN_SHARES:
        return items
    if metric != BALANCED or not labels or hides_labels(items, labels):
        return 0
    return int(len(labels) ** 2 / sum(1 / max(1, count) for count in labels.values()))


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A verifier's measurement differs from those that agree by more than the sampling error."""

    site: SiteId
    objective: ObjectiveName
    value: float
    """Its measurement."""
    items: int
    """Number of test items behind it."""
    agreed: float
    """The value that counts."""
    others: int
    """Number of verifiers that agree on it."""
    at_s: float

    def __str__(self) -> str:
        return (
            f"{self.site} measured {self.objective} as {self.value:.3f}, "
            f"where {self.others} others agree on {self.agreed:.3f}"
        )
