"""Q-FAM: why no deployment may answer, when to come again, and what would have to change."""

from __future__ import annotations

import random
import time

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.queries.context import QueryContext, QueryPlan, QueryRefusal
from daitn.control.queries.engine import Qirce
from daitn.objects.decisions import Relaxation
from daitn.objects.deployments import Api, DeploymentState, ModelPolicy
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import AUTO, Privacy, QueryConstraints, QueryIntent, Strategy, Trust
from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.paths import paths_from
from daitn.topology.qrrt.state import QrrtState
from tests.topology.qrrt.world import (
    NOW_S,
    deployment,
    evidence,
    facility,
    figures,
    finding,
    link,
    serving,
    state_of,
    unit,
)

from .oracle import LOAD, PRESENCE, TIMES, Candidate, Question
from .worlds import GW, World

S1, S2 = SiteId("s1"), SiteId("s2")


def asked(state: QrrtState, wanted: QueryIntent, now_s: float = NOW_S) -> QueryContext:
    snapshot = state.snapshot()
    return QueryContext(
        intent=wanted,
        snapshot=snapshot,
        paths=paths_from(snapshot, GW, now_s),
        in_flight=np.zeros(len(snapshot.rows)),
        now_s=now_s,
    )


def intent(model: str = "doctor", **constraints: object) -> QueryIntent:
    return QueryIntent(
        origin=GW, owner="me", api=Api.CHAT, model=model, topic="medicine", tokens_in=100,
        tokens_out=100, constraints=QueryConstraints(**constraints),  # type: ignore[arg-type]
    )  # fmt: skip


def decided(context: QueryContext) -> QueryPlan | QueryRefusal:
    return Qirce().decide(context, random.Random(0))


def refused(context: QueryContext) -> QueryRefusal:
    refusal = decided(context)
    assert isinstance(refusal, QueryRefusal), refusal
    return refusal


def relaxed(wanted: QueryIntent, relaxation: Relaxation) -> QueryIntent:
    """The intent with one change, as its owner would make it."""
    value = msgspec.json.decode(relaxation.proposed)
    if relaxation.field == "max_tokens":
        return msgspec.structs.replace(wanted, tokens_out=value)
    constraints = msgspec.to_builtins(wanted.constraints)
    constraints[relaxation.field.removeprefix("daitn.")] = value
    return msgspec.structs.replace(
        wanted, constraints=msgspec.convert(constraints, QueryConstraints)
    )


def expected_code(context: QueryContext) -> str:
    question = Question(context)
    if not question.candidates:
        return "model_not_found"
    constraints = context.intent.constraints
    codes = set()
    for each in question.candidates:
        fails = question.fails(each)
        wish, load = fails - PRESENCE - LOAD, bool(fails & LOAD)
        if wish and wish <= TIMES and _in_time_alone(each, constraints):
            wish, load = set(), True
        if not wish:
            codes.add("unavailable" if fails & PRESENCE or not load else "overloaded")
    return "overloaded" if "overloaded" in codes else codes.pop() if codes else "infeasible"


def _in_time_alone(each: Candidate, constraints: QueryConstraints) -> bool:
    bounds = (
        (constraints.max_first_token_s, each.first_token_s),
        (constraints.deadline_s, each.seconds),
    )
    return all(bound is None or value - each.wait_s <= bound for bound, value in bounds)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_a_refusal_says_what_is_so_and_each_relaxation_would_do(seed: int) -> None:
    context = World(seed).context(Strategy.SINGLE)
    refusal = decided(context)
    if isinstance(refusal, QueryPlan):
        return
    assert refusal.code == expected_code(context)
    assert refusal.reason
    assert (refusal.retry_after_s is not None) == (refusal.code in ("overloaded", "unavailable"))
    assert refusal.retry_after_s is None or 0.1 <= refusal.retry_after_s <= 60.0
    assert bool(refusal.field) == (refusal.retry_after_s is None)
    for relaxation in refusal.relaxations:
        wanted = relaxed(context.intent, relaxation)
        assert wanted != context.intent
        # Paths stay: that a relay may see the query after all is not what was proposed.
        again = decided(_with(context, wanted))
        assert isinstance(again, QueryPlan), (relaxation, again)
        assert relaxation.effect.startswith(tuple(row.id for row in context.snapshot.rows))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_where_one_change_would_do_it_is_found(seed: int) -> None:
    context = World(seed).context(Strategy.SINGLE)
    refusal = decided(context)
    if isinstance(refusal, QueryPlan) or refusal.code != "infeasible":
        return
    fields = {
        "jurisdiction": "daitn.jurisdictions", "owner": "daitn.owners", "privacy": "daitn.privacy",
        "first-token": "daitn.max_first_token_s", "deadline": "daitn.deadline_s",
        "cost": "daitn.max_cost_usd",
    }  # fmt: skip
    question = Question(context)
    alone = [question.fails(each) for each in question.candidates]
    wanted = {fields[name] for fails in alone if len(fails) == 1 for name in fails & fields.keys()}
    assert wanted <= {relaxation.field for relaxation in refusal.relaxations}


def _with(context: QueryContext, wanted: QueryIntent) -> QueryContext:
    return QueryContext(
        wanted,
        context.snapshot,
        context.paths,
        context.in_flight,
        context.now_s,
        context.affinity,
        context.excluded,
    )


def one(**said: object) -> QrrtState:
    return state_of([facility("s1", deployment("doctor", **said))])


def test_an_unknown_model_is_told_with_those_that_are_like_it() -> None:
    refusal = refused(asked(one(), intent("docter")))
    assert (refusal.code, refusal.field) == ("model_not_found", "model")
    assert "doctor" in refusal.reason
    assert refusal.retry_after_s is None


def test_a_model_that_is_elsewhere_is_told_with_where() -> None:
    pinned = msgspec.structs.replace(intent(), site=S2)
    refusal = refused(asked(one(), pinned))
    assert refusal.code == "model_not_found"
    assert refusal.reason == "model doctor is not at s2; it is at s1"


def test_a_network_without_models_may_have_some_later() -> None:
    refusal = refused(asked(state_of([]), intent(AUTO)))
    assert refusal.code == "unavailable"
    assert refusal.retry_after_s == 2.0


def test_full_deployments_say_when_a_slot_is_expected() -> None:
    busy = figures("doctor", in_flight=2, waiting=1, first_token_s=1.0, per_token_s=0.03)
    state = one(slots=2, queue=1)
    state.absorb_serving(serving("s1", busy), NOW_S)
    refusal = refused(asked(state, intent()))
    assert refusal.code == "overloaded"
    # Two are ahead of this one, two are served at a time, each takes four seconds.
    assert refusal.retry_after_s == pytest.approx(4.0)
    assert [no.filter for no in refusal.decision.rejections] == ["room"]


@pytest.mark.parametrize(("per_token_s", "after_s"), [(80_000.0, 60.0), (0.0, 0.1)])
def test_retry_after_has_a_lower_and_an_upper_bound(per_token_s: float, after_s: float) -> None:
    busy = figures("doctor", in_flight=4, first_token_s=0.001, per_token_s=per_token_s)
    state = one(queue=0)
    state.absorb_serving(serving("s1", busy), NOW_S)
    assert refused(asked(state, intent())).retry_after_s == after_s


def test_what_would_be_in_time_without_the_others_is_overloaded_and_not_infeasible() -> None:
    busy = figures("doctor", in_flight=4, first_token_s=1.0, per_token_s=0.0)
    state = one()
    state.absorb_serving(serving("s1", busy), NOW_S)
    refusal = refused(asked(state, intent(deadline_s=1.2)))
    assert refusal.code == "overloaded"
    never = refused(asked(state, intent(deadline_s=0.9)))
    assert never.code == "infeasible"


def test_what_failed_lately_is_tried_again_as_soon_as_it_has_rested() -> None:
    state = one()
    state.observe("s1", "doctor", Observation(failed=True), NOW_S)
    refusal = refused(asked(state, intent(), NOW_S + 0.2))
    assert refusal.code == "unavailable"
    assert refusal.retry_after_s == pytest.approx(0.3, abs=1e-6)


def test_what_failed_and_is_gone_is_not_back_when_it_has_rested() -> None:
    state = one()
    state.observe("s1", "doctor", Observation(failed=True), NOW_S)
    state.lost(S1, NOW_S)
    assert refused(asked(state, intent(), NOW_S + 0.2)).retry_after_s == 2.0


@pytest.mark.parametrize("state", [DeploymentState.LOADING, DeploymentState.FAILED])
def test_what_is_not_ready_is_unavailable(state: DeploymentState) -> None:
    refusal = refused(asked(one(state=state), intent()))
    assert refusal.code == "unavailable"
    assert "doctor@s1" in refusal.reason
    assert refusal.decision.rejections[0].reason.startswith(f"is {state}")


def test_what_cannot_be_reached_is_unavailable() -> None:
    state = one()
    state.absorb_link(link("s0", "s1", 0.1, loss=1.0), NOW_S)
    refusal = refused(asked(state, intent()))
    assert refusal.code == "unavailable"
    assert "no path from s0 to s1" in refusal.decision.rejections[0].reason


def test_the_smallest_relaxation_is_proposed() -> None:
    told = [finding(name, "s1", "medicine", value) for name, value in (("a", 0.6), ("b", 0.7))]
    state = state_of([facility("s1", deployment("a"), deployment("b"))], *told)
    (relaxation,) = refused(asked(state, intent(AUTO, min_accuracy=0.9))).relaxations
    assert relaxation == Relaxation(
        field="daitn.min_accuracy", current="0.9", proposed="0.7", effect="b@s1 may answer"
    )


def test_of_two_ways_to_give_up_privacy_the_smaller_is_proposed() -> None:
    state = state_of(
        [
            facility("s1", deployment("doctor"), keeps_queries=True),
            facility("s2", deployment("doctor")),
        ]
    )
    (relaxation,) = refused(asked(state, intent(privacy=Privacy.SITE))).relaxations
    assert (relaxation.proposed, relaxation.effect) == ('"unkept"', "doctor@s2 may answer")


def test_a_claim_does_not_hide_how_far_a_measured_model_is() -> None:
    models = deployment("a", claimed={"medicine": 1.0}), deployment("b")
    state = state_of([facility("s1", *models)], finding("b", "s1", "medicine", 0.6))
    refusal = refused(asked(state, intent(AUTO, min_accuracy=0.9)))
    assert [relaxation.proposed for relaxation in refusal.relaxations] == ["0.6"]
    reasons = {no.candidate: no.reason for no in refusal.decision.rejections}
    assert reasons["a@s1"] == (
        "only claimed is known of its accuracy on medicine, weights is wanted"
    )


def test_the_trust_that_is_there_is_told() -> None:
    model = deployment("doctor", evidence=(evidence("medicine", 0.8),))
    state = state_of([unit(), facility("s1", model)])
    assert isinstance(decided(asked(state, intent(min_accuracy=0.7))), QueryPlan)
    (no,) = refused(asked(state, intent(min_accuracy=0.7, trust=Trust.ASKED))).decision.rejections
    assert no.reason == "only weights is known of its accuracy on medicine, asked is wanted"
    assert no.relax_to == ""


def test_an_owner_that_is_not_let_in_is_told() -> None:
    state = one(policy=ModelPolicy(askers=("university",)))
    refusal = refused(asked(state, intent()))
    assert (refusal.code, refusal.field) == ("infeasible", "model")
    assert refusal.decision.rejections[0].reason == "its owner does not let me ask it"


def test_nonsense_in_wishes_is_refused_and_not_a_crash() -> None:
    nan = float("nan")
    for wanted in (intent(min_accuracy=nan), intent(max_cost_usd=nan), intent(deadline_s=nan)):
        assert refused(asked(one(), wanted)).code == "infeasible"


def test_refusing_takes_about_as_long_as_deciding_however_many_names_there_are() -> None:
    models = [
        facility(f"f{n}", *(deployment(f"model-{n}-{i}") for i in range(250))) for n in range(20)
    ]
    context = asked(state_of(models), intent("model-0-0-" + "x" * 180))
    began_s = time.process_time()
    refused(context)
    assert time.process_time() - began_s < 0.1  # Comparing all names takes seconds.
