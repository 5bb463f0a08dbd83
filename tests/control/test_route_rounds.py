"""Who trains in a round, on how much, and who merges."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import msgspec
import numpy as np
import pytest

from daitn.control.route.chains import alike, chains, unlike
from daitn.control.route.question import PastVisit, RouteQuestion, RouteStart, Spent
from daitn.control.route.rounds import NextRound, next_round
from daitn.control.route.trees import groups
from daitn.objects.compression import Compression
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.intents import Budget, Training
from daitn.objects.lineage import MOST_VISITS
from daitn.objects.merging import CONSIDERED, MOST_MERGED, RULES, Algorithm, MergeRule, Reduces
from daitn.objects.orders import MOST_EXAMPLES
from daitn.topology.snapshot import DataOption

from .route_world import UNLIMITED, general, healthcare, intent, option, question, topology

START = RouteStart(
    model=Digest("m" * 64), size_bytes=10_000_000, holders=(SiteId("ghr"), SiteId("judge"))
)


def asked(
    options: tuple[DataOption, ...],
    *,
    algorithm: Algorithm = Algorithm.FEDAVG,
    budget: Budget = UNLIMITED,
    epochs: float = 1.0,
    start: RouteStart = START,
) -> RouteQuestion:
    wanted = msgspec.structs.replace(
        intent(budget=budget, broad=0.8), training=Training(algorithm=algorithm, epochs=epochs)
    )
    return question(wanted, topology(options), checkpoints=(start,))


def following(
    found: RouteQuestion, shortfalls: tuple[float, ...] = (0.5,), behind: int = 0
) -> NextRound:
    training = found.intent.training
    assert training.rule is not None
    there = replace(found, shortfalls=shortfalls, behind=behind)
    return next_round(there, training.algorithm, training.rule)


def sizes(found: RouteQuestion) -> dict[str, int]:
    planned = following(found).round
    return {stop.site: stop.examples for stop in planned.visits} if planned else {}


def test_every_site_trains_on_its_records_and_one_of_them_merges() -> None:
    found = following(asked(healthcare()))
    assert found.round is not None
    samples = {one.site: one.dataset.samples for one in healthcare()}
    assert {stop.site: stop.examples for stop in found.round.visits} == samples
    assert set(found.round.aggregators) == set(samples)
    assert found.decision.chosen == f"9 sites, merged at {found.round.aggregators[0]}"
    half = sizes(asked(healthcare(), epochs=0.5))
    assert half["ghr"] == samples[SiteId("ghr")] // 2


def test_the_aggregator_is_the_best_connected_site() -> None:
    options = tuple(general(site, {"information": 100}) for site in ("a", "b", "c"))
    seen = topology(options)
    slow = {
        source: {
            target: msgspec.structs.replace(
                link,
                throughput_bps=msgspec.structs.replace(link.throughput_bps, value=1e4)
                if "a" in (source, target) and link.throughput_bps is not None
                else link.throughput_bps,
            )
            for target, link in links.items()
        }
        for source, links in seen.snapshot.links.items()
    }
    links = seen.snapshot.links
    for source, changed in slow.items():
        for target, link in changed.items():
            links = links.set(source, links[source].set(target, link))
    wanted = asked(options)
    there = replace(seen, snapshot=replace(seen.snapshot, links=links))
    found = following(replace(wanted, topology=there))
    assert found.round is not None
    assert found.round.aggregators[-1] == "a"


def test_a_site_whose_rules_bind_the_model_takes_part_only_if_all_others_may_have_it() -> None:
    options = (
        general("us", {"information": 900}),
        general("us-too", {"information": 800}),
        option("bound", "medicine", {"information": 700}, release_to=("US",)),
        general("ch", {"information": 600}, place="CH"),
        option("own", "medicine", {"information": 500}, release_to=("CH",), place="CH"),
    )
    assert set(sizes(asked(options))) == {"us", "us-too", "bound"}
    without = tuple(one for one in options if one.site != "bound")
    assert set(sizes(asked(without))) == {"us", "us-too", "ch"}


def test_budgets_shorten_all_visits_alike_and_free_data_costs_nothing() -> None:
    options = (
        general("dear", {"information": 1000}, price=100.0),
        general("free", {"information": 500}),
    )
    assert sizes(asked(options, budget=Budget(examples=300))) == {"dear": 200, "free": 100}
    assert sizes(asked(options, budget=Budget(cost_usd=50.0))) == {"dear": 500, "free": 500}
    assert sizes(asked(options, budget=Budget(cost_usd=0.0))) == {"free": 500}
    none = following(asked(options, budget=Budget(examples=1)))
    assert none.round is None
    assert "budget" in none.why


def test_no_site_is_asked_for_less_than_it_trains_on() -> None:
    (only,) = (general("clinic", {"information": 400}),)
    least = msgspec.structs.replace(
        only, dataset=msgspec.structs.replace(only.dataset, least_examples=300)
    )
    assert sizes(asked((least,), epochs=0.01)) == {"clinic": 300}
    assert sizes(asked((least,), budget=Budget(examples=200))) == {}


def test_robust_rules_wait_for_enough_sites() -> None:
    few = tuple(general(f"s{number}", {"information": 100}) for number in range(4))
    found = following(asked(few, algorithm=Algorithm.KRUM))
    assert found.round is None
    assert found.waits == "krum needs 5 sites, 4 can take part"
    assert following(asked(few, algorithm=Algorithm.MEDIAN)).round is not None


def test_a_secure_sum_waits_for_two_sites_and_nobody_trains_for_it_alone() -> None:
    first = general("s0", {"information": 100})
    again = msgspec.structs.replace(first.dataset, name="more")
    both = (
        first,
        msgspec.structs.replace(first, dataset=again),
        general("s1", {"information": 100}),
    )
    training = Training(algorithm=Algorithm.FEDAVG, secure_aggregation=True)

    def planned(options: tuple[DataOption, ...], budget: Budget = UNLIMITED) -> NextRound:
        found = asked(options, budget=budget)
        wanted = msgspec.structs.replace(found.intent, training=training)
        return following(replace(found, intent=wanted))

    for few in (both[:1], both[:2]):
        assert planned(few).round is None
        assert planned(few).waits == "fedavg needs 2 sites, 1 can take part"
    assert planned(both).round is not None
    dear = general("s1", {"information": 100}, price=100.0)
    assert "budget" in planned((first, dear), Budget(cost_usd=0.0)).why


def test_a_round_and_a_lineage_have_a_bound() -> None:
    many = tuple(general(f"s{n:03}", {"information": n + 1}) for n in range(MOST_MERGED + 20))
    assert len(sizes(asked(many))) == MOST_MERGED + 20, "they merge in groups"
    chosen = sizes(asked(many, algorithm=Algorithm.MEDIAN))
    assert len(chosen) == MOST_MERGED
    assert "s000" not in chosen, "the smallest stay away"
    found = following(asked(healthcare()), behind=MOST_VISITS - 3)
    assert found.round is None
    assert "lineage" in found.why
    asks, most = asked(healthcare()), MOST_VISITS - len(healthcare())
    assert following(asks, behind=most - 1).round is not None
    late = replace(asks, busy=frozenset({"ghr/pairs"}))
    assert following(late, behind=most).round is None, "what is late is in it, too"


@pytest.mark.parametrize(("budget", "patience"), [(Budget(), 10), (Budget(duration_s=1e9), 30)])
def test_rounds_without_gain_end(budget: Budget, patience: int) -> None:
    wanted = asked(healthcare(), budget=budget)
    still = (0.5, *(0.6 for _ in range(patience)))
    assert "nearer" in following(wanted, still).why
    assert following(wanted, still[:-1]).round is not None
    assert following(wanted, (*still[:-1], 0.4)).round is not None


def test_a_slow_site_trains_less_so_that_all_end_at_about_the_same_time() -> None:
    options = (
        general("a", {"information": 1000}),
        general("b", {"information": 1000}),
        general("small", {"information": 300}),
        general("slow", {"information": 1000}, speed=2e10),
        general("slowest", {"information": 1000}, speed=1e8),
    )
    asks = replace(asked(options), flops_per_example=1e10)
    found = following(asks).round
    assert found is not None
    examples = {str(stop.site): stop.examples for stop in found.visits}
    assert (examples["a"], examples["b"], examples["small"]) == (1000, 1000, 300)
    ends_s = {str(stop.site): stop.expected_s for stop in found.visits}
    assert ends_s["slow"] == pytest.approx(ends_s["a"], rel=0.05)
    assert examples["slowest"] == 100, "whoever takes part trains on a tenth"
    assert [stop.stands_for for stop in found.visits] == [0, 0, 1000, 1000, 0], "for all it has"
    assert found.within_s is not None
    assert 2.0 * ends_s["slow"] < found.within_s < ends_s["slowest"], "which is not waited for"
    everything = replace(asks, intent=asked(options, algorithm=Algorithm.FEDBUFF).intent)
    buffered = following(everything).round
    assert buffered is not None
    assert {stop.examples for stop in buffered.visits} == {1000, 300}
    assert buffered.enough == 3


def test_a_site_trains_on_all_where_less_would_not_end_the_round_sooner() -> None:
    """A site that waits for other work, and visits that are short however slow the site."""
    busy = msgspec.structs.replace(general("busy", {"information": 1000}), queue=20)
    options = (general("a", {"information": 1000}), general("b", {"information": 1000}), busy)
    assert set(sizes(replace(asked(options), flops_per_example=1e6)).values()) == {1000}
    assert set(sizes(replace(asked(options), flops_per_example=1e10)).values()) == {1000}
    short = tuple(
        PastVisit(
            option_id=f"{site}/pairs", examples=1000, seconds=seconds,
            before={}, after={}, standard_error={},
        )
        for site, seconds in (("a", 0.02), ("b", 0.02), ("busy", 0.4))
    )  # fmt: skip
    assert set(sizes(replace(asked(options), history=short)).values()) == {1000}


@pytest.mark.parametrize("speed", [1e-3, 1.0, 1e4])
def test_what_a_site_says_of_its_speed_makes_no_round_wait(speed: float) -> None:
    def within_s(*more: DataOption) -> float:
        sites = [general(f"s{number}", {"information": 1000}) for number in range(3)]
        asks = replace(asked((*sites, *more)), flops_per_example=1e10)
        longest_s = 0.0
        for algorithm in (Algorithm.FEDAVG, Algorithm.FEDBUFF):
            wanted = msgspec.structs.replace(asks.intent, training=Training(algorithm=algorithm))
            found = following(replace(asks, intent=wanted)).round
            assert found is not None
            assert found.within_s is not None
            longest_s = max(longest_s, found.within_s)
        return longest_s

    slow = general("slow", {"information": 1000}, speed=speed)
    assert within_s(slow) <= 11.0 * within_s(general("usual", {"information": 1000}))


def test_a_site_with_many_data_sets_has_one_voice_and_one_share() -> None:
    honest = [general(f"s{number}", {"information": 1000}) for number in range(3)]

    def those(samples: int, count: int) -> list[DataOption]:
        (one,) = [general("many", {"information": samples}, speed=1e25)]
        return [
            msgspec.structs.replace(
                one, dataset=msgspec.structs.replace(one.dataset, name=f"set{number}")
            )
            for number in range(count)
        ]

    for samples in (10, 10**7):
        for budget in (UNLIMITED, Budget(examples=20_000)):
            asks = asked((*honest, *those(samples, 5)), budget=budget)
            planned = following(replace(asks, flops_per_example=1e10)).round
            assert planned is not None
            work, counts = Counter[str](), Counter[str]()
            for stop in planned.visits:
                work[stop.site] += stop.examples
                counts[stop.site] += stop.stands_for or stop.examples
            assert all(work[one.site] == 1000 for one in honest)
            assert work["many"] <= 10_000
            assert counts["many"] <= 3000


def test_of_two_sites_none_makes_the_other_late() -> None:
    options = (general("a", {"information": 1000}), general("b", {"information": 1000}))
    history = tuple(
        PastVisit(
            option_id=option.id, examples=1000, seconds=100.0 if option.site == "a" else 1e-6,
            before={}, after={}, standard_error={},
        )
        for option in options
    )  # fmt: skip
    assert set(sizes(replace(asked(options), history=history)).values()) == {1000}


def test_one_site_does_not_say_how_long_others_take() -> None:
    options = tuple(
        general(site, {"information": 1000}) for site in ("a", "b", "c", "liar", "n1", "n2", "n3")
    )
    for seconds in (1e-12, 1e9):
        history = tuple(
            PastVisit(
                option_id=option.id, examples=1000,
                seconds=seconds if option.site == "liar" else 10.0,
                before={}, after={}, standard_error={},
            )
            for option in options[:4]
        )  # fmt: skip
        found = sizes(replace(asked(options), history=history))
        assert {found[site] for site in ("a", "b", "c", "n1", "n2", "n3")} == {1000}


def test_one_slow_visit_does_not_make_a_site_slow() -> None:
    options = tuple(general(site, {"information": 1000}) for site in ("a", "b", "c"))

    def visits(*of_c_s: float) -> tuple[PastVisit, ...]:
        return tuple(
            PastVisit(
                option_id=option.id, examples=1000, seconds=of_c if option.site == "c" else 10.0,
                before={}, after={}, standard_error={},
            )
            for of_c in of_c_s
            for option in options
        )  # fmt: skip

    def of_c(*seconds: float) -> int:
        return sizes(replace(asked(options), history=visits(*seconds)))["c"]

    assert of_c(200.0) < of_c(200.0, 10.0) == of_c(10.0, 200.0) == 1000
    assert of_c(*(10.0,) * 20, *(200.0,) * 3) < 200, "it became slow"


def test_speeds_are_learned_from_visits_of_earlier_rounds() -> None:
    options = tuple(general(site, {"information": 1000}) for site in ("a", "b", "slow"))
    history = tuple(
        PastVisit(
            option_id=option.id, examples=1000, seconds=200.0 if option.site == "slow" else 10.0,
            before={}, after={}, standard_error={},
        )
        for option in options
    )  # fmt: skip
    examples = sizes(replace(asked(options), history=history))
    assert examples["a"] == examples["b"] == 1000
    assert examples["slow"] <= 200


def test_who_still_trains_is_asked_for_nothing_and_its_rules_bind_the_others() -> None:
    options = (
        general("us", {"information": 900}),
        option("bound", "medicine", {"information": 100}, release_to=("US",)),
        general("ch", {"information": 600}, place="CH"),
    )
    asks = asked(options, algorithm=Algorithm.FEDBUFF)
    assert set(sizes(asks)) == {"us", "ch"}
    found = following(replace(asks, busy=frozenset({"bound/pairs"}))).round
    assert found is not None
    assert [stop.site for stop in found.visits] == ["us"]
    assert set(found.aggregators) == {"us", "bound"}
    assert found.enough == 1
    everybody = frozenset(one.id for one in options)
    waiting = following(replace(asks, busy=everybody)).round
    assert waiting is not None
    assert not waiting.visits
    assert waiting.within_s is None


def test_a_late_site_merges_though_its_other_data_cannot_be_afforded() -> None:
    """Nobody else is there to do it."""
    (data, *_) = (one for one in healthcare() if one.site == "ghr")
    other = msgspec.structs.replace(
        data, dataset=msgspec.structs.replace(data.dataset, name="more")
    )
    asks = asked((data, other), budget=Budget(examples=100))
    spent = Spent(duration_s=1.0, cost_usd=0.0, examples=100)
    found = following(replace(asks, busy=frozenset({data.id}), spent=spent)).round
    assert found is not None
    assert (found.visits, found.aggregators) == ((), ("ghr",))


def test_more_sites_than_one_merge_takes_merge_in_groups_of_one_place() -> None:
    many = tuple(
        general(f"s{n:03}", {"information": n + 1}, place="US" if n % 3 else "CH")
        for n in range(MOST_MERGED + 20)
    )
    found = following(asked(many)).round
    assert found is not None
    assert len(found.groups) == 2
    members = [k for group in found.groups for k in group.visits]
    assert sorted(members) == list(range(MOST_MERGED + 20))
    for group in found.groups:
        assert {found.visits[k].site for k in group.visits} == set(group.aggregators)
        assert len({int(site[1:]) % 3 == 0 for site in group.aggregators}) == 1


def test_a_round_of_many_has_no_more_than_any_rule_merges_that_may_be_chosen() -> None:
    many = tuple(general(f"s{n:03}", {"information": n + 1}) for n in range(MOST_MERGED + 20))
    wanted = asked(many, algorithm=Algorithm.ADAPTIVE)
    for algorithm in CONSIDERED:
        found = next_round(wanted, algorithm, RULES[algorithm]).round
        assert found is not None
        assert len(found.visits) == MOST_MERGED


def test_a_good_network_has_no_groups() -> None:
    found = following(asked(healthcare())).round
    assert found is not None
    assert not found.groups


def planted(rng: random.Random, sizes_: tuple[int, ...]) -> dict[tuple[str, str], float]:
    """Seconds between sites of clusters, whose links are good inside and slow outside."""
    of = {f"{c}{k}": c for c, size in enumerate(sizes_) for k in range(size)}
    return {
        (a, b): rng.uniform(0.01, 0.05) if of[a] == of[b] else rng.uniform(2.0, 6.0)
        for a, b in itertools.permutations(of, 2)
    }


def fewest_crossings(
    partition: Iterable[Iterable[str]], at: str, seconds: dict[tuple[str, str], float]
) -> int:
    """Models over slow links with the best aggregators, tried out."""

    def slow(one: str, to: str) -> bool:
        return one != to and seconds[one, to] > 1.0

    groups_ = [list(group) for group in partition]
    return min(
        sum(slow(one, to) for group, to in zip(groups_, tried, strict=True) for one in group)
        + sum(slow(to, at) for to in tried)
        for tried in itertools.product(*groups_)
    )


def partitions(sites: list[str]) -> Iterator[list[list[str]]]:
    if not sites:
        yield []
        return
    first, *rest = sites
    for smaller in partitions(rest):
        for k, group in enumerate(smaller):
            yield [*smaller[:k], [first, *group], *smaller[k + 1 :]]
        yield [[first], *smaller]


@pytest.mark.parametrize("seed", range(8))
def test_no_partition_has_fewer_models_cross_slow_links_than_the_groups(seed: int) -> None:
    rng = random.Random(seed)
    seconds = planted(rng, rng.choice([(3, 3), (2, 2, 2), (4, 2), (3, 2, 1)]))
    sites = sorted({a for a, _ in seconds})
    at = min(sites, key=lambda site: sum(seconds[one, site] for one in sites if one != site))
    found = groups(
        [SiteId(site) for site in sites],
        SiteId(at),
        MergeRule(),
        lambda a, b: 0.0 if a == b else seconds[a, b],
        lambda site: "",
        0.1,
    )
    grouped = [[sites[k] for k in group.visits] for group in found]
    alone = [[site] for site in sites if not any(site in group for group in grouped)]
    fewest = min(fewest_crossings(partition, at, seconds) for partition in partitions(sites))
    assert found
    assert fewest_crossings([*grouped, *alone], at, seconds) == fewest
    robust = MergeRule(reduction=Reduces.MEDIAN)
    assert not groups([SiteId(s) for s in sites], SiteId(at), robust, lambda a, b: 1.0, str, 0.1)


def test_updates_are_compressed_where_links_are_slow_or_as_the_intent_says() -> None:
    def forms(question_: RouteQuestion) -> set[Compression]:
        found = following(question_).round
        assert found is not None
        return {stop.compression for stop in found.visits}

    near = asked(healthcare())
    assert forms(near) == {Compression.NONE}
    large = msgspec.structs.replace(START, size_bytes=10**11)
    assert Compression.INT8 in forms(asked(healthcare(), start=large))
    training = Training(algorithm=Algorithm.FEDAVG, compression=Compression.TOPK)
    wish = msgspec.structs.replace(near.intent, training=training)
    assert forms(replace(near, intent=wish)) == {Compression.TOPK}


def test_sites_that_differ_form_chains_and_chains_are_alike() -> None:
    sites = [{label: 100} for label in ("a", "a", "b", "b", "c", "c")]
    found = chains(sites)
    assert sorted(map(len, found)) == [3, 3]
    assert all(len({*sites[chain[0]], *sites[chain[1]], *sites[chain[2]]}) == 3 for chain in found)
    assert [len(chains([{"a": 1}] * count)) for count in (1, 2, 3, 9, 16)] == [1, 2, 2, 3, 4]
    assert chains([{}, {}]) == [[0], [1]], "sites that publish no labels"


def test_chains_are_nearly_as_mixed_as_the_best_division() -> None:
    """Against all ways of making two chains of three sites."""
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(40):
        shares = rng.dirichlet([0.3] * 4, size=6) * rng.integers(50, 400, size=(6, 1))
        labels = [{str(k): int(n) for k, n in enumerate(site) if n >= 1} for site in shares]

        def apart(parts: Iterable[Iterable[int]], labels: Any = labels) -> float:
            everything: Counter[str] = sum(map(Counter, labels), Counter[str]())
            held = [sum((Counter(labels[m]) for m in part), Counter[str]()) for part in parts]
            return sum(unlike(one, everything) for one in held)

        halves = ((set(some), set(range(6)) - set(some)) for some in combinations(range(6), 3))
        gaps.append(apart(chains(labels)) - min(map(apart, halves)))
    assert min(gaps) > -1e-9
    assert np.mean(gaps) < 0.1, "of two at most"


def test_a_round_of_chains_has_all_sites_and_says_so() -> None:
    found = following(asked(healthcare(), algorithm=Algorithm.FEDSEQ))
    assert found.round is not None
    stops = [*found.round.visits, *(stop for chain in found.round.then for stop in chain)]
    assert {stop.site for stop in stops} == {one.site for one in healthcare()}
    assert len(found.round.visits) == len(found.round.then) == 3
    assert str(found.decision.chosen).startswith("9 sites in 3 chains, merged at ")


def test_a_round_lasts_as_long_as_its_slowest_site_and_the_ways_of_the_models() -> None:
    """Who has the model serves all sites over one line; the aggregator takes one after another."""
    options = tuple(general(f"s{n}", {"information": 100}) for n in range(4))
    alone = following(asked(options[:1]))
    all_four = following(asked(options))
    slow = (*options[:3], general("s3", {"information": 100}, speed=1e9))
    waits = following(asked(slow))
    assert alone.seconds < all_four.seconds < waits.seconds
    assert waits.round is not None
    slowest = max(stop.expected_s for stop in waits.round.visits)
    assert waits.seconds > slowest
    parts = next_round(asked(options), Algorithm.FEDAVG, RULES[Algorithm.FEDAVG], 0.25)
    assert parts.round is not None
    assert {stop.examples for stop in parts.round.visits} == {25}
    assert parts.seconds < all_four.seconds


def crowd(samples: int | None = None) -> tuple[DataOption, ...]:
    """Nine sites with 600 records each, and one that says that it has so many."""
    sites = tuple(general(f"s{number}", {"information": 600}) for number in range(9))
    return sites + ((general("liar", {"information": samples}),) if samples else ())


@pytest.mark.parametrize("samples", [10**5, 10**9, 10**12])
def test_what_a_site_says_of_its_size_buys_neither_weight_nor_time_nor_budget(samples: int) -> None:
    honest = following(asked(crowd())).round
    assert honest is not None
    assert honest.within_s is not None
    for budget in (UNLIMITED, Budget(examples=20_000)):
        planned = following(asked(crowd(samples), budget=budget)).round
        assert planned is not None
        counts = {stop.site: stop.stands_for or stop.examples for stop in planned.visits}
        assert len(counts) == 10, "no honest site is dropped"
        assert counts[SiteId("liar")] <= sum(counts.values()) / 3
        assert planned.within_s is not None
        assert planned.within_s < 20.0 * honest.within_s


@pytest.mark.parametrize("change", [{"least_examples": 10**7}, {"least_examples": 10**15},
                                    {"samples": 0, "least_examples": 0}])  # fmt: skip
def test_what_a_site_demands_is_not_taken_from_the_others(change: dict[str, int]) -> None:
    honest = following(asked(crowd(), budget=Budget(examples=20_000))).round
    (liar,) = crowd(600)[-1:]
    dataset = msgspec.structs.replace(liar.dataset, **change)
    options = (*crowd(), msgspec.structs.replace(liar, dataset=dataset))
    planned = following(asked(options, budget=Budget(examples=20_000))).round
    assert honest is not None
    assert planned is not None
    assert [(stop.site, stop.examples) for stop in planned.visits] == [
        (stop.site, stop.examples) for stop in honest.visits
    ]
    assert planned.within_s == honest.within_s


def test_of_sites_without_published_labels_nothing_is_known() -> None:
    assert alike([{}, {}, {"a": 5}, {"a": 5}, {"a": 4}]) == [False, False, True, True, True]
    assert alike([{}, {}, {}, {}]) == [False] * 4


def test_a_round_stays_within_what_its_order_allows() -> None:
    """Sites refuse more, and would be left out of the job for it."""
    large = tuple(general(f"s{number}", {"information": 10**8}) for number in range(3))
    planned = following(asked(large)).round
    assert planned is not None
    assert len(planned.visits) == 3
    assert sum(stop.examples for stop in planned.visits) <= MOST_EXAMPLES
    later = replace(asked(large), spent=Spent(examples=MOST_EXAMPLES - 1000))
    assert sum(sizes(later).values()) <= 1000


def test_a_round_knows_whose_data_is_like_most_others() -> None:
    """Only among these is an update that is unlike the others' held back."""
    even = dict.fromkeys(("information", "treatment", "outlook", "research"), 150)
    sites = [general(f"s{n}", {**even, "outlook": 140 + 5 * n}) for n in range(5)]
    sites.append(general("specialist", {"inheritance": 600}))
    sites.append(general("half", {"information": 300, "treatment": 300}))
    planned = following(asked(tuple(sites))).round
    assert planned is not None
    alike = {stop.site for stop in planned.visits if stop.alike}
    assert alike == {f"s{n}" for n in range(5)}
