"""In whose name a site may act: its own owner's, or that of an owner with a mandate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from daitn.identity.grants import GrantBook, read_signed
from daitn.identity.passes import PassBook
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.grants import Mandate
from daitn.objects.header_names import PeerHeader
from daitn.objects.identifiers import SiteId

__all__ = ["Mandates", "SpeaksFor", "stated_owner"]

_MOST_KNOWN = 10_000

SpeaksFor = Callable[[SiteId, Mapping[str, str], float], str]
"""The owner in whose name a site queries, by the headers of its request at seconds since the epoch;
empty means none. Raises `Refused`."""


def stated_owner(site: SiteId, headers: Mapping[str, str], now_s: float) -> str:
    """The owner named in the request, in a network without a roster, where nobody can sign."""
    return headers.get(PeerHeader.OWNER, "")[:200]


class Mandates:
    """Checks in whose name sites query; remembers mandates until they expire or the roster
    changes."""

    def __init__(
        self,
        site: SiteId,
        grants: GrantBook,
        passes: PassBook,
        owner_of: Callable[[SiteId], str | None],
    ) -> None:
        """`owner_of`: who runs a site, by the roster."""
        self._site = site
        self._grants = grants
        self._passes = passes
        self._owner_of = owner_of
        self._known: dict[str, Mandate] = {}

    def forget(self) -> None:
        """Check all mandates again: the roster has changed."""
        self._known.clear()

    def speaks_for(self, site: SiteId, headers: Mapping[str, str], now_s: float) -> str:
        """See `SpeaksFor`. A relaying gateway also shows the pass of the one before it."""
        owner = headers.get(PeerHeader.OWNER, "")
        if not owner or site == self._site:
            return owner
        relayed = headers.get(PeerHeader.ORIGIN_PASS)
        origin = site if relayed is None else self._passes.holder(relayed, now_s)
        self.check(origin, owner, headers.get(PeerHeader.MANDATE, ""), now_s)
        return owner

    def check(self, origin: SiteId, owner: str, mandate: str, now_s: float) -> None:
        """Raise `Refused` unless `origin` may query in the name of `owner`."""
        if owner == self._owner_of(origin):
            return
        if not mandate:
            raise _refused(f"{origin} has no mandate of {owner}")
        known = self.mandate(mandate, now_s)
        if known.owner != owner:
            raise _refused(f"the mandate is {known.owner}'s, and not {owner}'s")
        if origin not in known.gateways:
            raise _refused(f"the mandate is not for {origin}")

    def mandate(self, text: str, now_s: float) -> Mandate:
        """The mandate, if it is valid. Raises `Refused`."""
        known = self._known.get(text)
        if known is None or known.until_s <= now_s:
            try:
                known = self._grants.read(read_signed(text), Mandate)
            except (Refused, Corrupt) as error:
                raise _refused(f"the mandate does not hold: {error.problem}") from None
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[text] = known
        return known


def _refused(why: str) -> Refused:
    return Refused(why, field=PeerHeader.MANDATE, fix="ask with a token of that owner")
