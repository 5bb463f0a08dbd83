"""The control centre's signatures for deployments: owners of bare names, and placements of
models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from daitn.identity.grants import sign_statement
from daitn.identity.keys import SigningKey
from daitn.objects.errors import Refused
from daitn.objects.grants import NameGrant, PlaceGrant, Signed, full_name
from daitn.objects.identifiers import Digest, OwnerId, SiteId, checked_name
from daitn.objects.moments import DAY_S
from daitn.objects.wire import decode, encode
from daitn.tools.journal.protocol import Journal

__all__ = ["PLACE_LASTS_S", "BareNames"]

NAME_LASTS_S = 90 * DAY_S
"""Facilities ask again long before; a name no longer offered is free after this time."""
NAME_LASTS_AT_MOST_S = 366 * DAY_S
"""Maximum, regardless of the owner's grant: otherwise a name that nobody offers would be taken for
ever."""
MOST_NAMES = 1024
"""Limit on bare names per owner, so that nobody takes them all."""
PLACE_LASTS_S = 3600.0
"""A facility that ignores a retirement answers no longer than this; without the control centre, all
its placed models answer this long, less the age of their signatures."""
_KIND = "name"


@dataclass(frozen=True)
class BareNames:
    """Assigns bare names to owners, first come, first served, and stores the list in the journal.
    `owner/name` needs none. Signs places, which are not stored."""

    journal: Journal
    network: str
    key: SigningKey
    wall_s: Callable[[], float]

    def give(self, owner: str, name: str, until_s: float = 0.0) -> Signed:
        """Assign a name to an owner until then, and for at least `NAME_LASTS_S`, or renew it.

        Raises `Refused` while it is another owner's, or if the owner has very many.
        """
        checked_name(name, "name")
        now_s = self.wall_s()
        stored = self.journal.get(_KIND, name)
        known = None if stored is None else decode(stored, NameGrant)
        if known is not None and known.until_s <= now_s:
            known = None
        if known is not None and known.owner != owner:
            raise Refused(
                f"the name {name} is {known.owner}'s in this network",
                field="name",
                fix=f"queries find it as {full_name(owner, name)}; or choose another name",
            )
        if known is None and self._held(owner, now_s) >= MOST_NAMES:
            raise Refused(f"{owner} has {MOST_NAMES} names", field="name", fix="use fewer")
        granted = NameGrant(
            network=self.network,
            owner=OwnerId(owner),
            name=name,
            issued_at_s=known.issued_at_s if known else now_s,
            until_s=max(
                min(until_s, now_s + NAME_LASTS_AT_MOST_S),
                now_s + NAME_LASTS_S,
                known.until_s if known else 0.0,
            ),
        )
        self.journal.put(_KIND, name, encode(granted))
        return sign_statement(granted, self.key)

    def place(self, owner: str, name: str, manifest: Digest, site: SiteId) -> Signed:
        """Sign for `PLACE_LASTS_S` that a facility hosts an owner's model."""
        place = PlaceGrant(
            network=self.network,
            owner=OwnerId(owner),
            name=name,
            manifest=manifest,
            site=site,
            until_s=self.wall_s() + PLACE_LASTS_S,
        )
        return sign_statement(place, self.key)

    def _held(self, owner: str, now_s: float) -> int:
        granted = (decode(stored, NameGrant) for stored in self.journal.all(_KIND).values())
        return sum(one.owner == owner and one.until_s > now_s for one in granted)
