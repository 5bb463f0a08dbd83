"""QIRCE over arrays decides as the scalar policy does, explains what it decides, and replays."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.queries.context import QueryContext, QueryPlan, QueryRefusal
from daitn.control.queries.engine import NEAR, Qirce
from daitn.objects.deployments import Api
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import AUTO, QueryConstraints, QueryIntent, Strategy, Trust
from daitn.policy.pipeline import MOST_WEIGHT
from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.paths import paths_from
from daitn.topology.qrrt.state import QrrtState
from tests.topology.qrrt.world import (
    NOW_S,
    deployment,
    facility,
    figures,
    finding,
    gateway,
    serving,
    state_of,
)

from .oracle import SCALAR, Question
from .worlds import GW, World

QIRCE = Qirce()
seeds = st.integers(0, 2**32)
thorough = settings(max_examples=200, deadline=None)


def contexts(*strategies: Strategy) -> st.SearchStrategy[QueryContext]:
    """Of all kinds of worlds."""
    return st.builds(
        lambda seed, strategy: World(seed).context(strategy), seeds, st.sampled_from(strategies)
    )


def decided(context: QueryContext, seed: int = 0) -> QueryPlan | QueryRefusal:
    return QIRCE.decide(context, random.Random(seed))


def planned(context: QueryContext, seed: int = 0) -> QueryPlan:
    plan = decided(context, seed)
    assert isinstance(plan, QueryPlan), plan
    return plan


@thorough
@given(contexts(Strategy.SINGLE), seeds)
def test_arrays_decide_as_the_scalar_policy_does(context: QueryContext, seed: int) -> None:
    question = Question(context)
    scalar = SCALAR.decide(question, random.Random(seed))
    told = QIRCE.explain(context, random.Random(seed))

    pairs = [(no.candidate, no.filter) for no in told.rejections]
    assert set(pairs) == {(no.candidate, no.filter) for no in scalar.rejections}
    assert len(set(pairs)) == len(pairs)
    assert [s.candidate for s in told.ranking] == [s.candidate for s in scalar.ranking]
    for ours, theirs in zip(told.ranking, scalar.ranking, strict=True):
        assert ours.terms == pytest.approx(theirs.terms)
        assert ours.score == pytest.approx(theirs.score)

    plan = decided(context, seed)
    if scalar.chosen is None:
        assert isinstance(plan, QueryRefusal)
        assert plan.decision.chosen is told.chosen is None
        return
    assert isinstance(plan, QueryPlan)
    rows = context.snapshot.rows
    ids = [rows[row].id for row in plan.rows]
    scores = {s.candidate: s.score for s in scalar.ranking}
    assert told.chosen == ids[0]
    assert scores[ids[0]] >= scalar.ranking[0].score - NEAR - 1e-9
    assert len(ids) == min(len(scores), context.intent.constraints.attempts)
    others = [s.candidate for s in scalar.ranking if s.candidate != ids[0]]
    assert ids[1:] == others[: len(ids) - 1]


@thorough
@given(contexts(*Strategy), seeds)
def test_the_same_context_and_seed_give_the_same_again(context: QueryContext, seed: int) -> None:
    assert decided(context, seed) == decided(context, seed)
    told = QIRCE.explain(context, random.Random(seed))
    assert told == QIRCE.explain(context, random.Random(seed))
    plan = decided(context, seed)
    chosen = plan.rows[: plan.members] if isinstance(plan, QueryPlan) else ()
    assert told.chosen == (" + ".join(context.snapshot.rows[row].id for row in chosen) or None)


@thorough
@given(contexts(*Strategy), seeds)
def test_nothing_is_asked_that_may_not_be(context: QueryContext, seed: int) -> None:
    plan = decided(context, seed)
    if isinstance(plan, QueryRefusal):
        return
    question = Question(context)
    by_row = {each.row: each for each in question.candidates}
    unsure = {"accuracy"} if plan.strategy is Strategy.CASCADE else set()
    for row in plan.rows:
        assert question.fails(by_row[row]) <= unsure
    for row in plan.better:
        assert not question.fails(by_row[row])
    assert not set(context.excluded) & {*plan.rows, *plan.better}
    assert len(set(plan.rows)) == len(plan.rows)
    assert np.isfinite([plan.expected_seconds, plan.expected_cost_usd, plan.late_after_s]).all()


@thorough
@given(contexts(Strategy.CASCADE), seeds)
def test_a_cascade_begins_cheaper_with_another_model_and_keeps_the_wishes_as_a_whole(
    context: QueryContext, seed: int
) -> None:
    plan = decided(context, seed)
    if isinstance(plan, QueryRefusal) or plan.strategy is Strategy.SINGLE:
        return
    by_row = {each.row: each for each in Question(context).candidates}
    constraints, better = context.intent.constraints, by_row[plan.better[0]]
    for cheap in (by_row[row] for row in plan.rows):
        assert cheap.cost_usd < better.cost_usd
        assert cheap.deployed.name != better.deployed.name
        for bound, both in (
            (constraints.deadline_s, cheap.seconds + better.seconds),
            (constraints.max_first_token_s, cheap.seconds + better.first_token_s),
            (constraints.max_cost_usd, cheap.cost_usd + better.cost_usd),
        ):
            assert bound is None or both <= bound


@thorough
@given(contexts(Strategy.ENSEMBLE), seeds)
def test_the_members_of_an_ensemble_are_the_best_of_different_models(
    context: QueryContext, seed: int
) -> None:
    plan = decided(context, seed)
    if isinstance(plan, QueryRefusal) or plan.strategy is Strategy.SINGLE:
        return
    rows, constraints = context.snapshot.rows, context.intent.constraints
    by_row = {each.row: each for each in Question(context).candidates}
    members = [by_row[row] for row in plan.rows[: plan.members]]
    assert 2 <= plan.members <= constraints.members
    assert len({member.deployed.name for member in members}) == plan.members
    cost_usd = sum(member.cost_usd for member in members)
    assert plan.expected_cost_usd == pytest.approx(cost_usd)
    assert constraints.max_cost_usd is None or cost_usd <= constraints.max_cost_usd + 1e-12
    slowest_s = max(member.seconds for member in members)
    assert plan.expected_first_token_s == plan.expected_seconds == slowest_s
    assert constraints.max_first_token_s is None or slowest_s <= constraints.max_first_token_s
    assert len(rows) >= len(plan.rows)


def intent(model: str = AUTO, **said: object) -> QueryIntent:
    fields = {
        "origin": GW, "owner": "", "api": Api.CHAT, "model": model, "topic": "medicine",
        "tokens_in": 50, "tokens_out": 50,
    }  # fmt: skip
    return QueryIntent(**{**fields, **said})  # type: ignore[arg-type]


def asked(state: QrrtState, wanted: QueryIntent, **said: object) -> QueryContext:
    snapshot = state.snapshot()
    fields = {
        "intent": wanted,
        "snapshot": snapshot,
        "paths": paths_from(snapshot, GW, NOW_S),
        "in_flight": np.zeros(len(snapshot.rows)),
        "now_s": NOW_S,
    }
    return QueryContext(**{**fields, **said})  # type: ignore[arg-type]


def chosen(context: QueryContext, seed: int = 0) -> str:
    return context.snapshot.rows[planned(context, seed).rows[0]].id


def test_a_liar_gains_nothing_by_what_it_claims() -> None:
    liar = deployment("liar", claimed={"medicine": 1.0, "medicine/neurology": 1.0})
    nodes = [facility("s1", deployment("honest")), facility("s2", liar)]
    state = state_of(nodes, finding("honest", "s1", "medicine", 0.5))
    for topic in ("", "medicine", "medicine/neurology"):
        assert chosen(asked(state, intent(topic=topic))) == "honest@s1"
    credulous = intent(constraints=QueryConstraints(trust=Trust.CLAIMED))
    assert chosen(asked(state, credulous)) == "liar@s2"


def test_one_hostile_facility_does_not_spoil_the_choice_among_the_others() -> None:
    worst = figures("bad", first_token_s=8e4, per_token_s=8e4, error_share=1.0, in_flight=2**62)
    nodes = [
        facility("s1", deployment("good"), deployment("fair", price_usd_per_1k_out=1.0)),
        facility("s2", deployment("bad", slots=100_000, queue=2**53, price_usd_per_1k_in=1e9)),
    ]
    state = state_of(nodes, serving("s2", worst))
    told = QIRCE.explain(asked(state, intent()), random.Random(0))
    assert [scored.candidate for scored in told.ranking] == ["good@s1", "fair@s1"]
    assert chosen(asked(state, intent("bad", site=SiteId("s1")), intent=intent())) == "good@s1"


def test_equals_share_the_load() -> None:
    state = state_of([facility(f"s{n}", deployment("doctor")) for n in range(1, 5)])
    first = [chosen(asked(state, intent("doctor")), seed) for seed in range(200)]
    counts = [first.count(f"doctor@s{n}") for n in range(1, 5)]
    assert min(counts) > 25


def test_what_this_gateway_has_under_way_counts_at_once() -> None:
    state = state_of([facility(f"s{n}", deployment("doctor", slots=1)) for n in (1, 2)])
    busy = asked(state, intent("doctor"), in_flight=np.array([1.0, 0.0]))
    assert {chosen(busy, seed) for seed in range(20)} == {"doctor@s2"}


def test_a_warm_cache_decides_between_equals_only() -> None:
    state = state_of([facility(f"s{n}", deployment("doctor")) for n in (1, 2)])
    for row in (0, 1):
        warm = asked(state, intent("doctor"), affinity=row)
        assert {planned(warm, seed).rows[0] for seed in range(20)} == {row}
    state.absorb_serving(serving("s1", figures("doctor", first_token_s=9.0)), NOW_S)
    assert chosen(asked(state, intent("doctor"), affinity=0)) == "doctor@s2"


def test_a_degraded_deployment_is_asked_only_where_it_is_pinned() -> None:
    sick = finding("doctor", "s1", "medicine", 0.2, degraded=True)
    state = state_of([facility("s1", deployment("doctor"))], sick)
    refusal = decided(asked(state, intent("doctor")))
    assert isinstance(refusal, QueryRefusal)
    assert refusal.code == "unavailable"
    wanted = intent("doctor", site=SiteId("s1"), constraints=QueryConstraints(min_accuracy=0.9))
    assert chosen(asked(state, wanted)) == "doctor@s1"


def test_a_pin_does_not_reach_what_failed_lately_or_is_gone() -> None:
    state = state_of([facility("s1", deployment("doctor"))])
    pinned = intent("doctor", site=SiteId("s1"))
    state.observe("s1", "doctor", Observation(failed=True), NOW_S)
    assert isinstance(decided(asked(state, pinned)), QueryRefusal)
    assert isinstance(decided(asked(state, pinned, now_s=NOW_S + 60)), QueryPlan)
    state.lost(SiteId("s1"), NOW_S)
    assert isinstance(decided(asked(state, pinned, now_s=NOW_S + 60)), QueryRefusal)


def test_weights_of_nothing_let_chance_decide() -> None:
    nobody = dict.fromkeys(("accuracy", "latency", "cost", "affinity"), 0.0)
    state = state_of([facility("s1", deployment("a"), deployment("b", price_usd_per_1k_out=100.0))])
    wanted = intent(constraints=QueryConstraints(prefer=nobody))
    assert {chosen(asked(state, wanted), seed) for seed in range(40)} == {"a@s1", "b@s1"}


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0, 2 * MOST_WEIGHT])
def test_a_weight_that_is_none_is_told(weight: float) -> None:
    state = state_of([facility("s1", deployment("a"))])
    with pytest.raises(InvalidInput) as raised:
        decided(asked(state, intent(constraints=QueryConstraints(prefer={"cost": weight}))))
    assert raised.value.field == "prefer.cost"
    assert raised.value.fix


def test_an_unknown_scorer_is_told_also_where_nothing_may_answer() -> None:
    for nodes in ([], [facility("s1", deployment("a"))]):
        with pytest.raises(InvalidInput, match="green"):
            decided(
                asked(state_of(nodes), intent(constraints=QueryConstraints(prefer={"green": 1.0})))
            )


def test_no_tokens_cost_nothing_and_are_answered() -> None:
    state = state_of([facility("s1", deployment("a"))])
    plan = planned(asked(state, intent(tokens_in=0, tokens_out=0)))
    assert plan.expected_cost_usd == 0.0


def test_an_ensemble_of_one_model_is_a_single_plan() -> None:
    state = state_of([facility(f"s{n}", deployment("doctor")) for n in (1, 2)])
    for wanted in (intent(), intent("doctor")):
        both = msgspec.structs.replace(
            wanted, constraints=QueryConstraints(strategy=Strategy.ENSEMBLE)
        )
        assert planned(asked(state, both)).strategy is Strategy.SINGLE
        both = msgspec.structs.replace(
            wanted, constraints=QueryConstraints(strategy=Strategy.CASCADE)
        )
        assert planned(asked(state, both)).strategy is Strategy.SINGLE


def test_a_cascade_asks_a_cheaper_model_that_is_not_as_good_first() -> None:
    cheap = deployment("cheap", price_usd_per_1k_out=0.001)
    state = state_of(
        [facility("s1", deployment("good"), cheap)],
        finding("good", "s1", "medicine", 0.9),
        finding("cheap", "s1", "medicine", 0.5),
        serving("s1", *(figures(name, first_token_s=1.0) for name in ("good", "cheap"))),
    )
    constraints = QueryConstraints(strategy=Strategy.CASCADE, min_accuracy=0.8)
    context = asked(state, intent(constraints=constraints))
    plan, rows = planned(context), context.snapshot.rows
    assert [rows[row].name for row in plan.rows] == ["cheap"]
    assert [rows[row].name for row in plan.better] == ["good"]
    assert plan.expected_first_token_s == plan.expected_seconds
    hasty = msgspec.structs.replace(constraints, deadline_s=2.0)  # One stage takes a good second.
    assert planned(asked(state, intent(constraints=hasty))).strategy is Strategy.SINGLE


def test_a_gateway_alone_knows_of_no_model() -> None:
    refusal = decided(asked(state_of([gateway("s0")]), intent()))
    assert isinstance(refusal, QueryRefusal)
    assert (refusal.code, refusal.retry_after_s) == ("unavailable", 2.0)
