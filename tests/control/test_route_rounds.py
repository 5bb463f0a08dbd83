"""Who trains in a round, on how much, and who merges."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from daitn.control.route.question import RouteQuestion, RouteStart
from daitn.control.route.rounds import NextRound, next_round
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.intents import Budget, Training
from daitn.objects.lineage import MOST_VISITS
from daitn.objects.merging import MOST_MERGED, RULES, Algorithm
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


def test_a_round_and_a_lineage_have_a_bound() -> None:
    many = tuple(general(f"s{n:03}", {"information": n + 1}) for n in range(MOST_MERGED + 20))
    chosen = sizes(asked(many))
    assert len(chosen) == MOST_MERGED
    assert "s000" not in chosen, "the smallest stay away"
    found = following(asked(healthcare()), behind=MOST_VISITS - 3)
    assert found.round is None
    assert "lineage" in found.why


@pytest.mark.parametrize(("budget", "patience"), [(Budget(), 10), (Budget(duration_s=1e9), 30)])
def test_rounds_without_gain_end(budget: Budget, patience: int) -> None:
    wanted = asked(healthcare(), budget=budget)
    still = (0.5, *(0.6 for _ in range(patience)))
    assert "nearer" in following(wanted, still).why
    assert following(wanted, still[:-1]).round is not None
    assert following(wanted, (*still[:-1], 0.4)).round is not None


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
    parts = next_round(asked(slow), Algorithm.FEDAVG, RULES[Algorithm.FEDAVG], 0.25)
    assert parts.round is not None
    assert {stop.examples for stop in parts.round.visits} == {25}
    assert parts.seconds < waits.seconds
