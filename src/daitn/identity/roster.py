"""Signs and checks rosters with a network's root key."""

from __future__ import annotations

from daitn.identity.keys import SigningKey, check_signature
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.roster import Roster, SignedRoster
from daitn.objects.wire import canonical, decode

__all__ = ["open_roster", "sign_roster"]

_PURPOSE = b"daitn roster 1\0"
"""A signature of a roster is one of nothing else."""


def sign_roster(roster: Roster, root: SigningKey) -> SignedRoster:
    """Sign a roster with the network's root key."""
    text = canonical(roster)
    return SignedRoster(roster=text, signature=root.sign(_PURPOSE + text))


def open_roster(
    signed: SignedRoster, root_public: str, now_s: float, known: Roster | None = None
) -> Roster:
    """The roster, if the root key signed it and it is no older than the `known` one.

    Raises `Corrupt` for a wrong signature or other bytes, `Refused` for an expired roster, one of
    another network, or an older version (a rollback).
    """
    check_signature(root_public, signed.signature, _PURPOSE + signed.roster)
    roster = decode(signed.roster, Roster)
    if canonical(roster) != signed.roster:
        raise Corrupt("the roster is not in canonical form", field="roster", fix="sign it again")
    if now_s >= roster.until_s:
        raise Refused(
            "the roster has expired",
            field="roster",
            fix="renew it: `daitn network renew`; and check this machine's clock",
        )
    if known is None:
        return roster
    if roster.network != known.network:
        raise Refused(
            f"the roster is of the network {roster.network}, and not of {known.network}",
            field="roster",
            fix="join the other network with another state folder",
        )
    if roster.version < known.version:
        raise Refused(
            f"roster {roster.version} is older than {known.version}, which is known here",
            field="roster",
            fix="get the current roster from the network's operator",
        )
    return roster
