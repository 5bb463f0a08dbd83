"""Results of verifiers that query deployed models."""

from __future__ import annotations

import msgspec

from daitn.objects.bounds import Count, Share
from daitn.objects.identifiers import Digest, SiteId, Word
from daitn.objects.moments import Moment

__all__ = ["Attestation", "Finding"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """An MPVU's measurement of one deployment on one topic, made by querying it as an owner would.

    A later finding by the same unit on the same deployment and topic replaces an earlier one.
    """

    verifier: SiteId
    site: SiteId
    """The facility."""
    deployment: Word
    manifest: Digest | None
    """As the facility advertised it at the time."""
    topic: Word
    metric: Word
    value: Share
    standard_error: Share
    items: Count
    """Test items over which `value` was measured."""
    at_s: Moment
    degraded: bool = False
    """It answers significantly worse than before: only verification units, which check whether it
    has recovered, should query it."""
    before: Share | None = None
    """If degraded: the value before the drop; if two-faced: the value in rounds."""
    two_faced: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether it answers examinations better than the same questions asked one by one, or another
    deployment at its site did so lately; `value` is then of the latter, once they are enough. Left
    out if not, so that earlier versions can read the finding."""
    unanswered: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether it answers examinations, but not most of the latest questions asked one by one: the
    facility, or the gateways on the way, refuse them. Likewise left out if not."""


class Attestation(msgspec.Struct, frozen=True, kw_only=True):
    """A finding, signed over its canonical bytes with the key of the unit's site."""

    finding: Finding
    signature: Word
