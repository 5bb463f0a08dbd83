"""How many verifiers measure each objective, and the record of one that disagrees."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.identifiers import ObjectiveName, SiteId

__all__ = ["MOST_VERIFIERS", "ONE", "Disagreement", "Quorum"]

MOST_VERIFIERS = 15
"""Verifiers that measure one objective of one model."""

Verifiers = Annotated[int, msgspec.Meta(ge=1, le=MOST_VERIFIERS)]


class Quorum(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Several verifiers measure each objective, so that none of them decides alone."""

    quorum: Verifiers
    """Number that must agree, within the sampling error of their test sets: more than half of
    `of`."""
    of: Verifiers
    """Number that are asked; fewer if fewer are connected, but at least `quorum`."""

    def __post_init__(self) -> None:
        if self.quorum > self.of:
            raise ValueError(f"quorum: {self.quorum} of {self.of} cannot agree")
        if 2 * self.quorum <= self.of:
            raise ValueError(f"quorum: {self.quorum} of {self.of} is not a majority: raise it")


ONE = Quorum(quorum=1, of=1)
"""One verifier decides alone."""


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
