"""Grants and mandates hold only as their owner, or a control centre, signed them."""

from __future__ import annotations

import math
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.identity.grants import read_signed, signed_text, split_token
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.grants import DeploymentGrant, Mandate, NameGrant, PlaceGrant, Signed
from tests.scenes.grants import NOW_S, Members

MEMBERS = Members()


def test_what_its_owner_or_a_control_centre_signed_holds() -> None:
    book = MEMBERS.book()
    assert book.read(MEMBERS.grant(), DeploymentGrant).name == "doctor"
    assert book.read(MEMBERS.name(), NameGrant).owner == "acme"
    assert book.read(MEMBERS.mandate(), Mandate).gateways == ("gate",)


@pytest.mark.parametrize("by", ["stranger", "rival", "center", "operator", "north"])
def test_nobody_else_signs_for_an_owner(by: str) -> None:
    with pytest.raises(Refused):
        MEMBERS.book().read(MEMBERS.grant(by), DeploymentGrant)
    with pytest.raises(Refused):
        MEMBERS.book().read(MEMBERS.mandate(by), Mandate)


@pytest.mark.parametrize("by", ["stranger", "acme", "rival", "operator", "north", "center2"])
def test_the_first_control_centre_alone_gives_names(by: str) -> None:
    with pytest.raises(Refused):
        MEMBERS.book().read(MEMBERS.name(by), NameGrant)


def test_one_is_not_taken_for_another() -> None:
    with pytest.raises(Corrupt):
        MEMBERS.book().read(MEMBERS.grant(), Mandate)
    with pytest.raises(Corrupt):
        MEMBERS.book().read(MEMBERS.mandate(), DeploymentGrant)


def test_an_owner_signs_nothing_in_the_future() -> None:
    """It would count for longer than what the owner signs afterwards."""
    book = MEMBERS.book()
    assert book.read(MEMBERS.grant(issued_at_s=NOW_S + 60), DeploymentGrant)
    for ahead_s in (600.0, 1e12):
        with pytest.raises(Refused, match="in the future"):
            book.read(MEMBERS.grant(issued_at_s=NOW_S + ahead_s), DeploymentGrant)


def test_it_ends_with_its_time_its_network_and_its_signers_membership() -> None:
    members = Members()
    signed = members.grant()
    assert members.book().read(signed, DeploymentGrant)
    with pytest.raises(Refused, match="another network"):
        members.book().read(members.grant(network="other"), DeploymentGrant)
    members.now_s = NOW_S + 100
    with pytest.raises(Refused, match="expired"):
        members.book().read(signed, DeploymentGrant)
    members.now_s = NOW_S
    members.revoke("acme")
    with pytest.raises(Refused, match="no owner"):
        members.book().read(signed, DeploymentGrant)


@pytest.mark.parametrize("time_s", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_no_signed_time_is_endless_or_no_number(time_s: float) -> None:
    book = MEMBERS.book()
    with pytest.raises(Corrupt):
        book.read(MEMBERS.grant(until_s=time_s), DeploymentGrant)
    with pytest.raises(Corrupt):
        book.read(MEMBERS.grant(issued_at_s=time_s), DeploymentGrant)
    with pytest.raises(Corrupt):
        book.read(MEMBERS.name(issued_at_s=time_s), NameGrant)
    with pytest.raises(Corrupt):
        book.read(MEMBERS.mandate(until_s=time_s), Mandate)
    with pytest.raises(Corrupt):
        book.read(MEMBERS.place(until_s=time_s), PlaceGrant)


@pytest.mark.parametrize("by", ["stranger", "acme", "rival", "operator", "north"])
def test_control_centres_alone_place(by: str) -> None:
    with pytest.raises(Refused):
        MEMBERS.book().read(MEMBERS.place(by), PlaceGrant)
    for center in ("center", "center2"):
        assert MEMBERS.book().read(MEMBERS.place(center), PlaceGrant).site == "north"


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_grant_with_any_changed_bit_is_rejected(place: int, flip: int) -> None:
    signed = MEMBERS.grant()
    raw = bytearray(signed.statement)
    raw[place % len(raw)] ^= flip
    with pytest.raises((Corrupt, Refused)):
        MEMBERS.book().read(msgspec.structs.replace(signed, statement=bytes(raw)), DeploymentGrant)


def test_a_token_shows_its_mandate_and_hides_its_secret() -> None:
    token = MEMBERS.token()
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", token)
    assert len(token) < 1024
    secret, text = split_token(token)
    assert MEMBERS.book().read(read_signed(text), Mandate).secret == secret
    assert token.removeprefix("daitn-").partition(".")[0] not in text
    assert MEMBERS.token() != token


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_other_texts_are_no_tokens(text: str) -> None:
    with pytest.raises(Refused):
        read_signed(split_token(f"daitn-{text}")[1])


def test_a_mandate_survives_its_header() -> None:
    signed = MEMBERS.mandate()
    assert read_signed(signed_text(signed)) == signed
    text = signed_text(signed)
    padded = text + "=" * (-len(text) % 4)
    for other in (padded + "=", padded + "====", f"{text}\n", "A" * 9000):
        with pytest.raises(Refused):
            read_signed(other)
    assert isinstance(signed, Signed)
