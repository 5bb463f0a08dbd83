"""Rosters are taken from the root key alone, and never back in time."""

from __future__ import annotations

import msgspec
import pytest

from daitn.identity.keys import SigningKey
from daitn.identity.roster import open_roster, sign_roster
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, InvalidInput, Refused
from daitn.objects.roster import Kind, Member, Roster, SignedRoster
from daitn.objects.wire import encode

ROOT = SigningKey.generate()
SITE = Member(
    name="ghr",
    kind=Kind.SITE,
    public_key=SigningKey.generate().public,
    until_s=900.0,
    roles=(Role.DATA,),
)


def roster(**changes: object) -> Roster:
    plain = Roster(network="test", version=3, issued_at_s=0.0, until_s=1000.0, members=(SITE,))
    return msgspec.structs.replace(plain, **changes)


def opened(signed: SignedRoster, known: Roster | None = None, now_s: float = 1.0) -> Roster:
    return open_roster(signed, ROOT.public, now_s, known)


def test_a_signed_roster_is_taken() -> None:
    assert opened(sign_roster(roster(), ROOT)) == roster()
    assert opened(sign_roster(roster(version=4), ROOT), roster()).version == 4
    assert opened(sign_roster(roster(), ROOT), roster()) == roster()


def test_another_key_or_other_bytes_are_not() -> None:
    signed = sign_roster(roster(), ROOT)
    with pytest.raises(Corrupt):
        opened(sign_roster(roster(), SigningKey.generate()))
    for place in range(0, len(signed.roster), 7):
        changed = bytearray(signed.roster)
        changed[place] ^= 1
        with pytest.raises(Corrupt):
            opened(SignedRoster(roster=bytes(changed), signature=signed.signature))
    loose = encode(roster()) + b""
    with pytest.raises(Corrupt):
        opened(SignedRoster(roster=loose, signature=ROOT.sign(loose)))


def test_an_old_an_expired_or_a_foreign_roster_is_refused() -> None:
    with pytest.raises(Refused, match="older than 4"):
        opened(sign_roster(roster(), ROOT), roster(version=4))
    with pytest.raises(Refused, match="expired"):
        opened(sign_roster(roster(), ROOT), now_s=1000.0)
    with pytest.raises(Refused, match="network"):
        opened(sign_roster(roster(network="other", version=9), ROOT), roster())


def test_members_are_current_until_they_or_the_roster_end() -> None:
    assert roster().current(0.0) == {SITE.public_key: SITE}
    assert roster().current(900.0) == {}
    assert roster(until_s=500.0).current(500.0) == {}


def test_nobody_shares_a_key_or_a_name() -> None:
    same_key = msgspec.structs.replace(SITE, name="other")
    same_name = msgspec.structs.replace(SITE, public_key=SigningKey.generate().public)
    owner = msgspec.structs.replace(same_name, kind=Kind.OWNER)
    roster(members=(SITE, owner))
    for other in (same_key, same_name):
        with pytest.raises(InvalidInput, match="share"):
            Roster(network="t", version=1, issued_at_s=0.0, until_s=1.0, members=(SITE, other))
