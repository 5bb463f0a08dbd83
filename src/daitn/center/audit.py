"""The control centre as a witness of sites' audit logs.

It signs where a log stands, and only if that goes on from what it signed before. So a site cannot
rewrite what it reported on, nor can the control centre deny having been told.
"""

from __future__ import annotations

import logging

from daitn.identity.audit import check_claim, countersign, followed
from daitn.identity.keys import SigningKey
from daitn.objects.audit import AuditClaim, CountersignedHead
from daitn.objects.identifiers import SiteId
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.journal.protocol import Journal

__all__ = ["Witness"]

log = logging.getLogger(__name__)

_KIND = "audit-head"


class Witness:
    """Signs the heads of audit logs, and remembers the latest one of each site."""

    def __init__(self, journal: Journal, key: SigningKey) -> None:
        self._journal = journal
        self._key = key

    def heads(self) -> tuple[CountersignedHead, ...]:
        """The latest signed head of each site's log, by site."""
        stored = self._journal.all(_KIND).values()
        return tuple(decode(head, CountersignedHead) for head in stored)

    def answer(
        self, site: SiteId, claim: AuditClaim | None, public_key: str
    ) -> CountersignedHead | None:
        """The latest signed head of a site's log: that of `claim`, if it continues the previous
        one.

        A claim that begins later or ends earlier than that one is answered with it, and the site
        claims again from there. Raises `Corrupt` for a claim that the site did not sign, and
        `StorageFull`.
        """
        stored = self._journal.get(_KIND, site)
        known = None if stored is None else decode(stored, CountersignedHead)
        if claim is None:
            return known
        digests = followed(claim)
        number = max(digests)
        check_claim(claim, digests[number], public_key)
        if known is not None:
            seen = digests.get(known.number)
            if seen is not None and seen != known.digest:
                log.error(
                    "the audit log of %s does not go on from entry %d as the control centre signed "
                    "it: the site has lost or changed what it reported",
                    site,
                    known.number,
                )
            if seen != known.digest or number == known.number:
                return known
        head = countersign(site, number, digests[number], clock.now_s(), self._key)
        self._journal.put(_KIND, site, encode(head))
        return head
