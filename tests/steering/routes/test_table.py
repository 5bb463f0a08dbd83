"""One table, fed by hand: what it refuses, ignores, tells when, and heals."""

from __future__ import annotations

import math
from random import Random

import pytest
from msgspec.structs import replace

from daitn.objects.errors import Corrupt, InvalidInput
from daitn.steering.routes.origin import ASK_NEAREST_S
from daitn.steering.routes.peer import DEFER_S
from daitn.steering.routes.table import AggregationLimits, RouteTable
from daitn.steering.wire.offers import (
    INFINITE,
    Offer,
    RouteEntry,
    SeqnoRequest,
    Summary,
    Update,
)

from .harness import Network, home

NEURO = Offer("answer:medicine/neurology", fit=0.8, serve_s=1.0, wait_s=1.0)


def table(*neighbours: str, limits: AggregationLimits | None = None) -> RouteTable:
    """At site `me`, its links up and all said that there was to say."""
    made = RouteTable("me", 0.0, limits)
    for neighbour in neighbours:
        made.link_up(neighbour, 0.1, 0.0)
        made.receive(neighbour, whole(), 0.0)
    made.due(0.0)
    return made


def whole(*entries: RouteEntry) -> Update:
    return Update(entries, whole=True)


def says(*entries: RouteEntry) -> Update:
    return Update(entries)


def entry(
    origin: str, distance_s: float, seqno: int = 0, *offers: Offer, edition: int = 1
) -> RouteEntry:
    return RouteEntry(origin, seqno, distance_s, edition, offers)


def told(messages: list[tuple[str, Summary]], neighbour: str) -> dict[str, RouteEntry]:
    return {
        said.origin: said
        for to, summary in messages
        if to == neighbour and isinstance(summary, Update)
        for said in summary.routes
    }


def asked(messages: list[tuple[str, Summary]]) -> list[tuple[str, SeqnoRequest]]:
    return [(to, said) for to, said in messages if isinstance(said, SeqnoRequest)]


@pytest.mark.parametrize(
    "bad",
    [
        entry("x", math.nan),
        entry("x", -1.0),
        entry("x", 1.0, 0, replace(NEURO, fit=math.nan)),
        entry("x", 1.0, 0, replace(NEURO, fit=1.5)),
        entry("x", 1.0, 0, replace(NEURO, wait_s=-1.0)),
        entry("x", 1.0, 0, replace(NEURO, price_usd=math.nan)),
        entry("x", 1.0, 0, replace(NEURO, at_s=math.nan)),
    ],
)
def test_what_no_honest_neighbour_says_is_refused_as_a_whole(bad: RouteEntry) -> None:
    here = table("a")
    with pytest.raises(Corrupt, match="'x'"):
        here.receive("a", says(entry("fine", 1.0), bad), 1.0)
    assert here.origins() == ()


def test_a_link_costs_a_time() -> None:
    here = table("a")
    for cost_s in (math.nan, -0.1, INFINITE):
        with pytest.raises(InvalidInput):
            here.link_up("b", cost_s, 0.0)
        with pytest.raises(InvalidInput):
            here.link_cost("a", cost_s, 0.0)


def test_strangers_are_not_listened_to() -> None:
    here = table("a")
    here.receive("stranger", says(entry("x", 1.0)), 1.0)
    here.link_cost("stranger", 1.0, 1.0)
    here.link_down("stranger", 1.0)
    assert here.origins() == ()
    assert here.neighbours() == ("a",)


def test_what_is_too_far_is_out_of_reach() -> None:
    here = table("a")
    here.receive("a", says(entry("x", 1e7)), 1.0)
    assert here.routes_to("x") == ()


def test_a_later_number_of_an_earlier_life_is_counted_past() -> None:
    here = table("a")
    here.receive("a", says(entry("me", 3.0, seqno=41, edition=17)), 1.0)
    said = told(here.due(1.0), "a")["me"]
    assert (said.seqno, said.edition, said.distance_s) == (42, 18, 0.0)
    version = here.version
    here.receive("a", says(entry("me", 3.0, seqno=42, edition=18)), 2.0)
    assert here.version == version


def test_numbers_are_compared_round_the_circle() -> None:
    here = table("a", "b")
    here.receive("a", says(entry("x", 1.0, seqno=0xFFFF)), 1.0)
    here.due(1.0)
    here.receive("b", says(entry("x", 5.0, seqno=0)), 2.0)
    assert [via.neighbour for via in here.routes_to("x")] == ["a", "b"]


def test_the_number_of_origins_is_bounded() -> None:
    here = table("a", limits=AggregationLimits(most_origins=2))
    here.receive("a", says(entry("x", 1.0), entry("y", 1.0), entry("z", 1.0)), 1.0)
    assert here.origins() == ("x", "y")


def test_the_number_of_offers_is_bounded_by_all_origins_and_neighbours_together() -> None:
    def offering(origin: str, count: int, seqno: int = 0) -> RouteEntry:
        offers = tuple(Offer(f"answer:t{number}") for number in range(count))
        return RouteEntry(origin, seqno, 1.0, 1 + seqno, offers)

    here = table("a", "b", limits=AggregationLimits(most_offers=10))
    here.receive("a", says(offering("x", 6), offering("y", 5)), 1.0)
    here.receive("b", says(offering("x", 5)), 1.0)
    assert [via.neighbour for via in here.routes_to("x")] == ["a"]
    assert here.origins() == ("x",)
    here.receive("a", says(offering("x", 3, seqno=1)), 2.0)
    here.receive("b", says(offering("y", 7)), 2.0)
    assert here.origins() == ("x", "y")
    here.link_down("b", 3.0)
    here.receive("a", says(offering("z", 7)), 3.0)
    assert here.origins() == ("x", "z")


def test_ways_are_the_selected_one_then_the_nearest() -> None:
    here = table("a", "b", "c")
    for neighbour, distance_s in (("a", 1.0), ("b", 0.99), ("c", 3.0)):
        here.receive(neighbour, says(entry("x", distance_s)), 1.0)
    vias = here.routes_to("x")
    assert [via.neighbour for via in vias] == ["a", "b", "c"]
    assert [via.remaining_s for via in vias] == [1.0, 0.99, 3.0]
    assert vias[0].distance_s == pytest.approx(1.101)


def test_only_ways_nearer_than_what_was_told_are_feasible() -> None:
    here = table("a", "b", "c")
    here.receive("a", says(entry("x", 1.0)), 1.0)
    assert told(here.due(1.0), "b")["x"].distance_s == pytest.approx(1.101)
    here.receive("b", says(entry("x", 1.05)), 1.0)
    here.receive("c", says(entry("x", 1.2)), 1.0)
    assert [via.neighbour for via in here.routes_to("x")] == ["a", "b"]
    explained = here.explain("x")
    assert explained is not None
    assert explained.bound is not None
    assert explained.bound[1] == pytest.approx(1.101)
    assert [
        (state.route.neighbour, state.feasible, state.selected) for state in explained.routes
    ] == [
        ("a", True, True),
        ("b", True, False),
        ("c", False, False),
    ]
    assert explained.advertised
    assert here.explain("nobody") is None


def test_nothing_is_told_to_the_neighbour_by_which_it_is_reached() -> None:
    here = table("a", "b")
    here.receive("a", says(entry("x", 1.0)), 1.0)
    messages = here.due(1.0)
    assert "x" not in told(messages, "a")
    assert "x" in told(messages, "b")
    here.receive("b", says(entry("x", 0.1)), 2.0)
    assert here.due(2.0) == [], "a has its own way, and b will not come back to here"
    messages = here.due(2.0 + DEFER_S)
    assert told(messages, "b")["x"].distance_s == INFINITE
    assert told(messages, "a")["x"].distance_s == pytest.approx(0.201)


def test_a_slightly_nearer_way_is_taken_once_it_stays_nearer() -> None:
    here = table("a", "b")
    here.receive("a", says(entry("x", 1.0)), 1.0)
    here.receive("b", says(entry("x", 0.95)), 2.0)
    here.due(2.0)
    here.due(2.0 + DEFER_S)
    assert here.routes_to("x")[0].neighbour == "a"
    assert here.next_due_s() == 12.0
    here.due(12.0)
    assert here.routes_to("x")[0].neighbour == "b"


def test_a_jitter_of_a_link_changes_nothing() -> None:
    here = table("a")
    here.receive("a", says(entry("x", 1.0)), 1.0)
    version = here.version
    for cost_s in (0.105, 0.095, 0.109, 0.1):
        here.link_cost("a", cost_s, 2.0)
    assert here.version == version
    here.link_cost("a", 0.2, 3.0)
    assert here.version > version
    assert here.routes_to("x")[0].distance_s == pytest.approx(1.201)


def test_where_nothing_is_feasible_the_origin_is_asked_again_and_again_ever_rarer() -> None:
    here = table("a", "b")
    here.receive("a", says(entry("x", 1.0, seqno=7)), 1.0)
    here.due(1.0)
    here.receive("b", says(entry("x", 5.0, seqno=7)), 1.0)
    here.link_down("a", 2.0)
    times, now_s = [], 2.0
    while now_s < 60.0:
        messages = here.due(now_s)
        if requests := asked(messages):
            assert requests == [("b", SeqnoRequest("x", 8))]
            times.append(now_s)
        here.receive("b", whole(entry("x", 5.0, seqno=7)), now_s)
        now_s = here.next_due_s()
    assert times == [2.0, 4.0, 8.0, 16.0, 32.0]
    assert here.routes_to("x") == ()
    here.receive("b", says(entry("x", 5.0, seqno=8)), now_s)
    assert here.routes_to("x")[0].neighbour == "b"


def test_the_nearest_is_asked_first_and_the_others_if_that_does_not_help() -> None:
    here = table("a", "b", "c", "d")
    here.receive("a", says(entry("x", 1.0, seqno=7)), 1.0)
    here.due(1.0)
    for neighbour, distance_s in (("b", 5.0), ("c", 6.0), ("d", 7.0)):
        here.receive(neighbour, says(entry("x", distance_s, seqno=7)), 1.0)
    here.link_down("a", 2.0)
    assert [to for to, _ in asked(here.due(2.0))] == ["b"]
    here.receive("b", says(entry("x", INFINITE)), 2.01)
    assert [to for to, _ in asked(here.due(2.01))] == ["c"], "b cannot help any more"
    assert asked(here.due(2.02)) == []
    now_s = 2.01 + ASK_NEAREST_S
    assert [to for to, _ in asked(here.due(now_s))] == ["c", "d"]


def test_requests_are_passed_on_once_towards_the_origin() -> None:
    here = table("a", "b", "c")
    here.receive("a", says(entry("x", 1.0, seqno=7)), 1.0)
    here.due(1.0)
    for neighbour in ("b", "c"):
        here.receive(neighbour, SeqnoRequest("x", 8, hop_limit=5), 1.5)
    assert asked(here.due(1.5)) == [("a", SeqnoRequest("x", 8, hop_limit=4))]
    here.receive("b", SeqnoRequest("x", 9, hop_limit=1), 3.0)
    here.receive("b", SeqnoRequest("nobody", 9), 3.0)
    here.receive("a", SeqnoRequest("x", 9), 3.0)
    assert asked(here.due(3.0)) == []


def test_a_request_that_was_passed_to_who_is_gone_is_passed_to_another() -> None:
    here = table("a", "b", "c")
    here.receive("a", says(entry("x", 1.0, seqno=7)), 1.0)
    here.receive("c", says(entry("x", 3.0, seqno=7)), 1.0)
    here.due(1.0)
    here.receive("b", SeqnoRequest("x", 8, hop_limit=5), 1.5)
    assert asked(here.due(1.5)) == [("a", SeqnoRequest("x", 8, hop_limit=4))]
    here.link_down("a", 1.6)
    assert ("c", SeqnoRequest("x", 8, hop_limit=4)) in asked(here.due(1.6))
    here.receive("c", says(entry("x", 3.0, seqno=8)), 1.7)
    assert told(here.due(1.7), "b")["x"].seqno == 8


def test_a_request_for_what_is_known_is_answered() -> None:
    here = table("a", "b")
    here.receive("a", says(entry("x", 1.0, 7, NEURO)), 1.0)
    here.due(1.0)
    here.receive("b", SeqnoRequest("x", 7), 2.0)
    said = told(here.due(2.0), "b")["x"]
    assert said.offers == (NEURO,)


def test_asked_itself_a_site_counts_up() -> None:
    here = table("a", "b")
    here.receive("a", SeqnoRequest("me", 5), 2.0)
    messages = here.due(2.0)
    assert told(messages, "a")["me"].seqno == 5
    assert told(messages, "b") == {}, "it asked for nothing"
    assert here.next_due_s() == 2.0 + DEFER_S
    assert told(here.due(2.0 + DEFER_S), "b")["me"].seqno == 5


def test_a_number_that_was_asked_for_is_told_on_at_once_and_only_to_who_asked() -> None:
    here = table("a", "b", "c")
    here.receive("a", says(entry("x", 1.0, seqno=7)), 1.0)
    here.due(1.0)
    here.receive("b", SeqnoRequest("x", 8), 1.5)
    here.due(1.5)
    here.receive("a", says(entry("x", 1.0, seqno=8)), 2.0)
    messages = here.due(2.0)
    assert told(messages, "b")["x"].seqno == 8
    assert told(messages, "c") == {}
    here.receive("a", says(entry("x", 1.0, seqno=9)), 2.1)
    assert here.due(2.1) == []
    assert told(here.due(2.0 + DEFER_S), "c")["x"].seqno == 9


def test_what_gets_farther_is_told_at_once_and_what_gets_nearer_later() -> None:
    here = table("a", "b")
    here.receive("a", says(entry("x", 1.0)), 1.0)
    here.due(1.0)
    here.receive("a", says(entry("x", 0.5)), 2.0)
    assert here.due(2.0) == []
    here.receive("a", says(entry("x", 1.09)), 2.5)
    assert told(here.due(2.5), "b")["x"].distance_s == pytest.approx(1.191)
    assert here.next_due_s() > 2.0 + DEFER_S, "what waited is told by now"
    here.receive("a", says(entry("x", 0.5)), 5.0)
    assert here.due(5.0) == []
    assert here.next_due_s() == 5.0 + DEFER_S
    here.receive("a", says(entry("y", 1.0)), 5.5)
    assert told(here.due(5.5), "b")["x"].distance_s == pytest.approx(0.601), "it goes along"


def test_the_bound_is_kept_for_a_while_after_an_origin_is_lost() -> None:
    here = table("a", "b")
    here.receive("a", says(entry("x", 1.0)), 1.0)
    here.due(1.0)
    here.receive("a", says(entry("x", INFINITE)), 2.0)
    assert told(here.due(2.0), "b")["x"].distance_s == INFINITE
    here.receive("b", says(entry("x", 2.0)), 3.0)
    assert here.routes_to("x") == ()
    here.receive("b", whole(), 4.0)
    here.due(4.0)
    here.due(190.0)
    here.receive("b", says(entry("x", 2.0)), 191.0)
    assert here.routes_to("x")[0].neighbour == "b"


def test_routes_that_are_not_refreshed_expire() -> None:
    here = table("a", "b")
    here.receive("a", says(entry("x", 1.0)), 1.0)
    for now_s in (30.0, 60.0, 90.0, 120.0):
        here.receive("b", whole(), now_s)
        here.due(now_s)
    assert here.routes_to("x") == ()


def test_what_a_whole_update_leaves_out_is_retracted() -> None:
    here = table("a")
    here.receive("a", says(entry("x", 1.0), entry("y", 1.0)), 1.0)
    here.receive("a", whole(entry("y", 1.0)), 2.0)
    assert here.origins() == ("y",)


def test_offers_are_told_once_per_edition() -> None:
    here = table("a")
    here.offer((NEURO,), 1.0)
    assert told(here.due(1.0), "a")["me"].offers == (NEURO,)
    assert told(here.due(30.0), "a")["me"].offers is None
    here.link_up("a", 0.1, 40.0)
    assert told(here.due(40.0), "a")["me"].offers == (NEURO,)


def test_what_was_told_before_the_neighbour_knew_of_the_link_is_told_again() -> None:
    here = RouteTable("me", 0.0)
    here.link_up("a", 0.1, 0.0)
    here.offer((NEURO,), 0.0)
    assert told(here.due(0.0), "a")["me"].offers == (NEURO,)
    here.receive("a", whole(), 1.0)
    assert told(here.due(1.0), "a")["me"].offers == (NEURO,)
    here.receive("a", whole(), 2.0)
    assert here.due(2.0) == []


def test_offers_that_are_missed_are_asked_for() -> None:
    here = table("a")
    here.receive("a", says(RouteEntry("x", 3, 1.0, 5, None)), 1.0)
    assert here.routes_to("x") == ()
    assert asked(here.due(1.0)) == [("a", SeqnoRequest("x", 3))]


def test_small_changes_make_no_edition_and_large_ones_are_paced() -> None:
    here = table("a")
    here.offer((NEURO,), 100.0)
    here.due(100.0)
    for at, wait_s in enumerate((1.1, 0.9, 1.2, 1.0)):
        here.offer((replace(NEURO, wait_s=wait_s),), 100.1 + at)
        assert here.due(100.1 + at) == []
    busy = replace(NEURO, wait_s=5.0)
    here.offer((busy,), 104.5)
    assert here.due(104.5) == []
    assert here.next_due_s() == 105.0
    assert told(here.due(105.0), "a")["me"].offers == (busy,)
    here.offer((replace(busy, fit=0.5),), 105.5)
    here.offer((replace(busy, fit=0.6),), 105.7)
    assert here.due(105.7) == []
    assert told(here.due(106.0), "a")["me"].offers == (replace(busy, fit=0.6),)
    here.offer((), 200.0)
    assert told(here.due(200.0), "a")["me"].offers == ()


def test_control_traffic_of_a_busy_site_is_bounded() -> None:
    network = Network(Random(1))
    network.add("a", (NEURO,))
    network.add("b")
    network.connect("a", "b", 0.01)
    network.run(10.0)
    before = network.sent["changes"]
    for _ in range(3000):
        network.offer("a", (replace(NEURO, wait_s=network.rng.uniform(0.0, 30.0)),))
        network.run(0.1)
    assert network.sent["changes"] - before <= 300 / 5 + 1


def test_who_offers_what() -> None:
    here = table("a")
    wide = Offer("answer:medicine/*", fit=0.5)
    wider = Offer("answer:*", fit=0.4)
    law = Offer("answer:law", fit=0.3)
    here.offer((NEURO, replace(NEURO, fit=0.1)), 1.0)
    here.receive("a", says(entry("x", 1.0, 0, wide), entry("y", 1.0, 0, wider, law)), 1.0)
    here.receive("a", says(entry("z", 1.0, 0, home("z"))), 1.0)
    assert here.offering("answer:medicine/neurology") == (("me", NEURO), ("x", wide), ("y", wider))
    assert here.offering("answer:law") == (("y", law),)
    assert here.offering("answer:medicine") == (("y", wider),)
    assert {offer.key for _, offer in here.offering("answer:")} == {
        NEURO.key, "answer:medicine/*", "answer:*", "answer:law",
    }  # fmt: skip
    assert here.offering("home:z") == (("z", home("z")),)
    assert here.offering("home:y") == here.offering("data:medicine") == ()
    here.link_down("a", 2.0)
    assert here.offering("answer:") == (("me", NEURO),)


def test_the_version_counts_what_may_change_a_decision() -> None:
    here = table("a", "b")
    versions = [here.version]
    for happens in (
        lambda: here.receive("a", says(entry("x", 1.0)), 1.0),
        lambda: here.due(1.0),
        lambda: here.receive("b", says(entry("x", 1.05)), 1.0),
        lambda: here.offer((NEURO,), 1.0),
        lambda: here.link_cost("b", 0.5, 1.0),
        lambda: here.link_down("b", 1.0),
    ):
        happens()
        versions.append(here.version)
    assert versions == sorted(set(versions))
    here.receive("a", whole(RouteEntry("x", 0, 1.0, 1, None)), 2.0)
    assert here.version == versions[-1], "what is only refreshed changes nothing"
