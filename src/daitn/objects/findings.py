"""What verification units find by asking deployed models."""

from __future__ import annotations

import msgspec

from daitn.objects.identifiers import Digest, SiteId

__all__ = ["Attestation", "Finding"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What an MPVU measured of one deployment on one topic, by asking it as a query owner would.

    A later finding of the same unit on the same deployment and topic replaces an earlier one.
    """

    verifier: SiteId
    site: SiteId
    """The facility."""
    deployment: str
    manifest: Digest | None
    """As the facility advertised it when it was asked."""
    topic: str
    metric: str
    value: float
    standard_error: float
    items: int
    """Test items over which `value` was measured."""
    at_s: float
    degraded: bool = False
    """It answers significantly worse than it did before: it is to be asked no more, but by units
    that see whether it is well again."""
    before: float | None = None
    """Where it is degraded: the value from which it fell."""


class Attestation(msgspec.Struct, frozen=True, kw_only=True):
    """A finding, signed over its canonical bytes with the key of the unit's site."""

    finding: Finding
    signature: str
