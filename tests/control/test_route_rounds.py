"""Who trains in a round, on how much, and who merges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from typing import Any

import msgspec
import numpy as np
import pytest

from daitn.control.route.chains import chains, unlike
from daitn.control.route.question import RouteQuestion, RouteStart
from daitn.control.route.rounds import next_round
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.intents import Budget, Training
from daitn.objects.lineage import MOST_VISITS
from daitn.objects.merging import MOST_MERGED, Algorithm
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


def sizes(found: RouteQuestion) -> dict[str, int]:
    planned = next_round(found, (0.5,)).round
    return {stop.site: stop.examples for stop in planned.visits} if planned else {}


def test_every_site_trains_on_its_records_and_one_of_them_merges() -> None:
    found = next_round(asked(healthcare()), (0.5,))
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
    found = next_round(replace(wanted, topology=there), (0.5,))
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
    none = next_round(asked(options, budget=Budget(examples=1)), (0.5,))
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
    found = next_round(asked(few, algorithm=Algorithm.KRUM), (0.5,))
    assert found.round is None
    assert found.waits == "krum needs 5 sites, 4 can take part"
    assert next_round(asked(few, algorithm=Algorithm.MEDIAN), (0.5,)).round is not None


def test_a_round_and_a_lineage_have_a_bound() -> None:
    many = tuple(general(f"s{n:03}", {"information": n + 1}) for n in range(MOST_MERGED + 20))
    chosen = sizes(asked(many))
    assert len(chosen) == MOST_MERGED
    assert "s000" not in chosen, "the smallest stay away"
    found = next_round(asked(healthcare()), (0.5,), MOST_VISITS - 3)
    assert found.round is None
    assert "lineage" in found.why


@pytest.mark.parametrize(("budget", "patience"), [(Budget(), 10), (Budget(duration_s=1e9), 30)])
def test_rounds_without_gain_end(budget: Budget, patience: int) -> None:
    wanted = asked(healthcare(), budget=budget)
    still = (0.5, *(0.6 for _ in range(patience)))
    assert "nearer" in next_round(wanted, still).why
    assert next_round(wanted, still[:-1]).round is not None
    assert next_round(wanted, (*still[:-1], 0.4)).round is not None


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
            everything: Counter[str] = sum(map(Counter, labels), Counter())
            held = [sum((Counter(labels[m]) for m in part), Counter()) for part in parts]
            return sum(unlike(one, everything) for one in held)

        halves = ((set(some), set(range(6)) - set(some)) for some in combinations(range(6), 3))
        gaps.append(apart(chains(labels)) - min(map(apart, halves)))
    assert min(gaps) > -1e-9
    assert np.mean(gaps) < 0.1, "of two at most"


def test_a_round_of_chains_has_all_sites_and_says_so() -> None:
    found = next_round(asked(healthcare(), algorithm=Algorithm.FEDSEQ), (0.5,))
    assert found.round is not None
    stops = [*found.round.visits, *(stop for chain in found.round.then for stop in chain)]
    assert {stop.site for stop in stops} == {one.site for one in healthcare()}
    assert len(found.round.visits) == len(found.round.then) == 3
    assert str(found.decision.chosen).startswith("9 sites in 3 chains, merged at ")
