"""No job goes round for ever, and at its end it says why: the machine under arbitrary outcomes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.jobs.commands import (
    Assess,
    ChooseVerifiers,
    ComputeRoute,
    StartWork,
    StopWork,
)
from daitn.control.jobs.job import MAX_FAILURES, MAX_LOSSES, MAX_WITHOUT_PROGRESS, Job
from daitn.control.jobs.machine import replay
from daitn.control.jobs.stages import WAITS_AT_MOST_S
from daitn.control.jobs.view import view
from daitn.control.jobs.why_exhausted import unvisited
from daitn.objects.decisions import Rejection, Route
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.intents import Budget, PinnedVisit
from daitn.objects.jobs import (
    Assessed,
    CandidateLost,
    JobEvent,
    JobState,
    Planned,
    Recovered,
    Reported,
    SiteLost,
    VerifierAssignment,
    VerifiersChosen,
    Woke,
    WorkStalled,
)
from daitn.objects.messages import VisitWork, WorkOutcome, WorkState
from daitn.objects.models import ModelRef
from daitn.objects.wire import decode, encode
from tests.topology import medicine

from .world import (
    DECISION,
    INTENT,
    OBJECTIVES,
    World,
    all_verifiers_say,
    assessment,
    failed,
    is_training,
    is_verification,
    model_of,
    stop,
)

SITES = ("general", "specialist", "third")


def ended(start: StartWork, state: WorkState) -> WorkOutcome:
    """A report without an error."""
    return WorkOutcome(visit=start.work.visit, job=start.work.job, site=start.site, state=state)


def any_site(job: Job) -> Route | None:
    """The first site that is not left out; none when all are."""
    left = [site for site in SITES if site not in job.excluded]
    if not left:
        return None
    start = job.latest.model.manifest if job.latest else None
    return Route(start=start, visits=(stop(left[0]),), reaches=True)


@pytest.mark.parametrize("state", [WorkState.CANCELLED, WorkState.UNKNOWN, WorkState.RUNNING])
def test_a_site_that_gives_no_reason_is_left_out_after_two_times(state: WorkState) -> None:
    world = World()
    world.routes = any_site
    for _ in range(MAX_FAILURES):
        start = world.run_until(is_training)
        assert isinstance(start, StartWork)
        assert start.site == "general"
        world.feed(Reported(ended(start, state)))
    assert world.job.excluded == ("general",)
    assert "gives no reason" in world.job.problems[SiteId("general")]
    following = world.run_until(is_training)
    assert isinstance(following, StartWork)
    assert following.site == "specialist"


@pytest.mark.parametrize("state", [WorkState.CANCELLED, WorkState.UNKNOWN])
def test_a_verifier_that_gives_no_reason_ends_the_job(state: WorkState) -> None:
    world = World()
    for _ in range(MAX_FAILURES):
        start = world.run_until(lambda c: isinstance(c, StartWork) and c.site == "mpvu-broad")
        assert isinstance(start, StartWork)
        world.feed(Reported(ended(start, state)))
    world.run()
    assert world.job.state is JobState.FAILED
    assert "mpvu-broad" in world.job.detail


def test_a_site_that_comes_and_goes_is_left_out() -> None:
    world = World()
    world.routes = any_site
    for _ in range(MAX_LOSSES):
        start = world.run_until(is_training)
        assert isinstance(start, StartWork)
        assert start.site == "general"
        world.feed(SiteLost(start.site))
    assert world.job.excluded == ("general",)


def test_a_site_that_finished_work_between_its_losses_stays() -> None:
    world = World()
    world.routes = any_site
    world.skill = {"broad": -1e9, "expert": -1e9}
    for _ in range(2 * MAX_LOSSES):
        for come_to in ("lost", "done"):
            start = world.run_until(is_training)
            assert isinstance(start, StartWork)
            assert start.site == "general"
            done = Reported(world.done(start))
            world.feed(SiteLost(start.site) if come_to == "lost" else done)


def test_a_visit_that_does_not_get_on_is_stopped_and_counts_as_a_failure() -> None:
    world = World()
    world.routes = any_site
    for _ in range(MAX_FAILURES):
        start = world.run_until(is_training)
        assert isinstance(start, StartWork)
        world.feed(WorkStalled(site=start.site, visit=start.work.visit, silent_s=600.0))
        assert StopWork(start.site, start.work.visit) in world.pending
        world.feed(WorkStalled(site=start.site, visit=start.work.visit, silent_s=600.0))
    assert world.job.failures == {"general": MAX_FAILURES}
    assert "600 s" in world.job.problems[SiteId("general")]


def test_a_verification_that_does_not_get_on_is_given_anew_then_ends_the_job() -> None:
    world = World()
    for _ in range(MAX_FAILURES):
        start = world.run_until(lambda c: isinstance(c, StartWork) and c.site == "mpvu-expert")
        assert isinstance(start, StartWork)
        world.feed(WorkStalled(site=start.site, visit=start.work.visit, silent_s=600.0))
    world.run()
    assert world.job.state is JobState.FAILED


def test_another_verifier_measures_what_one_cannot_fetch() -> None:
    world = World()
    first = world.run_until(is_training)
    assert isinstance(first, StartWork)
    world.feed(Reported(world.done(first)))
    verify = world.run_until(is_verification)
    assert isinstance(verify, StartWork)
    world.feed(Reported(failed(verify, "Unreachable")))
    assert world.job.cut_off == {(verify.site, "general")}
    world.pending = [c for c in world.pending if not isinstance(c, ChooseVerifiers)]
    world.feed(VerifiersChosen((VerifierAssignment(objective=OBJECTIVES[0], site=SiteId("b")),)))
    again = world.run_until(lambda c: isinstance(c, StartWork) and c.site == "b")
    assert isinstance(again, StartWork)
    assert model_of(again) == model_of(verify)
    assert not world.job.failures


def test_a_site_whose_models_no_verifier_can_fetch_is_left_out_and_named() -> None:
    world = World()
    world.routes = lambda job: None if job.excluded else any_site(job)
    fresh = world.run_until(is_training)
    while not world.job.state.final:
        assert isinstance(fresh, StartWork)
        world.feed(Reported(world.done(fresh)))
        all_verifiers_say(world, "Unreachable")
        while world.pending and not is_training(world.pending[0]):
            world.step()
        fresh = world.pending.pop(0) if world.pending else fresh
    assert world.job.state is JobState.EXHAUSTED
    assert world.job.excluded == ("general",)
    assert "mpvu-broad, mpvu-expert cannot fetch it from general" in world.job.detail


def test_a_site_that_cannot_fetch_from_any_holder_is_left_out_and_its_holders_are_named() -> None:
    world = World()
    world.routes = lambda job: None if job.excluded else any_site(job)
    for _ in range(MAX_FAILURES):
        start = world.run_until(is_training)
        assert isinstance(start, StartWork)
        world.feed(Reported(failed(start, "Unreachable")))
        assert world.job.state is JobState.WAITING
        model = model_of(start)
        assert model is not None
        holders = [h for h in model.holders if h != "general"]
        assert world.job.cut_off == {("general", holder) for holder in holders}
        world.feed(Woke())
    world.run()
    assert world.job.state is JobState.EXHAUSTED
    assert "general (it cannot fetch the model from general or mpvu-broad" in world.job.detail
    assert "listen: []" in world.job.detail


def test_a_fresh_model_that_nobody_can_fetch_leaves_its_site_out() -> None:
    world = World()
    world.routes = any_site
    for _ in range(MAX_FAILURES):
        make = world.run_until(lambda c: isinstance(c, StartWork))
        assert isinstance(make, StartWork)
        assert isinstance(make.work, VisitWork)
        world.feed(Reported(world.done(make)))
        world.feed(CandidateLost("no holder answers"))
    assert world.job.excluded == ("general",)


def test_a_job_that_waits_for_a_week_ends() -> None:
    world = World()
    world.run_until(lambda command: isinstance(command, ComputeRoute))
    began_s = world.now_s
    while world.job.state is not JobState.EXHAUSTED:
        world.feed(Planned(route=None, decision=DECISION, waiting_for="sites that are away: ghr"))
        world.pending.clear()
        if world.job.wake_at_s is not None:
            world.now_s = world.job.wake_at_s
            world.feed(Woke())
            world.pending.clear()
    assert world.now_s - began_s >= WAITS_AT_MOST_S
    assert "ghr" in world.job.detail


OUTCOMES = (
    "done", "done", "FAILED", "CANCELLED", "UNKNOWN", "WorkFailed", "Unreachable", "Refused",
    "lost", "stalled", "candidate lost", "recovered", "wrong", "WorkFailed model",
    "InvalidInput model.config",
)  # fmt: skip
VISITS_WANTED = 3
"""The planner of the property test has enough after so many visits that were measured."""


@settings(max_examples=150, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=12),
    brought=st.booleans(),
    waits=st.booleans(),
)
def test_whatever_sites_do_for_ever_the_job_ends(
    outcomes: list[str], brought: bool, waits: bool
) -> None:
    """The outcomes come round and round: what is not bounded never ends."""
    start = ModelRef(manifest=Digest("f" * 64), size_bytes=1, holders=(SiteId("center"),))
    world = World(start=start if brought else None)
    world.skill = {"broad": -1e9, "expert": -1e9}
    world.routes = lambda job: None if len(job.made) >= VISITS_WANTED else any_site(job)
    turn = 0
    for _ in range(20 * MAX_WITHOUT_PROGRESS * (VISITS_WANTED + 2)):
        if world.job.state.final:
            break
        if world.job.state is JobState.WAITING:
            world.feed(Woke())
        elif world.pending and isinstance(world.pending[0], StartWork):
            _come_to(world, outcomes[turn % len(outcomes)])
            turn += 1
        elif waits and world.pending and isinstance(world.pending[0], ComputeRoute) and turn % 3:
            world.pending.pop(0)
            world.feed(Planned(route=None, decision=DECISION, waiting_for="a site"))
            turn += 1
        else:
            assert world.step(), world.job.history
    assert world.job.state.final, f"{world.job.state}: {list(world.job.history)}"
    assert not world.job.outstanding
    again = replay([(decode(encode(event), JobEvent), at_s) for event, at_s in world.facts])
    assert view(again, 0.0) == view(world.job, 0.0)


def _come_to(world: World, outcome: str) -> None:
    start = world.pending.pop(0)
    assert isinstance(start, StartWork)
    if start.work.visit not in world.job.outstanding:
        return
    match outcome:
        case "done":
            world.feed(Reported(world.done(start)))
        case "wrong":
            world.feed(Reported(msgspec.structs.replace(world.done(start), entry=None)))
        case "lost":
            world.feed(SiteLost(start.site))
        case "stalled":
            world.feed(WorkStalled(site=start.site, visit=start.work.visit, silent_s=600.0))
        case "candidate lost":
            if world.job.state is JobState.VERIFYING:
                world.feed(CandidateLost("no holder answers"))
            else:
                world.feed(SiteLost(start.site))
        case "recovered":
            world.pending.clear()
            world.feed(Recovered())
            world.feed(SiteLost(start.site))
        case "FAILED" | "CANCELLED" | "UNKNOWN":
            world.feed(Reported(ended(start, WorkState[outcome])))
        case error:
            code, _, field = error.partition(" ")
            world.feed(Reported(failed(start, code, field)))


class TestTheEnd:
    """What an owner reads when a job ends short of its targets."""

    def test_it_tells_objectives_visits_and_what_would_help(self) -> None:
        budget = Budget(examples=105)
        world = World(msgspec.structs.replace(INTENT, budget=budget))
        world.routes = lambda job: None if job.made else world.next_route(job)
        world.run_until(lambda c: isinstance(c, ComputeRoute) and bool(world.job.made))
        unvisited = {SiteId("cdc"): "no gain is expected of it"}
        why = "at most 0.71 of broad is expected from all that is left"
        world.feed(Planned(route=None, decision=DECISION, why=why, unvisited=unvisited))
        told = world.job.detail
        assert told.startswith(why)
        assert "broad is missed: 0.650 of 0.8 at best" in told
        assert "expert is missed: 0.250 of 0.9 at best" in told
        assert "visited: general 1x (100 examples)" in told
        assert "not visited: cdc (no gain is expected of it)" in told
        assert "a larger budget.examples (100 of 105 are used)" in told

    def test_a_job_that_was_stuck_is_not_told_to_spend_more(self) -> None:
        world = World(msgspec.structs.replace(INTENT, budget=Budget(examples=850)))
        world.routes = lambda job: None if len(job.made) == 8 else any_site(job)
        world.run_until(lambda c: isinstance(c, ComputeRoute) and len(world.job.made) == 8)
        beyond = Rejection(
            candidate="general:100", filter="examples", reason="takes too many",
            field="budget.examples", relax_to="10514",
        )  # fmt: skip
        decision = msgspec.structs.replace(DECISION, rejections=(beyond,))
        world.feed(Planned(route=None, decision=decision))
        told = world.job.detail
        assert "none of the last 6 visits came nearer to the targets" in told
        assert "what would help: more data on" in told
        assert "budget" not in told.partition("what would help")[2]

    def test_a_site_that_only_the_budget_keeps_out_is_told_so(self) -> None:
        world = World()
        beyond = Rejection(
            candidate="cdc:100", filter="cost", reason="costs too much",
            field="budget.cost_usd", relax_to="23",
        )  # fmt: skip
        decision = msgspec.structs.replace(DECISION, rejections=(beyond,))
        topology = medicine.cut(medicine.drrt(medicine.nodes()), medicine.intent())
        left = unvisited(world.job, topology, decision)
        assert left[SiteId("ninds")] == "no visit to it fits what is left of budget.cost_usd"
        unlimited = unvisited(world.job, topology, DECISION)
        assert unlimited[SiteId("ninds")] == "no gain is expected of it"

    def test_a_budget_that_keeps_a_route_out_is_told_with_the_value_that_admits_it(self) -> None:
        world = World()
        world.run_until(lambda command: isinstance(command, ComputeRoute))
        beyond = Rejection(
            candidate="general:100", filter="cost", reason="costs too much",
            field="budget.cost_usd", relax_to="23",
        )  # fmt: skip
        decision = msgspec.structs.replace(DECISION, rejections=(beyond,))
        world.feed(Planned(route=None, decision=decision))
        assert "budget.cost_usd of 23" in world.job.detail
        assert "broad was never measured" in world.job.detail

    def test_the_rest_of_a_stated_route_says_what_stands_in_its_way(self) -> None:
        route = tuple(PinnedVisit(site=SiteId(s), examples=100) for s in ("general", "east"))
        world = World(msgspec.structs.replace(INTENT, route=route))
        world.routes = lambda job: None if job.made else world.next_route(job)
        world.run_until(lambda c: isinstance(c, ComputeRoute) and bool(world.job.made))
        beyond = Rejection(
            candidate="east:100", filter="release", reason="may not go to east: released to US",
            field="",
        )  # fmt: skip
        decision = msgspec.structs.replace(DECISION, rejections=(beyond,))
        world.feed(Planned(route=None, decision=decision))
        assert "the rest of the route" in world.job.detail
        assert "it may not go to east" in world.job.detail

    def test_a_site_that_was_left_out_is_told_with_its_last_failure(self) -> None:
        world = World()
        world.routes = lambda job: None if job.excluded else any_site(job)
        start = world.run_until(is_training)
        assert isinstance(start, StartWork)
        world.feed(Reported(failed(start, "Refused")))
        world.run()
        assert world.job.state is JobState.EXHAUSTED
        assert "left out: general (it broke)" in world.job.detail
        assert "a repair of general" in world.job.detail


def test_an_assessment_that_says_no_ends_the_job_at_once() -> None:
    world = World()
    assert isinstance(world.pending[0], Assess)
    world.pending.clear()
    world.feed(Assessed(assessment(False)))
    assert world.job.state is JobState.INFEASIBLE
