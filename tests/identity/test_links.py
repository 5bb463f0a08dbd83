"""Two ends of a link prove themselves to each other, and nobody else is heard on it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from daitn.identity.keys import SigningKey
from daitn.identity.links import LinkIdentity, LinkKeys
from daitn.objects.errors import Corrupt, DaitnError, Refused
from daitn.objects.identifiers import SiteId

A, B, C = SiteId("a"), SiteId("b"), SiteId("c")


class Sites:
    """Of one roster."""

    def __init__(self) -> None:
        self.keys = {site: SigningKey.generate() for site in (A, B, C)}
        self.known = {site: key.public for site, key in self.keys.items()}
        self.clock = itertools.count(1.0)

    def identity(self, site: SiteId, network: str = "net") -> LinkIdentity:
        key = self.keys[site]
        return LinkIdentity(site, key, network, self.known.get, lambda: next(self.clock))

    def pair(self) -> tuple[LinkKeys, LinkKeys]:
        a, b = self.identity(A).link_to(B), self.identity(B).link_to(A)
        assert a.hear(b.proof)
        assert b.hear(a.proof)
        return a, b


def sealed(keys: LinkKeys, message: bytes) -> bytes:
    sent = keys.seal(message)
    assert sent is not None
    return sent


def test_both_ends_hear_each_other() -> None:
    a, b = Sites().pair()
    for message in (b"", b"hello", bytes(1 << 20)):
        assert b.open(sealed(a, message)) == message
        assert a.open(sealed(b, message)) == message
    assert not a.hear(b.proof), "it is known"


def test_nothing_is_said_or_heard_before_the_proof() -> None:
    sites = Sites()
    a, b = sites.identity(A).link_to(B), sites.identity(B).link_to(A)
    assert a.seal(b"hello") is None
    b.hear(a.proof)
    with pytest.raises(Corrupt):
        a.open(sealed(b, b"hello"))
    with pytest.raises(Corrupt):
        a.open(b"hello")


def test_who_is_somebody_else_proves_nothing() -> None:
    sites = Sites()
    a, stranger = sites.identity(A), SigningKey.generate()
    proofs = {
        "c's own": sites.identity(C).link_to(A).proof,
        "c in the name of b": replace(sites.identity(C), site=B).link_to(A).proof,
        "a stranger in the name of b": replace(sites.identity(B), key=stranger).link_to(A).proof,
        "b's to c": sites.identity(B).link_to(C).proof,
        "b's in another network": sites.identity(B, "other").link_to(A).proof,
        "a's own": a.link_to(B).proof,
        "cut": sites.identity(B).link_to(A).proof[:-1],
    }
    true = sites.identity(B).link_to(A).proof
    for place in (2, 20, 50, 90):
        proofs[f"changed at {place}"] = true[:place] + bytes((true[place] ^ 1,)) + true[place + 1 :]
    end = a.link_to(B)
    for what, proof in proofs.items():
        with pytest.raises(DaitnError):
            end.hear(proof)
        assert end.seal(b"") is None, what
    assert end.hear(true)


def changed(data: bytes, place: int) -> bytes:
    """The same with one bit turned."""
    found = bytearray(data)
    found[place] ^= 1
    return bytes(found)


def test_what_was_changed_repeated_back_or_sent_by_others_is_not_heard() -> None:
    sites = Sites()
    a, b = sites.pair()
    c = sites.identity(C).link_to(A)
    c.hear(sites.identity(A).link_to(C).proof)
    message = sealed(a, b"hello")
    for forged in (changed(message, -1), changed(message, 0), b"hello", sealed(c, b"hello")):
        with pytest.raises(Corrupt):
            b.open(forged)
    with pytest.raises(Corrupt):
        a.open(message)


def test_an_old_proof_repeated_breaks_nothing() -> None:
    sites = Sites()
    a = sites.identity(A).link_to(B)
    old, new = sites.identity(B).link_to(A), sites.identity(B).link_to(A)
    new.hear(a.proof)
    assert a.hear(new.proof)
    assert not a.hear(old.proof)
    assert a.open(sealed(new, b"hello")) == b"hello"


def test_a_neighbour_that_restarts_is_heard_anew() -> None:
    sites = Sites()
    a, b = sites.pair()
    again = sites.identity(B).link_to(A)
    again.hear(a.proof)
    assert a.hear(again.proof)
    assert a.open(sealed(again, b"hello")) == b"hello"
    with pytest.raises(Corrupt):
        a.open(sealed(b, b"hello"))


def test_whoever_is_revoked_is_heard_no_more() -> None:
    sites = Sites()
    a, b = sites.pair()
    assert a.holds()
    public = sites.known.pop(B)
    assert not a.holds()
    assert a.seal(b"") is None
    with pytest.raises(Corrupt):
        a.open(sealed(b, b"hello"))
    with pytest.raises(Refused):
        a.hear(b.proof)
    sites.known[B] = public
    assert a.hear(b.proof), "it is a member again"
