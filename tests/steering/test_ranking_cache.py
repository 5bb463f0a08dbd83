"""Kept rankings: the same as those made for one packet alone, and made anew only where needed."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.objects.errors import InvalidInput
from daitn.objects.intents import Preference
from daitn.steering.next_hops import as_learned, next_hops_for, priced, reach_of, units_of
from daitn.steering.ranking_cache import Rankings
from daitn.steering.routes.names import site_of
from daitn.steering.routes.table import RouteTable
from daitn.steering.scoring import STEERING, advertised_scores
from daitn.steering.statistics import Statistics
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.offers import Offer, RouteEntry, SeqnoRequest, Update

TOPIC = "medicine/neurology"
KEYS = (
    "answer:medicine/neurology",
    "answer:medicine/*",
    "answer:law",
    "answer:unmeasured",
    "data:law",
    "model:m",
)
NEIGHBOURS = ("n0", "n1", "n2")
ORIGINS = ("o0", "o1", "o2", "o3", "n0", "domain:x@n0/1", "domain:y@o1/1")

PRICES_USD = (0.0, 0.0, 0.001, 0.0011, 0.5, 3.0, math.inf)

Row = tuple[str, str, str, int, float, float]


def alone(intent: PacketIntent, routes: RouteTable) -> list[Row]:
    """What is preferred for one want, worked out for it alone: all terms at once."""
    preferences = [Preference(scorer=n, weight=w) for n, w in sorted(intent.prefer.items())]
    reach = reach_of(f"{intent.capability}:{intent.subject}", routes)
    hops = priced(next_hops_for(intent, reach), units_of(intent))
    advertised = advertised_scores(hops, preferences) * 2.0**32
    hops = as_learned(hops, Statistics(), 0.0)
    scores = STEERING.scores(hops, hops.passes, preferences).tolist()
    order = sorted(hops.passes.nonzero()[0].tolist(), key=lambda i: -scores[i])
    return [
        (
            hops.rows[i].via,
            hops.rows[i].origin,
            site_of(hops.rows[i].origin),
            int(min(advertised[i], 2**32 - 1)),
            float(hops.expected_s[i]),
            scores[i],
        )
        for i in order
    ]


def kept(rankings: Rankings, intent: PacketIntent) -> list[Row]:
    choices = rankings.ranking(encode_intent(intent), 0.0).choices
    return [(c.via, c.origin, c.site, c.advertised_score, c.expected_s, c.score) for c in choices]


offers = st.builds(
    Offer,
    key=st.sampled_from(KEYS),
    fit=st.floats(0.0, 1.0),
    trust=st.integers(0, 2),
    serve_s=st.floats(0.0, 5.0),
    price_usd=st.sampled_from(PRICES_USD),
    jurisdiction=st.sampled_from(("CA", "DE")),
    owner=st.sampled_from(("ana", "ben")),
    amount=st.integers(1, 8),
    keeps=st.booleans(),
    abilities=st.sampled_from(((), (1,), (1, 2), (3,))),
    context_tokens=st.sampled_from((0, 0, 100, 500)),
    languages=st.sampled_from(((), ("de",), ("en", "fr"))),
)
intents = st.builds(
    PacketIntent,
    capability=st.sampled_from((Capability.ANSWER, Capability.ANSWER, Capability.DATA)),
    subject=st.sampled_from((TOPIC, TOPIC, "law", "")),
    owner=st.sampled_from(("x", "y")),
    min_fit=st.sampled_from((0.0, 0.0, 0.5)),
    trust=st.sampled_from((0, 0, 1, 2)),
    max_cost_usd=st.none() | st.sampled_from((0.0, 0.001, 0.1, 1.0)) | st.floats(0.0, 2.0),
    jurisdictions=st.sampled_from(((), (), ("CA",), ("CA", "DE"))),
    owners=st.sampled_from(((), (), ("ana",))),
    unkept=st.sampled_from((False, False, True)),
    tokens_in=st.integers(0, 3000),
    tokens_at_once=st.sampled_from([0, 0, 100]),
    tokens_out=st.integers(0, 3000),
    examples=st.integers(0, 3000),
    prefer=st.dictionaries(
        st.sampled_from(("accuracy", "latency", "cost")), st.sampled_from((0.0, 1.0, 3.0))
    ),
    needs=st.sampled_from((0, 0, 1, 3)),
    language=st.sampled_from(("", "", "de")),
)


@st.composite
def at_the_limit(draw: st.DrawFn) -> PacketIntent:
    """A want that can just pay one of the prices, or just not."""
    intent = draw(intents)
    cost_usd = draw(st.sampled_from(PRICES_USD[:-1])) * units_of(intent) / 1000.0
    limit_usd = math.nextafter(cost_usd, draw(st.sampled_from((cost_usd, 0.0, math.inf))))
    return msgspec.structs.replace(intent, max_cost_usd=limit_usd)


entries = st.builds(
    RouteEntry,
    origin=st.sampled_from(ORIGINS),
    seqno=st.integers(1, 2),
    distance_s=st.floats(0.0, 3.0),
    edition=st.integers(1, 5),
    offers=st.lists(offers, max_size=3, unique_by=lambda offer: offer.key).map(tuple),
)
neighbours, maybe = st.sampled_from(NEIGHBOURS), st.booleans()
changes = st.one_of(
    st.tuples(st.just("heard"), neighbours, st.lists(entries, min_size=1, max_size=4), maybe),
    st.tuples(st.just("heard"), neighbours, st.lists(entries, min_size=1, max_size=4), maybe),
    st.tuples(st.just("cost"), neighbours, st.floats(0.0, 2.0)),
    st.tuples(st.just("down"), neighbours),
    st.tuples(st.just("up"), neighbours, st.floats(0.0, 2.0)),
    st.tuples(st.just("offer"), st.lists(offers, max_size=3).map(tuple)),
    st.tuples(st.just("due"), st.floats(0.0, 30.0)),
    st.tuples(st.just("asked"), neighbours, st.sampled_from(ORIGINS), st.integers(1, 4)),
    st.tuples(st.just("domain"), st.sampled_from(("", "x", "y"))),
    st.tuples(st.just("border"), neighbours, st.sampled_from((None, "", "x", "y"))),
)
wants = intents | at_the_limit()


def network() -> RouteTable:
    routes = RouteTable("here", 0.0)
    for neighbour in NEIGHBOURS:
        routes.link_up(neighbour, 0.01, 0.0)
    return routes


@st.composite
def alike(draw: st.DrawFn) -> list[PacketIntent]:
    """Wants of one key, which differ in one thing or two."""
    first = draw(wants)
    fields = ("prefer", "max_cost_usd", "min_fit", "trust", "jurisdictions", "owners", "unkept",
              "tokens_in", "tokens_at_once", "tokens_out", "owner")  # fmt: skip
    made = [first]
    for other in draw(st.lists(wants, min_size=1, max_size=3)):
        changed = draw(st.lists(st.sampled_from(fields), min_size=1, max_size=2))
        made.append(
            msgspec.structs.replace(first, **{name: getattr(other, name) for name in changed})
        )
    return made


@settings(max_examples=150, deadline=None)
@given(st.lists(changes, min_size=1, max_size=20), alike(), wants)
def test_a_kept_ranking_is_what_each_packet_would_be_ranked_for_alone(
    happens: list[object], wanted: list[PacketIntent], other: PacketIntent
) -> None:
    routes, now_s = network(), 0.0
    rankings = Rankings(routes, Statistics())
    for happened in happens:
        match happened:
            case ("heard", str(who), list(said), bool(whole)):
                routes.receive(who, Update(tuple(said), whole=whole), now_s)
            case ("cost", str(who), float(cost_s)):
                routes.link_cost(who, cost_s, now_s)
            case ("down", str(who)):
                routes.link_down(who, now_s)
            case ("up", str(who), float(cost_s)):
                routes.link_up(who, cost_s, now_s)
            case ("offer", tuple(own)):
                routes.offer(own, now_s)
            case ("due", float(after_s)):
                now_s += after_s
                routes.due(now_s)
            case ("asked", str(who), str(origin), int(seqno)):
                routes.receive(who, SeqnoRequest(origin, seqno), now_s)
            case ("domain", str(name)):
                routes.set_domain(name, now_s)
            case ("border", str(who), None | str() as domain):
                routes.link_domain(who, domain)
            case _:
                raise AssertionError(happened)
        for want in (*wanted, other):
            assert kept(rankings, want) == alone(want, routes)


def heard(
    routes: RouteTable, origin: str, key: str, wait_s: float = 0.0, price: float = 0.0
) -> None:
    offer = Offer(key=key, fit=0.9, trust=2, serve_s=0.1, wait_s=wait_s, price_usd=price, amount=8)
    entry = RouteEntry(origin, 1, 0.01, 1, (offer,))
    routes.receive("n0", Update((entry,)), 0.0)


def test_packets_of_all_lengths_share_a_ranking_where_nothing_has_a_price() -> None:
    routes = network()
    heard(routes, "o0", KEYS[0])
    rankings = Rankings(routes, Statistics())
    wants = [
        encode_intent(PacketIntent(Capability.ANSWER, TOPIC, tokens_out=length, max_cost_usd=0.1))
        for length in range(1, 1000, 7)
    ]
    assert len({id(rankings.ranking(intent, 0.0)) for intent in wants}) == 1


def test_a_ranking_stays_while_only_other_things_change() -> None:
    routes = network()
    heard(routes, "o0", KEYS[0])
    rankings = Rankings(routes, Statistics())
    intent = encode_intent(PacketIntent(Capability.ANSWER, TOPIC))
    before = rankings.ranking(intent, 0.0)
    heard(routes, "o1", "answer:law", wait_s=3.0)
    heard(routes, "o1", "data:medicine/neurology")
    heard(routes, "o2", "answer:law")
    routes.link_cost("n1", 1.0, 0.0)
    routes.link_down("n2", 0.0)
    assert rankings.ranking(intent, 0.0) is before
    for origin, key in (("o0", KEYS[0]), ("o3", "answer:medicine/*"), ("o4", "answer:*")):
        before = rankings.ranking(intent, 0.0)
        heard(routes, origin, key, wait_s=1.0)
        assert rankings.ranking(intent, 0.0) is not before


def test_any_answer_at_all_is_ranked_anew_when_any_answer_changes() -> None:
    routes = network()
    heard(routes, "o0", "answer:law")
    rankings = Rankings(routes, Statistics())
    intent = encode_intent(PacketIntent(Capability.ANSWER, ""))
    before = rankings.ranking(intent, 0.0)
    heard(routes, "o1", "data:law")
    assert rankings.ranking(intent, 0.0) is before
    heard(routes, "o1", "answer:sports")
    assert [choice.origin for choice in rankings.ranking(intent, 0.0).choices] == ["o0", "o1"]
    heard(routes, "o1", "data:law")
    assert [choice.origin for choice in rankings.ranking(intent, 0.0).choices] == ["o0"]


def test_where_ways_have_prices_packets_of_one_length_share_a_ranking() -> None:
    routes = network()
    heard(routes, "o0", KEYS[0], price=1.0)
    rankings = Rankings(routes, Statistics())
    short, long = (
        encode_intent(PacketIntent(Capability.ANSWER, TOPIC, tokens_out=length))
        for length in (10, 1000)
    )
    before = rankings.ranking(short, 0.0)
    assert rankings.ranking(long, 0.0).choices[0].score < before.choices[0].score
    heard(routes, "o1", "answer:law")
    assert rankings.ranking(short, 0.0) is before


def test_a_want_with_a_preference_that_is_none_leaves_nothing_behind() -> None:
    routes = network()
    heard(routes, "o0", KEYS[0])
    rankings = Rankings(routes, Statistics())
    for number in range(3):
        wanted = PacketIntent(Capability.ANSWER, TOPIC, prefer={f"s{number}": 1.0})
        with pytest.raises(InvalidInput):
            rankings.ranking(encode_intent(wanted), 0.0)
    assert rankings.classes == 0


def test_the_reason_that_is_told_is_each_packets_own() -> None:
    routes = network()
    heard(routes, "o0", KEYS[0], price=1.0)
    rankings = Rankings(routes, Statistics())
    for length in (2000, 3000):
        intent = PacketIntent(Capability.ANSWER, TOPIC, tokens_out=length, max_cost_usd=1.0)
        told = rankings.ranking(encode_intent(intent), 0.0).decision(intent)
        (no,) = told.rejections
        assert no.shortfall == length / 1000 - 1.0


def test_a_limit_of_cost_parts_those_that_can_pay_from_those_that_cannot() -> None:
    routes = network()
    heard(routes, "o0", KEYS[0], price=1.0)
    heard(routes, "o1", KEYS[0], price=2.0)
    rankings = Rankings(routes, Statistics())
    for limit_usd, ways in (
        (None, 2), (0.2, 2), (math.nextafter(0.2, 0.0), 1), (0.1, 1), (math.nextafter(0.1, 0.0), 0)
    ):  # fmt: skip
        intent = PacketIntent(Capability.ANSWER, TOPIC, tokens_out=100, max_cost_usd=limit_usd)
        assert kept(rankings, intent) == alone(intent, routes)
        assert len(kept(rankings, intent)) == ways


def test_another_way_to_the_same_origin_is_ranked_at_once_and_leaves_at_once() -> None:
    routes = network()
    heard(routes, "o0", KEYS[0])
    rankings = Rankings(routes, Statistics())
    intent = PacketIntent(Capability.ANSWER, TOPIC)
    assert len(kept(rankings, intent)) == 1
    offer = Offer(key=KEYS[0], fit=0.9, trust=2, serve_s=0.1, amount=8)
    routes.receive("n1", Update((RouteEntry("o0", 1, 0.012, 1, (offer,)),)), 0.0)
    assert [way[0] for way in kept(rankings, intent)] == ["n0", "n1"]
    routes.link_cost("n1", 0.5, 0.0)
    assert kept(rankings, intent) == alone(intent, routes)
    routes.link_down("n1", 0.0)
    assert [way[0] for way in kept(rankings, intent)] == ["n0"]
