"""A job in rounds is judged by rounds: by who can take part, and by what they take."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from daitn.control.feasibility import assess
from daitn.objects.decisions import Assessment
from daitn.objects.intents import Budget, Training
from daitn.objects.merging import Algorithm

from .route_world import UNLIMITED, general, intent, question
from .test_feasibility import cutting, network

SITES = tuple(general(f"s{n}", {"information": 400, "treatment": 400}) for n in range(4))


def judged(
    algorithm: Algorithm,
    *,
    budget: Budget = UNLIMITED,
    merges: bool = True,
    broad: float = 0.5,
    unfit: frozenset[Algorithm] = frozenset(),
    mu: float | None = None,
) -> Assessment:
    cut = cutting(network(SITES))
    wanted: dict[str, Any] = {"training": Training(algorithm=algorithm, mu=mu)}
    asked = msgspec.structs.replace(intent(budget=budget, broad=broad), **wanted)
    return assess(question(asked, cut(asked), merges=merges, unfit=unfit), cut)


def test_a_job_in_rounds_is_judged_by_its_rounds() -> None:
    found = judged(Algorithm.FEDAVG)
    assert found.feasible
    assert found.route is None
    assert found.round is not None
    assert found.round.algorithm is Algorithm.FEDAVG
    assert {stop.site for stop in found.round.visits} == {one.site for one in SITES}


def test_a_budget_for_a_visit_is_none_for_a_round_and_what_would_do_is_told() -> None:
    few = Budget(examples=3)
    assert judged(Algorithm.SEQUENTIAL, budget=Budget(examples=400)).feasible
    found = judged(Algorithm.FEDAVG, budget=few)
    assert not found.feasible
    assert "budget" in "; ".join(found.reasons)
    proposed = {one.field: one.effect for one in found.relaxations}
    assert "rounds of fedavg" in proposed["budget.examples"]


def test_rules_that_need_more_sites_say_how_many() -> None:
    found = judged(Algorithm.KRUM)
    assert not found.feasible
    assert "krum needs 5 sites, 4 can take part" in found.reasons


@pytest.mark.parametrize(
    ("algorithm", "feasible"), [(Algorithm.FEDAVG, False), (Algorithm.AUTO, True)]
)
def test_a_recipe_that_merges_nothing_trains_in_a_row_alone(
    algorithm: Algorithm, feasible: bool
) -> None:
    found = judged(algorithm, merges=False)
    assert found.feasible is feasible
    if not feasible:
        assert "does not merge models" in found.reasons[0]


@pytest.mark.parametrize("algorithm", [one for one in Algorithm if one is not Algorithm.AUTO])
def test_what_a_recipe_does_not_train_by_is_said_before_a_site_is_asked(
    algorithm: Algorithm,
) -> None:
    found = judged(algorithm, unfit=frozenset({algorithm}))
    assert not found.feasible
    (told,) = found.reasons
    assert told.startswith("the recipe ")
    assert f"does not train by {algorithm}; it does by auto, " in told
    assert f", {algorithm}" not in told.partition("it does by")[2].replace("adaptive", "")


def test_a_pull_towards_what_arrived_needs_a_recipe_that_is_pulled() -> None:
    unfit = frozenset({Algorithm.FEDPROX})
    assert judged(Algorithm.FEDAVG, unfit=unfit).feasible
    assert not judged(Algorithm.FEDAVG, mu=0.1, unfit=unfit).feasible


def test_rounds_do_not_reach_what_the_data_cannot_teach() -> None:
    found = judged(Algorithm.FEDAVG, broad=1.0, budget=Budget(duration_s=30.0))
    assert not found.feasible
