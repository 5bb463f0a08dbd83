"""What the demo says beside its planned route: the obvious ones, and what was expected of all."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml

from daitn.cli.demo.expected import ExpectedRoute, expected_routes, sentence
from daitn.cli.demo.scenario import BASELINES, write_scenario
from daitn.control.route.engine import Mtrce
from daitn.learning.corpora.split import Prepared
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import Decided
from daitn.objects.wire import checked
from tests.control.route_world import healthcare, intent, question, topology

RECORDS = {"ghr": 775, "gard": 540, "cdc": 92, "ninds": 604}


@pytest.fixture
def intents(tmp_path: Path) -> dict[str, TrainingIntent]:
    """The baselines' intents as their owner would read them, by file."""
    prepared = Prepared(
        source="clinic",
        general=("ghr", "gard", "cdc"),
        specialist=("ninds",),
        sites=RECORDS,
        tests={"broad": 480, "expert": 480},
    )
    write_scenario(tmp_path, tmp_path / "data", prepared)
    return {
        name: checked(
            yaml.safe_load((tmp_path / f"{name}.yaml").read_text()), TrainingIntent, "intent"
        )
        for name in ("healthcare", *BASELINES.values())
    }


def first_decision() -> Decided:
    asked = question(intent(broad=0.80, expert=0.90), topology(healthcare()))
    route, decision = Mtrce().plan(asked)
    return Decided(
        number=1,
        at_s=asked.now_s,
        decision=decision,
        route=route,
        waiting_for="",
        why="",
        visits_before=0,
    )


@pytest.mark.parametrize(("name", "epochs"), [("by-size", 1), ("by-size-twice", 2)])
def test_by_size_goes_round_from_the_largest_site_down(
    intents: dict[str, TrainingIntent], name: str, epochs: int
) -> None:
    route = intents[name].route

    order = ["ghr", "ninds", "gard", "cdc"]
    assert [v.site for v in route] == list(itertools.islice(itertools.cycle(order), len(route)))
    assert all(v.examples == epochs * RECORDS[v.site] for v in route)
    assert len(route) > len(order)


def test_the_ring_takes_as_many_examples_everywhere(intents: dict[str, TrainingIntent]) -> None:
    route = intents["ring"].route

    assert [v.site for v in route[:5]] == ["cdc", "gard", "ghr", "ninds", "cdc"]
    assert {v.examples for v in route} == {500}


def test_the_last_two_leave_out_the_specialists_or_all_others(
    intents: dict[str, TrainingIntent],
) -> None:
    general, specialist = intents["general"].route, intents["specialist"].route

    assert [v.site for v in general[:4]] == ["ghr", "gard", "cdc", "ghr"]
    assert {v.site for v in general} == {"ghr", "gard", "cdc"}
    assert {v.site for v in specialist} == {"ninds"}


def test_every_baseline_wants_what_the_planned_route_wants(
    intents: dict[str, TrainingIntent],
) -> None:
    wanted = intents.pop("healthcare")
    assert all(one.objectives == wanted.objectives for one in intents.values())
    assert all(one.model == wanted.model for one in intents.values())


def test_what_was_expected_of_the_planned_and_of_obvious_routes() -> None:
    made = first_decision()
    assert made.route is not None

    ways = expected_routes(made)

    assert ways[0].name == "planned route"
    assert ways[0].seconds == pytest.approx(sum(v.expected_s for v in made.route.visits))
    assert ways[0].chance == pytest.approx(made.route.chance)
    others = {one.name for one in ways[1:]}
    assert others
    assert others <= {"by size", "ring", "best fit first", "nearest first"} | {
        "greedy by expected gain"
    }
    ratios = [one.seconds / ways[0].seconds for one in ways]
    by_candidate = {scored.candidate: scored.terms for scored in made.decision.ranking}
    soonest = max(terms["time"] for terms in by_candidate.values())
    assert min(ratios) >= by_candidate[made.decision.chosen or ""]["time"] / soonest - 1e-9


def test_what_was_expected_is_told_in_a_sentence() -> None:
    ways = (
        ExpectedRoute(name="planned route", seconds=22.4, chance=0.96, at_least=False),
        ExpectedRoute(name="by size", seconds=31.0, chance=0.9, at_least=False),
    )

    told = sentence(ways)

    assert told == "the planner expected 22 s (chance 96%), by size 31 s (90%)"


def test_a_decision_without_a_route_expected_nothing() -> None:
    asked = question(intent(broad=0.80), topology(()))
    route, decision = Mtrce().plan(asked)
    made = Decided(
        number=1,
        at_s=asked.now_s,
        decision=decision,
        route=route,
        waiting_for="",
        why="",
        visits_before=0,
    )

    assert expected_routes(made) == ()
    assert "no expectation" in sentence(())
