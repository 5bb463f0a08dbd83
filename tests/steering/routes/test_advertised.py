"""What is told on is little, honest, and settles."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from daitn.steering.routes.advertised import (
    Aggregation,
    AggregationLimits,
    advertised_as,
    balance,
    best_of,
    choose,
    fold,
)
from daitn.steering.routes.offers import wider
from daitn.steering.wire.offers import INFINITE, Offer, Summary, Update
from tests.scenes.searches import cases

from .harness import no_loops
from .test_routes import build, disturb, seeds, slow

topics = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)
keys = st.builds("{}:{}".format, st.sampled_from(("answer", "data", "home")), topics)
offers = st.builds(
    Offer,
    keys,
    fit=st.floats(0.0, 1.0),
    trust=st.integers(0, 2),
    serve_s=st.floats(0.0, 10.0),
    wait_s=st.floats(0.0, 10.0),
    price_usd=st.floats(0.0, 0.1),
    at_s=st.floats(0.0, 1e9),
)


def test_wider_keys() -> None:
    assert [*wider("answer:medicine/neurology")] == ["answer:medicine/*", "answer:*"]
    assert [*wider("answer:medicine/*")] == ["answer:*"]
    assert [*wider("model:clinic-lm")] == ["model:*"]
    assert [*wider("answer:*")] == [*wider("home:clinic")] == []


@given(st.sets(keys, max_size=40), st.integers(1, 12))
def test_folding_leaves_few_keys_and_hides_none(all_keys: set[str], most: int) -> None:
    folded = fold(all_keys, most)
    left = {advertised_as(key, folded) for key in all_keys}
    assert len(left) <= most or all(not [*wider(key)] for key in left)
    for key in all_keys:
        assert advertised_as(key, folded) in {key, *wider(key)}
    assert fold(all_keys, most, folded) == folded, "what is folded stays so"


def test_the_finest_topics_are_folded_first() -> None:
    fine = {f"answer:medicine/neurology/{number}" for number in range(3)}
    coarse = {f"answer:medicine/{number}" for number in range(9)}
    assert fold(fine | coarse, 10) == {"answer:medicine/neurology/*"}


@given(st.lists(offers, min_size=1, max_size=8))
def test_an_aggregate_promises_what_one_of_its_offers_does(some: list[Offer]) -> None:
    made = best_of(some, "answer:*")
    assert any(
        (each.fit, each.trust, each.serve_s, each.wait_s, each.price_usd)
        == (made.fit, made.trust, made.serve_s, made.wait_s, made.price_usd)
        for each in some
    )
    assert balance(made) == min(map(balance, some))
    assert made.at_s == min(each.at_s for each in some)


def test_places_go_to_the_balanced_the_fittest_the_soonest_and_the_cheapest() -> None:
    some = {
        "balanced": Offer("answer:a", fit=0.8, trust=1, serve_s=1.0, price_usd=0.001),
        "good": Offer("answer:a", fit=0.75, trust=1, serve_s=1.0, price_usd=0.001),
        "fittest": Offer("answer:a", fit=0.9, trust=2, serve_s=30.0, price_usd=0.01),
        "soonest": Offer("answer:a", fit=0.1, serve_s=0.1, price_usd=0.01),
        "cheapest": Offer("answer:a", fit=0.1, serve_s=20.0),
        "mine": Offer("answer:a", fit=0.1, serve_s=99.0, price_usd=0.1),
    }
    near_s = dict.fromkeys(some, 0.1)
    assert choose(some, near_s, "mine", 6) == tuple(some)
    assert choose(some, near_s, "elsewhere", 4) == ("balanced", "fittest", "soonest", "cheapest")
    assert choose(some, near_s, "mine", 4) == ("mine", "balanced", "fittest", "soonest")
    far_s = near_s | {"balanced": 9.0}
    assert choose(some, far_s, "elsewhere", 1) == ("good",)


def test_many_of_one_kind_hide_none_of_another() -> None:
    table, text, sees = 0b10001, 0b1001, 0b101001
    some = {
        f"table-{n}": Offer("answer:a", fit=0.9, trust=2, abilities=(table,), context_tokens=2048)
        for n in range(9)
    }
    some["text"] = Offer("answer:a", serve_s=9.0, abilities=(text,), context_tokens=2048)
    some["worse"] = Offer("answer:a", serve_s=99.0, abilities=(text,), context_tokens=2048)
    some["sees"] = Offer("answer:a", serve_s=99.0, abilities=(sees, table), context_tokens=2048)
    some["holds"] = Offer("answer:a", serve_s=999.0, abilities=(table,), context_tokens=32768)
    near_s = dict.fromkeys(some, 0.1)
    chosen = choose(some, near_s, "mine", 4)
    assert [*chosen[:4]] == [f"table-{n}" for n in range(4)]
    assert chosen[4:] == ("text", "sees", "holds")
    some["all"] = Offer("answer:a", serve_s=9999.0, abilities=(table,))
    assert choose(some, near_s | {"all": 0.1}, "mine", 4)[4:] == ("text", "sees", "all")


def test_kinds_beyond_the_bound_are_not_told() -> None:
    some = {f"{n:02}": Offer("answer:a", abilities=(1 << n,)) for n in range(20)}
    limits = AggregationLimits()
    chosen = choose(some, dict.fromkeys(some, 0.1), "mine", limits.best)
    assert len(chosen) == limits.best + 8 < limits.most_chosen


def test_an_aggregate_is_able_to_what_any_of_its_offers_is() -> None:
    text = Offer("answer:a", fit=0.4, abilities=(0b1001,), context_tokens=4096, languages=("de",))
    table = Offer(
        "answer:b",
        fit=0.9,
        abilities=(
            0b10001,
            0b1,
        ),
        languages=("en",),
    )
    both = best_of((text, table), "answer:*")
    assert both.abilities == (0b1001, 0b10001), "one number for each kind, and none within another"
    assert (both.fit, both.context_tokens, both.languages) == (0.9, 0, ("de", "en"))
    unknown = Offer("answer:c", context_tokens=8192)
    both = best_of((text, unknown), "answer:*")
    assert (both.abilities, both.context_tokens, both.languages) == ((), 8192, ())


def test_more_homes_than_may_be_told_are_left_out_and_come_back() -> None:
    here = Aggregation("me", AggregationLimits(most_keys=2))
    for site in "abc":
        here.put(site, 1.0, (Offer(f"home:{site}"),))
    assert here.refresh() == {"a", "b"}
    assert here.advertised("c") is None
    here.drop("a")
    assert here.refresh() == {"a", "c"}
    assert here.advertised("c") == (Offer("home:c"),)


def test_folding_is_undone_below_half_of_the_bound() -> None:
    here = Aggregation("me", AggregationLimits(most_keys=3))
    own = tuple(Offer(f"answer:own/{number}") for number in range(3))
    here.put("me", 0.0, own)
    for number in range(3):
        here.put(f"s{number}", 1.0, (Offer(f"answer:far/{number}", fit=number / 10, at_s=number),))
    here.refresh()
    assert here.advertised("me") == own, "what this site offers is told as it is"
    assert here.advertised("s2") == (Offer("answer:far/*", fit=0.2, at_s=2),)
    here.put("me", 0.0, ())
    here.refresh()
    assert here.advertised("s2") == (Offer("answer:far/*", fit=0.2, at_s=2),)
    here.drop("s0")
    here.drop("s1")
    assert here.refresh() == {"s0", "s1", "s2"}
    assert here.advertised("s2") == (Offer("answer:far/2", fit=0.2, at_s=2),)


def by_key(told: tuple[Offer, ...] | None) -> dict[str, Offer]:
    return {offer.key: offer for offer in told or ()}


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.lists(offers, max_size=4)), max_size=30))
def test_step_by_step_is_as_at_once(steps: list[tuple[str, list[Offer]]]) -> None:
    limits = AggregationLimits(best=2, most_keys=1000)
    stepwise, at_once = Aggregation("a", limits), Aggregation("a", limits)
    told: dict[str, tuple[Offer, ...] | None] = {}
    for origin, some in steps:
        stepwise.put(origin, float(ord(origin)), some)
        for changed in stepwise.refresh():
            told[changed] = stepwise.advertised(changed)
    for origin, some in steps:
        at_once.put(origin, float(ord(origin)), some)
    at_once.refresh()
    for origin in {origin for origin, _ in steps}:
        # In which order offers are told says nothing, and is no change.
        assert by_key(stepwise.advertised(origin)) == by_key(at_once.advertised(origin))
        assert by_key(told.get(origin)) == by_key(at_once.advertised(origin))


@settings(slow, max_examples=cases(8))
@given(seed=seeds)
@example(seed=7741)
def test_bounds_and_honesty_hold_on_every_link_and_all_settles(seed: int) -> None:
    limits = AggregationLimits(best=2, most_keys=6)
    network = build(seed, 8, limits=limits, watch=no_loops(), topics=4)
    heard: dict[tuple[str, str], dict[str, tuple[Offer, ...]]] = {}

    def observed(site: str, to: str, summary: Summary) -> None:
        if not isinstance(summary, Update):
            return
        before = heard.get((site, to), {})
        now = heard[site, to] = {} if summary.whole else before
        for entry in summary.routes:
            now[entry.origin] = (
                before.get(entry.origin, ()) if entry.offers is None else entry.offers
            )
            if entry.distance_s == INFINITE:
                del now[entry.origin]
        others = [offer for origin, some in now.items() if origin != site for offer in some]
        assert len({offer.key for offer in others}) <= limits.most_keys
        for key in {offer.key for offer in others}:
            assert sum(offer.key == key for offer in others) <= limits.best
        for origin, some in now.items():
            for offer in some:
                assert offer.fit <= max(
                    each.fit
                    for each in network.ever[origin]
                    if offer.key in (each.key, *wider(each.key))
                )

    network.observed = observed
    disturb(network, 12)
    network.run(900.0)
    before = network.sent["changes"]
    network.run(120.0)
    assert network.sent["changes"] == before
