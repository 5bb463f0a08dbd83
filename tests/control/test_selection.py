"""Which algorithm is chosen, against naive rollouts and all plans of small cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from daitn.control.route.engine import Mtrce
from daitn.control.route.obvious_plans import epochs
from daitn.control.route.posterior import Taught
from daitn.control.route.question import PastVisit, RouteQuestion, RouteStart
from daitn.control.route.round_rollout import HORIZON, play_rounds
from daitn.control.route.rounds import NextRound, next_round
from daitn.control.route.selection import expected_rounds, next_step
from daitn.control.route.task import RouteTask, route_task
from daitn.control.route.value_model import anchored, values
from daitn.objects.decisions import Round
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.intents import Budget, PinnedVisit, Training
from daitn.objects.merging import CONSIDERED, RULES, Algorithm

from .exhaustive import best_of_all
from .instances import instance
from .route_world import general, intent, question, topology

START = RouteStart(
    model=Digest("m" * 64),
    size_bytes=10_000_000,
    holders=(SiteId("s0"), SiteId("judge")),
    values={"broad": 0.25, "expert": 0.25},
)
WEIGHTS = Mtrce().weights


def adapting(asked: RouteQuestion) -> RouteQuestion:
    training = Training(algorithm=Algorithm.ADAPTIVE)
    return replace(asked, intent=msgspec.structs.replace(asked.intent, training=training))


def begun(seed: int, sites: int = 3) -> RouteQuestion:
    """A fresh model that was made and measured."""
    made = replace(instance(seed, sites), checkpoints=(START,), merges=True, shortfalls=(1.0,))
    return adapting(made)


def rounds_of(asked: RouteQuestion, algorithm: Algorithm, part: float = 1.0) -> NextRound:
    return next_round(asked, algorithm, RULES[algorithm], part)


def naively(asked: RouteTask, planned: Round, rounds: int) -> list[int]:
    """Under each draw the round after which all targets are measured to hold, one site after the
    other and one draw like the next."""
    known, start, column = asked.known, asked.starts[0], asked.known.index()
    model, reached = start.model, [0] * len(asked.draws)
    for number in range(1, rounds + 1):
        made: list[Taught] = [
            model.after(known, asked.draws, column[f"{s.site}/{s.dataset}"], float(s.examples))
            for s in planned.visits
        ]
        model = model.merged(made, planned.algorithm)
        whole = (values(known, asked.draws, model.skills) * known.shares).sum(axis=2)
        measured = anchored(whole, start.believed, start.off) + asked.noise
        for row in np.flatnonzero((measured >= asked.targets).all(axis=1)):
            reached[row] = reached[row] or number
    return reached


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("algorithm", CONSIDERED)
def test_rounds_are_played_out_as_one_visit_after_another_would_be(
    seed: int, algorithm: Algorithm
) -> None:
    wanted = begun(seed)
    asked, found = route_task(wanted, WEIGHTS), rounds_of(wanted, algorithm)
    outcome = play_rounds(asked, found)
    assert found.round is not None
    assert outcome is not None
    assert outcome.rounds.tolist() == naively(asked, found.round, HORIZON)


@pytest.mark.parametrize("seed", range(6))
def test_the_choice_is_that_of_all_plans_and_rounds_where_it_matters(seed: int) -> None:
    """The route is compared as the search found it, which is within a few percent of the best."""
    wanted = begun(seed, sites=2)
    asked = route_task(wanted, WEIGHTS)
    stops = [(k, epochs(asked, k, n)) for k in range(2) for n in (0.25, 1.0, 4.0)]
    in_a_row, _ = best_of_all(asked, stops, 3)
    together = min(
        outcome.effort
        for algorithm in CONSIDERED
        for part in (4.0, 1.0, 0.25, 0.0625)
        if (outcome := play_rounds(asked, rounds_of(wanted, algorithm, part))) is not None
    )
    chosen = next_step(wanted)
    if together < 0.45 * in_a_row:
        plan = Mtrce().planned(wanted)
        assert chosen.round is not None or plan.effort < in_a_row
    if in_a_row < 0.85 * together:
        assert chosen.route is not None


def one_class_each(sites: int) -> RouteQuestion:
    labels = ("information", "treatment", "symptoms", "outlook")
    options = [general(f"s{n}", {labels[n % 4]: 400}) for n in range(sites)]
    seen = topology(options, throughput_bps=1e9)
    wanted = intent(broad=0.7)
    start = msgspec.structs.replace(START, values={"broad": 0.25})
    return replace(
        adapting(question(wanted, seen, verify_s=20.0)),
        checkpoints=(start,), merges=True, shortfalls=(0.45,),
    )  # fmt: skip


def test_the_reasons_are_told_with_the_decision() -> None:
    found = next_step(one_class_each(8))
    told = found.decision.algorithms
    assert {one.plan for one in told} <= {"sequential", *map(str, CONSIDERED)}
    assert len(told) > 1
    assert (told[0].plan == "sequential") == (found.route is not None)
    assert found.decision.beliefs
    if found.round is not None:
        assert found.round.algorithm == told[0].plan
        assert found.round.rule == RULES[found.round.algorithm]


@pytest.mark.parametrize(
    "change",
    [
        {"merges": False},
        {"training": Training(algorithm=Algorithm.SEQUENTIAL)},
        {"training": Training(algorithm=Algorithm.AUTO)},
        {"route": (PinnedVisit(site=SiteId("s0"), examples=100),)},
    ],
    ids=["no merging", "sequential", "auto", "a stated route"],
)
def test_nothing_is_compared_where_nothing_is_left_to_choose(change: dict[str, object]) -> None:
    asked = one_class_each(4)
    if "merges" in change:
        asked = replace(asked, merges=False)
    else:
        asked = replace(asked, intent=msgspec.structs.replace(asked.intent, **change))
    found = next_step(asked)
    assert found.round is None
    assert not found.decision.algorithms


def test_an_algorithm_that_is_named_is_followed() -> None:
    asked = one_class_each(4)
    training = Training(algorithm=Algorithm.MEDIAN)
    found = next_step(
        replace(asked, intent=msgspec.structs.replace(asked.intent, training=training))
    )
    assert found.round is not None
    assert found.round.algorithm is Algorithm.MEDIAN


def past(algorithm: Algorithm, number: int, value: float) -> PastVisit:
    return PastVisit(
        option_id="s0/qa",
        examples=400,
        seconds=10.0,
        before={"broad": 0.25 + number * 1e-4},
        after={"broad": value},
        standard_error={"broad": 0.02},
        overhead_s=1.0,
        verify_s=20.0,
        round=0 if algorithm is Algorithm.SEQUENTIAL else number,
        algorithm=algorithm,
    )


def after(ways: Sequence[Algorithm]) -> RouteQuestion:
    """Steps that brought nothing."""
    asked = one_class_each(8)
    names = [option.id for option in asked.topology.options]
    history = tuple(
        msgspec.structs.replace(past(way, n + 1, 0.25), option_id=names[n % len(names)])
        for n, way in enumerate(ways)
    )
    return replace(asked, history=history, shortfalls=(0.45,) * (len(ways) + 1))


@pytest.mark.parametrize("way", [Algorithm.SEQUENTIAL, Algorithm.DILOCO])
def test_what_stalled_is_set_aside_as_long_as_something_else_is_left(way: Algorithm) -> None:
    stalled = next_step(after([way] * 3)).decision.algorithms
    assert stalled[0].plan != way
    assert stalled[-1].plan == way


def test_rounds_that_are_asked_for_are_judged_as_they_are_led() -> None:
    training = Training(algorithm=Algorithm.FEDAVG, epochs=2.0)
    asked = one_class_each(4)
    asked = replace(asked, intent=msgspec.structs.replace(asked.intent, training=training))
    judged = expected_rounds(asked, Mtrce(looks=0).planned(asked))
    led = next_step(asked)
    assert judged is not None
    assert led.round is not None
    assert judged.found.round == led.round
    assert [stop.examples for stop in led.round.visits] == [800] * 4


def test_rounds_are_expected_before_a_model_is_made() -> None:
    asked = one_class_each(4)
    fresh = msgspec.structs.replace(START, model=None, holders=(), values={})
    training = Training(algorithm=Algorithm.FEDAVG)
    wanted = msgspec.structs.replace(
        asked.intent, training=training, budget=Budget(duration_s=86_400.0)
    )
    asked = replace(asked, checkpoints=(fresh,), shortfalls=(), intent=wanted)
    found = expected_rounds(asked, Mtrce(looks=0).planned(asked))
    assert found is not None
    assert found.found.round is not None
    assert len(found.found.round.visits) == 4
    assert found.chance > 0.0
    dear = msgspec.structs.replace(wanted, budget=Budget(examples=2))
    short = replace(asked, intent=dear)
    assert expected_rounds(short, Mtrce(looks=0).planned(short)) is None


def test_an_algorithm_by_which_the_recipe_does_not_merge_is_not_considered() -> None:
    asked = begun(3)
    considered = {one.plan for one in next_step(asked, Mtrce(looks=0)).decision.algorithms}
    assert considered == {"sequential", *CONSIDERED}
    unfit = replace(asked, unfit=frozenset({Algorithm.TIES, Algorithm.DILOCO}))
    left = {one.plan for one in next_step(unfit, Mtrce(looks=0)).decision.algorithms}
    assert left == {"sequential", "fedavg"}
