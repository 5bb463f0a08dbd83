"""In a network with a roster, an offer counts within what it grants, whoever passes it on."""

from __future__ import annotations

import pytest

from daitn.node.forwarder.offers import granted, home
from daitn.objects.descriptors import Role
from daitn.objects.identifiers import SiteId
from daitn.objects.roster import Kind, Member
from daitn.steering.wire.offers import Offer, RouteEntry, Update

CLINIC = Member(
    name="clinic",
    kind=Kind.SITE,
    public_key="",
    until_s=1.0,
    roles=(Role.DATA, Role.FORWARDER),
    owner="county",
    jurisdiction="CA",
)
MEMBERS = {SiteId("clinic"): CLINIC}
DATA = Offer("data:medicine", jurisdiction="CA", owner="county")


def heard(origin: str, *offers: Offer) -> Update:
    entry = RouteEntry(origin, 1, 0.1, 1, offers)
    return granted(Update((entry,), whole=True), MEMBERS.get)


@pytest.mark.parametrize("offer", [DATA, home(SiteId("clinic"))])
def test_what_the_roster_grants_counts(offer: Offer) -> None:
    assert heard("clinic", offer).routes[0].offers == (offer,)


@pytest.mark.parametrize(
    "offer",
    [
        Offer("verify:medicine", jurisdiction="CA", owner="county"),
        Offer("answer:medicine", jurisdiction="CA", owner="county"),
        Offer("model:doctor", jurisdiction="CA", owner="county"),
        Offer("data:medicine", jurisdiction="US", owner="county"),
        Offer("data:medicine", jurisdiction="CA", owner="acme"),
        Offer("launch:medicine"),
        home(SiteId("other")),
        home(SiteId("clinic2")),
    ],
)
def test_what_it_does_not_grant_is_left_out(offer: Offer) -> None:
    assert heard("clinic", offer, DATA).routes[0].offers == (DATA,)


def test_origins_that_are_no_members_are_not_heard_of() -> None:
    assert heard("ghost", DATA).routes == ()
    assert heard("domain:north@ghost/1", DATA).routes == ()
    assert heard("domain:north@clinic/1", DATA).routes[0].offers == (DATA,)
    assert heard("ghost").whole


def test_what_is_not_repeated_stays_as_it_was() -> None:
    entry = RouteEntry("clinic", 1, 0.1, 1, None)
    assert granted(Update((entry,)), MEMBERS.get) == Update((entry,))
