"""Certificates for tests, as a network's authority issues them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from daitn.identity.certificates import (
    LASTS_S,
    Issuer,
    found_authority,
    keep,
    requested,
)
from daitn.identity.keys import SigningKey
from daitn.objects.roster import Kind, Member
from daitn.tools import clock

__all__ = ["certified_member"]


def certified_member(
    folder: Path,
    authority: Path,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    *,
    name: str = "site",
    kind: Kind = Kind.SITE,
    lasts_s: float = LASTS_S,
    member_s: float = 86400.0,
) -> Member:
    """A new member with certificates in `folder`; the authority is made if missing."""
    key = SigningKey.at(folder / "roster-key")
    member = Member(
        name=name,
        kind=kind,
        public_key=key.public,
        until_s=clock.wall_s() + member_s,
        hosts=tuple(hosts),
    )
    found_authority(authority)
    issuer = Issuer.authority(authority)
    delegated = issuer.delegate(member) if kind is Kind.CENTER else ""
    keep(folder, issuer.certify(requested(folder), member, lasts_s), issuer=delegated)
    return member
