"""One table at a border, fed by hand."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from daitn.objects.errors import Corrupt, InvalidInput
from daitn.steering.routes.names import check_origin, domain_of, domain_origin, site_of
from daitn.steering.routes.table import AggregationLimits, RouteTable
from daitn.steering.wire.offers import INFINITE, Offer, SeqnoRequest

from ..routes.harness import home
from ..routes.test_table import NEURO, asked, entry, says, told, whole

MINE = "domain:west@me/1"
LAW = Offer("answer:law", fit=0.5, serve_s=2.0)


def border(now_s: float = 0.0, limits: AggregationLimits | None = None) -> RouteTable:
    """At site `me` of `west`, its neighbours `w` inside and `e` in `east`."""
    made = RouteTable("me", now_s, limits, "west")
    made.link_up("w", 0.1, now_s, "west")
    made.link_up("e", 0.1, now_s, "east")
    for neighbour in ("w", "e"):
        made.receive(neighbour, whole(), now_s)
    made.due(now_s)
    return made


def test_names_of_origins() -> None:
    assert domain_origin("west", "b-1", 2) == "domain:west@b-1/2"
    for name, domain, site in (
        ("domain:west@b-1/2", "west", "b-1"),
        ("domain:@b/1", "", "b"),
        ("site", None, "site"),
    ):
        check_origin(name)
        assert (domain_of(name), site_of(name)) == (domain, site)
    here = border()
    for bad in ("domain:west", "domain:west@b", "domain:west@/1", "domain:west@b/0",
                "domain:West@b/1", "domain:w@b@c/1", "domain:west@b/1000"):  # fmt: skip
        with pytest.raises(Corrupt, match="origin"):
            here.receive("e", says(entry(bad, 1.0)), 1.0)


def test_a_domain_needs_a_usable_name() -> None:
    for bad in ("West", "a/b", "x@y", "-"):
        with pytest.raises(InvalidInput, match="domain"):
            RouteTable("me", 0.0, domain=bad)
        with pytest.raises(InvalidInput, match="domain"):
            border().set_domain(bad, 1.0)


def test_outside_the_domain_is_told_and_inside_the_sites_are() -> None:
    here = border()
    here.offer((LAW, home("me")), 1.0)
    here.receive("w", says(entry("x", 0.5, 3, NEURO, home("x"))), 1.0)
    messages = here.due(2.0)
    assert told(messages, "w").keys() == {"me"}, "and x is reached by w itself"
    assert told(messages, "e").keys() == {MINE}
    said = told(messages, "e")[MINE]
    assert (said.seqno, said.distance_s) == (0, 0.0)
    assert said.offers is not None
    law, neuro = sorted(said.offers, key=lambda offer: offer.key)
    assert law == LAW
    assert neuro == replace(NEURO, serve_s=neuro.serve_s)
    assert neuro.serve_s == pytest.approx(1.0 + 2 * 0.601)
    assert here.offering("answer:law") == (("me", LAW),), "it is no way for this site itself"


def test_offers_of_one_key_are_told_by_several_origins_each_with_its_own_terms() -> None:
    here = border(limits=AggregationLimits(best=3))
    for number, where in enumerate(("ca", "us", "de", "fr")):
        offer = replace(NEURO, jurisdiction=where, fit=0.9 - number / 10, owner=where)
        here.receive("w", says(entry(f"x{number}", 0.5, 0, offer)), 1.0)
    said = told(here.due(1.0), "e")
    assert said.keys() == {f"domain:west@me/{number}" for number in (1, 2, 3)}
    offers = [offer for each in said.values() for offer in each.offers or ()]
    assert {(offer.jurisdiction, offer.fit) for offer in offers} == {
        ("ca", 0.9), ("us", 0.8), ("de", 0.9 - 0.2),
    }  # fmt: skip


def test_of_other_domains_what_their_borders_say_is_told_on_to_all() -> None:
    here = border()
    here.link_up("n", 0.1, 1.0, "north")
    here.receive("e", says(entry("domain:east@e/1", 0.0, 5, NEURO)), 1.0)
    messages = here.due(1.0)
    for neighbour in ("w", "n"):
        assert told(messages, neighbour)["domain:east@e/1"].offers == (NEURO,)
    assert here.routes_to("domain:east@e/1")[0].distance_s == pytest.approx(0.101)


@pytest.mark.parametrize("domain", ["west", ""])
def test_a_way_out_and_in_again_counts_only_where_there_is_none_inside(domain: str) -> None:
    here = RouteTable("me", 0.0, domain=domain)
    here.link_up("w", 0.1, 0.0, domain)
    here.link_up("e", 0.1, 0.0, "east")
    other = f"domain:{domain}@other/1"
    here.receive("e", says(entry(other, 1.0, 0, NEURO)), 1.0)
    assert here.origins() == (other,)
    here.receive("w", says(entry("other", 9.0, 0, NEURO)), 2.0)
    assert here.origins() == ("other",)
    assert here.routes_to(other) == ()
    assert [origin for origin, _ in here.offering(NEURO.key)] == ["other"]
    here.receive("w", says(entry("other", INFINITE)), 3.0)
    assert here.origins() == (other,)
    here.receive("w", says(entry("other", 9.0, 1, NEURO)), 4.0)
    here.set_domain("north", 5.0)
    assert here.origins() == (other, "other"), "it was of another domain"


def test_an_earlier_life_of_its_domain_is_continued() -> None:
    here = border()
    here.offer((LAW,), 1.0)
    here.due(1.0)
    here.receive("e", says(entry(MINE, 3.0, seqno=41, edition=17)), 2.0)
    messages = here.due(2.0)
    said = told(messages, "e")[MINE]
    assert (said.seqno, said.edition) == (42, 18)
    assert told(messages, "w")["me"].seqno == 42
    assert here.origins() == ()
    here.receive("e", SeqnoRequest(MINE, 50), 3.0)
    assert told(here.due(3.0), "e")[MINE].seqno == 50
    here.receive("e", says(entry("domain:north@me/1", 3.0, seqno=99)), 4.0)
    assert here.origins() == (), "nor is it its own way where it was of another domain"


def test_no_site_is_asked_for_beyond_a_border() -> None:
    here = border()
    here.receive("w", says(entry("x", 0.5, 3, NEURO)), 1.0)
    here.receive("e", says(entry("x", 5.0, 3, NEURO)), 1.0)
    here.link_up("w2", 0.1, 1.0, "west")
    here.due(1.0)
    here.link_down("w", 2.0)
    assert asked(here.due(2.0)) == []


def test_changes_inside_are_told_outside_at_a_bounded_rate() -> None:
    here = border()
    said = []
    for tick in range(200):
        offer = replace(NEURO, wait_s=float(tick % 7), fit=(tick % 10) / 10)
        here.receive("w", says(entry("x", 0.5, 0, offer, edition=tick)), 1.0 + tick / 20)
        said += [*told(here.due(1.0 + tick / 20), "e").values()]
    assert len(said) <= 11
    here.receive("w", says(entry("x", INFINITE)), 12.0)
    assert told(here.due(13.0), "e")[MINE].distance_s == INFINITE


def test_what_nobody_inside_did_before_or_does_any_more_is_told_soon() -> None:
    """Else packets that wait for it, as it came from another domain, would wait in vain."""
    here = border()
    here.receive("w", says(entry("x", 0.5, 0, NEURO)), 1.0)
    here.due(1.0)
    here.receive("w", says(entry("y", 0.5, 0, LAW)), 1.2)
    assert {offer.key for offer in told(here.due(1.2), "e")[MINE].offers or ()} == {
        NEURO.key,
        LAW.key,
    }
    here.receive("w", says(entry("x", INFINITE)), 1.4)
    assert [offer.key for offer in told(here.due(1.4), "e")[MINE].offers or ()] == [LAW.key]
    better = replace(LAW, fit=0.9)
    here.receive("w", says(entry("y", 0.5, 0, better, edition=2)), 1.6)
    assert MINE not in told(here.due(1.6), "e"), "the rest is paced"
    assert MINE in told(here.due(2.4), "e")


def test_who_changes_domains_says_at_once_what_takes_the_place_of_what() -> None:
    here = border()
    here.offer((LAW,), 1.0)
    here.receive("w", says(entry("x", 0.5, 3, NEURO)), 1.0)
    here.due(1.0)
    here.set_domain("", 2.0)
    messages = here.due(3.0)
    gone = {o for o, said in told(messages, "w").items() if said.distance_s == INFINITE}
    assert gone == {"me"}
    assert told(messages, "w").keys() - gone == {"domain:@me/1"}
    assert told(messages, "e").keys() == {MINE, "domain:@me/1"}
    for neighbour in ("e", "w"):
        here.link_domain(neighbour, "")
    messages = here.due(5.0)
    assert told(messages, "e")["me"].offers == (LAW,)
    assert told(messages, "e")["x"].offers == (NEURO,)
    assert told(messages, "e")["domain:@me/1"].distance_s == INFINITE
    here.link_domain("nobody", "")
