"""A forwarder's preferences: what it takes, what it refuses, and what it learns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.errors import InvalidInput
from daitn.steering.next_hops import LOCAL, MOST_BY_VIA, MOST_NEXT_HOPS, MOST_REJECTED
from daitn.steering.ranking_cache import Rankings
from daitn.steering.routes.table import RouteTable
from daitn.steering.statistics import HALF_LIFE_S, Statistics
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.offers import Offer, RouteEntry, Update

TOPIC = "medicine/neurology"
KEY = f"{Capability.ANSWER}:{TOPIC}"
NOWHERE = frozenset[str]().__contains__
WANT = PacketIntent(capability=Capability.ANSWER, subject=TOPIC, tokens_out=100)


def offer(fit: float = 0.9, *, serve_s: float = 0.1, price_usd: float = 0.0) -> Offer:
    return Offer(key=KEY, fit=fit, trust=2, serve_s=serve_s, price_usd=price_usd, amount=8)


def table(**origins: tuple[Offer, float]) -> RouteTable:
    """Routes of site `here`; each origin is reached through a neighbour of its own name."""
    routes = RouteTable("here", 0.0)
    for origin, (offered, distance_s) in origins.items():
        routes.link_up(origin, distance_s, 0.0)
        entry = RouteEntry(origin=origin, seqno=0, distance_s=0.0, edition=1, offers=(offered,))
        routes.receive(origin, Update(routes=(entry,), whole=True), 0.0)
    return routes


def first(rankings: Rankings, intent: PacketIntent = WANT, now_s: float = 0.0) -> str | None:
    chosen = rankings.ranking(encode_intent(intent), now_s).choose(0, NOWHERE, True)
    return chosen.via if chosen else None


def test_the_nearer_of_two_equals_is_taken_and_the_better_of_two_near_ones() -> None:
    near = Rankings(table(a=(offer(), 0.3), b=(offer(), 0.01)), Statistics())
    assert first(near) == "b"
    better = Rankings(table(a=(offer(0.99), 0.02), b=(offer(0.5), 0.01)), Statistics())
    assert first(better) == "a"


@pytest.mark.parametrize(
    ("intent", "field"),
    [
        (PacketIntent(capability=Capability.ANSWER, subject=TOPIC, min_fit=0.95), "min_fit"),
        (
            PacketIntent(
                capability=Capability.ANSWER, subject=TOPIC, tokens_out=1000, max_cost_usd=0.5
            ),
            "max_cost_usd",
        ),
        (
            PacketIntent(capability=Capability.ANSWER, subject=TOPIC, jurisdictions=("CA",)),
            "jurisdictions",
        ),
        (PacketIntent(capability=Capability.ANSWER, subject=TOPIC, owners=("me",)), "owners"),
    ],
)
def test_offers_that_an_intent_excludes_are_rejected_with_the_field(
    intent: PacketIntent, field: str
) -> None:
    rankings = Rankings(table(a=(offer(price_usd=1.0), 0.01)), Statistics())
    assert first(rankings, intent) is None
    told = rankings.ranking(encode_intent(intent), 0.0).decision(intent)
    assert told.chosen is None
    assert [rejection.field for rejection in told.rejections] == [field]


def test_a_site_where_the_packet_was_and_one_that_refused_it_are_passed_over() -> None:
    rankings = Rankings(
        table(a=(offer(), 0.01), b=(offer(), 0.02), c=(offer(), 0.03)), Statistics()
    )
    chosen = rankings.ranking(encode_intent(WANT), 0.0).choose(0, {"a", "b"}.__contains__, True)
    assert chosen is not None
    assert chosen.via == "c"


def test_own_deployment_answers_here() -> None:
    routes = table(a=(offer(), 0.5))
    routes.offer((offer(),), 0.0)
    assert first(Rankings(routes, Statistics())) == LOCAL


def test_slow_receipts_turn_objects_away_until_they_fade() -> None:
    statistics = Statistics()
    rankings = Rankings(table(a=(offer(), 0.01), b=(offer(), 0.05)), statistics)
    assert first(rankings) == "a"
    statistics.sent("a", "a", b"x", 0.0)
    assert statistics.answered("a", "a", b"x", 0.12, 2.0) == 2.0
    assert first(rankings, now_s=2.0) == "b"
    assert first(rankings, now_s=2.0 + 12 * HALF_LIFE_S) == "a"


def test_an_object_that_does_not_come_back_speaks_before_its_receipt() -> None:
    statistics = Statistics()
    rankings = Rankings(table(a=(offer(), 0.01), b=(offer(), 0.05)), statistics)
    statistics.sent("a", "a", b"x", 0.0)
    assert first(rankings, now_s=0.01) == "a"
    assert first(rankings, now_s=3.0) == "b"


def test_a_packet_with_few_hops_left_follows_promises_into_congestion() -> None:
    statistics = Statistics()
    rankings = Rankings(table(a=(offer(), 0.01), b=(offer(serve_s=0.15), 0.01)), statistics)
    at_rest = rankings.ranking(encode_intent(WANT), 0.0)
    worse = min(choice.advertised_score for choice in at_rest.choices)
    assert {choice.via: choice.advertised_score > worse for choice in at_rest.choices} == {
        "a": True,
        "b": False,
    }
    statistics.sent("a", "a", b"x", 0.0)
    congested = rankings.ranking(encode_intent(WANT), 3.0)
    chosen = {
        detour: congested.choose(worse, NOWHERE, True, (), detour) for detour in (True, False)
    }
    assert {detour: choice and choice.via for detour, choice in chosen.items()} == {
        True: "b",
        False: "a",
    }


def test_advice_weighs_and_a_wrong_scorer_is_told() -> None:
    rankings = Rankings(
        table(a=(offer(0.99, serve_s=3.0), 0.01), b=(offer(0.8), 0.01)), Statistics()
    )
    assert first(rankings) == "b"
    careful = PacketIntent(capability=Capability.ANSWER, subject=TOPIC, prefer={"accuracy": 100.0})
    assert first(rankings, careful) == "a"
    wrong = PacketIntent(capability=Capability.ANSWER, subject=TOPIC, prefer={"speed": 1.0})
    with pytest.raises(InvalidInput, match=r"prefer\.speed"):
        first(rankings, wrong)


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 1.0), st.floats(0.001, 5.0), st.floats(0.0, 5.0), st.floats(0.0, 1.0)
        ),
        min_size=1,
        max_size=6,
    )
)
def test_the_decision_that_is_told_is_the_one_that_is_taken(
    made: list[tuple[float, float, float, float]],
) -> None:
    origins = {
        f"s{i}": (offer(fit, serve_s=serve_s, price_usd=price), distance_s)
        for i, (fit, distance_s, serve_s, price) in enumerate(made)
    }
    rankings = Rankings(table(**origins), Statistics())
    ranking = rankings.ranking(encode_intent(WANT), 0.0)
    chosen, told = ranking.choose(0, NOWHERE, True), ranking.decision(WANT)
    assert chosen is not None
    assert told.chosen == f"{chosen.origin} via {chosen.via}"
    assert [scored.score for scored in told.ranking] == sorted(
        (scored.score for scored in told.ranking), reverse=True
    )


@given(st.floats(0.0, 1.0), st.floats(0.0, 5.0), st.floats(0.002, 3.0), st.floats(0.002, 3.0))
def test_a_promise_grows_at_every_hop_towards_it(
    fit: float, serve_s: float, first_s: float, second_s: float
) -> None:
    """`here` reaches the origin through `b`, which reaches it through `c`."""
    made = offer(fit, serve_s=serve_s)
    entry = RouteEntry(
        origin="o", seqno=0, distance_s=first_s + second_s, edition=1, offers=(made,)
    )
    here = RouteTable("here", 0.0)
    here.link_up("b", 0.01, 0.0)
    here.receive("b", Update(routes=(entry,), whole=True), 0.0)
    nearer = RouteEntry(origin="o", seqno=0, distance_s=first_s, edition=1, offers=(made,))
    b = RouteTable("b", 0.0)
    b.link_up("c", second_s, 0.0)
    b.receive("c", Update(routes=(nearer,), whole=True), 0.0)
    taken = Rankings(here, Statistics()).ranking(encode_intent(WANT), 0.0).choose(0, NOWHERE, True)
    assert taken is not None
    then = (
        Rankings(b, Statistics())
        .ranking(encode_intent(WANT), 0.0)
        .choose(taken.advertised_score, NOWHERE, True)
    )
    assert then is not None
    assert then.advertised_score > taken.advertised_score


def crowded(origins: int, neighbours: int) -> RouteTable:
    """Very many origins, the better the later; each is reached by every neighbour."""
    routes = RouteTable("here", 0.0)
    for number in range(neighbours):
        routes.link_up(f"n{number}", 0.01 * (1 + number), 0.0)
        entries = tuple(
            RouteEntry(f"o{i:04}", 0, 0.01, 1, (offer(i / origins),)) for i in range(origins)
        )
        routes.receive(f"n{number}", Update(entries, whole=True), 0.0)
    return routes


def test_of_very_many_ways_the_best_are_ranked_and_some_by_each_neighbour() -> None:
    routes = crowded(500, 8)
    ranking = Rankings(routes, Statistics()).ranking(encode_intent(WANT), 0.0)
    assert len(ranking.choices) <= MOST_NEXT_HOPS + 8 * MOST_BY_VIA
    best = ranking.choices[0]
    assert (best.via, best.origin) == ("n0", "o0499")
    assert [choice.score for choice in ranking.choices[:MOST_NEXT_HOPS]] == sorted(
        (choice.score for choice in ranking.choices), reverse=True
    )[:MOST_NEXT_HOPS]
    for number in range(8):
        been = {f"n{other}" for other in range(8) if other != number} | {best.origin}
        other = ranking.choose(0, been.__contains__, True)
        assert other is not None
        assert (other.via, other.origin) == (f"n{number}", "o0498")


def test_a_decision_lists_a_bounded_number_of_rejections() -> None:
    careful = PacketIntent(capability=Capability.ANSWER, subject=TOPIC, min_fit=0.9)
    told = (
        Rankings(crowded(500, 4), Statistics())
        .ranking(encode_intent(careful), 0.0)
        .decision(careful)
    )
    assert told.ranking
    assert 0 < len(told.rejections) <= MOST_REJECTED
    assert told.rejections[0].candidate == "o0000 via n0"


def test_all_rankings_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daitn.steering.ranking_cache.MOST_ROWS", 20)
    routes = table(**{f"s{i}": (offer(), 0.01) for i in range(8)})
    rankings = Rankings(routes, Statistics())
    wants = [
        encode_intent(PacketIntent(Capability.ANSWER, TOPIC, min_fit=i / 10)) for i in range(5)
    ]
    first, *_, last = [rankings.ranking(intent, 0.0) for intent in wants]
    assert rankings.ranking(wants[-1], 0.0) is last
    assert rankings.ranking(wants[0], 0.0) is not first


def test_nothing_is_sent_to_or_by_a_cordoned_site_and_why_is_told() -> None:
    routes = table(a=(offer(), 0.01), b=(offer(), 0.3))
    rankings = Rankings(routes, Statistics())
    assert first(rankings) == "a"
    routes.cordon("a", "is cordoned by ops: new disks")
    assert first(rankings) == "b"
    told = rankings.ranking(encode_intent(WANT), 0.0).decision(WANT)
    assert [(r.candidate, r.filter, r.reason) for r in told.rejections] == [
        ("a via a", "cordoned", "a is cordoned by ops: new disks")
    ]
    routes.link_down("a", 1.0)  # As it tells no more what it offers, it is named by itself.
    told = rankings.ranking(encode_intent(WANT), 1.0).decision(WANT)
    assert [(r.candidate, r.filter) for r in told.rejections] == [("a", "cordoned")]
    routes.cordon("a", "")
    routes.link_up("a", 0.01, 2.0)
    entry = RouteEntry(origin="a", seqno=0, distance_s=0.0, edition=1, offers=(offer(),))
    routes.receive("a", Update(routes=(entry,), whole=True), 2.0)
    assert first(rankings, now_s=2.0) == "a"


def test_what_belongs_to_a_cordoned_site_comes_home() -> None:
    home = f"{Capability.HOME}:a"
    routes = table(a=(Offer(home), 0.01), b=(offer(), 0.3))
    routes.cordon("a", "is cordoned")
    assert first(Rankings(routes, Statistics()), PacketIntent(Capability.HOME, "a")) == "a"
