from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.jobs.commands import ChooseVerifiers, Command, ComputeRoute, StartWork, StopWork
from daitn.control.jobs.failing import count_failure, forgive
from daitn.control.jobs.job import Job, Outstanding
from daitn.control.jobs.machine import decisions, handle, replay
from daitn.control.jobs.question import route_question
from daitn.control.jobs.resuming import RESUMED
from daitn.control.jobs.view import algorithm, view
from daitn.identity.signing import check_lineage
from daitn.objects.decisions import Route
from daitn.objects.errors import Corrupt, ErrorReport, IllegalTransition
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.jobs import (
    Assessed,
    CancelRequested,
    CandidateLost,
    DeadlinePassed,
    JobEvent,
    JobState,
    Planned,
    Recovered,
    Reported,
    ResumeAsked,
    SiteLost,
    VerifierAssignment,
    VerifiersChosen,
    Woke,
)
from daitn.objects.lineage import Lineage
from daitn.objects.messages import VisitWork, WorkOutcome
from daitn.objects.models import ModelRef
from daitn.objects.privacy import NoiseMechanism, PrivacySpent, PrivacyWish
from daitn.objects.wire import decode, encode
from daitn.topology.snapshot import Drrt, MsDrrt

from .world import (
    DECISION,
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


def state_of(world: World) -> JobState:
    return world.job.state


def test_a_job_goes_from_submission_to_its_targets() -> None:
    world = World()
    world.run()
    job = world.job
    assert job.state is JobState.REACHED
    assert [made.site for made in job.made] == ["general", "specialist"] * 2
    assert job.best is not None
    assert job.best.values == {"broad": 1.0, "expert": 1.0}
    assert job.learned
    job.checkpoints = job.checkpoints[:1]  # That of the fresh model.
    assert not job.learned
    assert world.settled == 1
    shown = view(job, world.now_s)
    assert shown.untrained == {"broad": 0.25, "expert": 0.25}
    assert shown.algorithm == "cyclic"
    assert shown.cost_usd == pytest.approx(2.0)
    assert all(objective.holds for objective in shown.objectives)
    assert shown.route[0].gains == {"broad": pytest.approx(0.4), "expert": 0.0}


def test_the_lineage_is_one_signed_chain() -> None:
    world = World()
    world.run()
    entries = tuple(world.job.lineage)
    check_lineage(Lineage(job=world.job.id, entries=entries))
    with pytest.raises(Corrupt, match=r"entries\[2\].*builds on"):
        check_lineage(Lineage(job=world.job.id, entries=entries[:1] + entries[2:]))
    forged = msgspec.structs.replace(
        entries[1], fact=msgspec.structs.replace(entries[1].fact, value=1.0)
    )
    with pytest.raises(Corrupt, match="signature"):
        check_lineage(Lineage(job=world.job.id, entries=(entries[0], forged)))


def test_an_infeasible_intent_ends_with_its_reasons() -> None:
    world = World()
    world.pending.clear()
    world.feed(Assessed(assessment(False)))
    assert state_of(world) is JobState.INFEASIBLE
    assert "no data on the topic" in world.job.detail


def test_weights_that_the_owner_brought_are_measured_before_they_travel() -> None:
    start = ModelRef(manifest=Digest("f" * 64), size_bytes=1, holders=(SiteId("center"),))
    world = World(start=start)
    work = world.run_until(lambda command: isinstance(command, StartWork))
    assert is_verification(work)
    assert isinstance(work, StartWork)
    assert model_of(work) == start


def test_a_site_that_dies_while_training_costs_only_its_own_visit() -> None:
    world = World()
    world.run_until(is_training)
    world.feed(SiteLost(SiteId("general")))
    assert [type(command) for command in world.pending] == [StopWork, ComputeRoute]
    world.run()
    assert state_of(world) is JobState.REACHED


def test_a_second_visit_goes_on_from_the_last_verified_model() -> None:
    world = World()
    first = world.run_until(is_training)
    assert isinstance(first, StartWork)
    world.feed(Reported(world.done(first)))
    second = world.run_until(is_training)
    assert isinstance(second, StartWork)
    world.feed(SiteLost(second.site))
    third = world.run_until(is_training)
    assert isinstance(third, StartWork)
    assert isinstance(third.work, VisitWork)
    assert model_of(third) == model_of(second)
    assert third.work == second.work, "the same site goes on with the same work"
    assert set(third.work.model.holders if third.work.model else ()) == {
        "general",
        "mpvu-broad",
        "mpvu-expert",
    }


def test_a_lost_site_goes_on_only_with_the_visit_that_it_had() -> None:
    for changes in ({"site": "specialist"}, {"examples": 99}):
        world = World()
        first = world.run_until(is_training)
        assert isinstance(first, StartWork)
        world.feed(SiteLost(first.site))
        asked = {"site": "general", **changes}
        world.routes = lambda job, asked=asked: Route(  # type: ignore[misc]
            start=job.latest.model.manifest if job.latest else None,
            visits=(stop(**asked),),
            reaches=True,
        )
        second = world.run_until(is_training)
        assert isinstance(second, StartWork)
        assert model_of(second) == model_of(first)
        assert second.work.visit != first.work.visit


def test_what_a_lost_site_finished_meanwhile_is_not_done_again() -> None:
    world = World()
    first = world.run_until(is_training)
    assert isinstance(first, StartWork)
    finished = world.done(first)
    world.feed(SiteLost(first.site))
    world.feed(Reported(finished))
    assert not world.job.made, "nobody expects it yet"
    again = world.run_until(is_training)
    assert again == first
    world.feed(Reported(finished))
    world.run()
    assert state_of(world) is JobState.REACHED


def test_a_site_that_fails_twice_is_not_asked_again() -> None:
    world = World()
    for _ in range(2):
        start = world.run_until(is_training)
        assert isinstance(start, StartWork)
        world.feed(Reported(failed(start, "WorkFailed")))
    assert world.job.excluded == ("general",)


@pytest.mark.parametrize("code", ["Refused", "InvalidInput", "StorageFull"])
def test_a_site_that_says_no_is_not_asked_again(code: str) -> None:
    world = World()
    start = world.run_until(is_training)
    assert isinstance(start, StartWork)
    world.feed(Reported(failed(start, code, "datasets[0].path")))
    assert world.job.excluded == ("general",)


def test_a_site_that_lacks_a_package_is_left_out_and_the_job_goes_on() -> None:
    world = World()
    start = world.run_until(is_training)
    assert isinstance(start, StartWork)
    world.feed(Reported(failed(start, "NotFound", "packages")))
    assert world.job.excluded == (start.site,)
    assert state_of(world) is not JobState.FAILED


@pytest.mark.parametrize("sites", [("general",), ("general", "specialist", "third")])
def test_a_bad_model_configuration_ends_the_job_with_its_field(sites: tuple[str, ...]) -> None:
    """Once a second site says so, or none is left to ask."""
    world = World()

    def left(job: Job) -> Route | None:
        free = [site for site in sites if site not in job.excluded]
        return Route(start=None, visits=(stop(free[0]),), reaches=True) if free else None

    world.routes = left
    asked = sites[:2]
    for _ in asked:
        assert not state_of(world).final
        start = world.run_until(lambda command: isinstance(command, StartWork))
        assert isinstance(start, StartWork)
        world.feed(Reported(failed(start, "InvalidInput", "model.config.width")))
    world.run()
    assert state_of(world) is JobState.FAILED
    assert world.job.error is not None
    assert world.job.error.field == "model.config.width"


def in_turn(*sites: str) -> Callable[[Job], Route | None]:
    """A visit to the first of these that is not left out; four visits at most."""

    def route(job: Job) -> Route | None:
        free = [site for site in sites if site not in job.excluded]
        start = job.latest.model.manifest if job.latest else None
        done = len(job.made) > 3 or not free
        return None if done else Route(start=start, visits=(stop(free[0]),), reaches=True)

    return route


def test_no_site_alone_ends_a_job_by_what_it_says_of_its_owners_wishes() -> None:
    """Neither at first, nor after others have trained as the owner wishes."""
    world = World()
    world.routes = in_turn("general", "specialist", "third")
    make = world.run_until(lambda command: isinstance(command, StartWork))
    assert isinstance(make, StartWork)
    world.feed(Reported(failed(make, "InvalidInput", "model.config.width")))
    world.visit_twice()
    (given,) = world.job.outstanding.values()
    wrong = failed(StartWork(given.site, given.work), "NotFound", "model.recipe")
    world.feed(Reported(wrong))
    assert world.job.excluded == ("general", "specialist")
    world.run()
    assert state_of(world) is JobState.EXHAUSTED
    assert [visit.site for visit in world.job.made] == ["specialist"] * 2 + ["third"] * 2


@pytest.mark.parametrize("owners", [("acme", "acme"), ("acme", "other")])
def test_no_owner_alone_ends_a_job_however_many_sites_say_so(owners: tuple[str, str]) -> None:
    world = World()
    sites = in_turn("general", "specialist", "third")

    def owned(job: Job) -> Route | None:
        route = sites(job)
        if route is None:
            return None
        (visit,) = route.visits
        owner = dict(zip(("general", "specialist"), owners, strict=True)).get(visit.site, "")
        return msgspec.structs.replace(route, visits=(msgspec.structs.replace(visit, owner=owner),))

    world.routes = owned
    for _ in owners:
        make = world.run_until(lambda command: isinstance(command, StartWork))
        assert isinstance(make, StartWork)
        world.feed(Reported(failed(make, "InvalidInput", "model.config.width")))
    assert (state_of(world) is JobState.FAILED) is (len(set(owners)) == 2)


def test_a_failure_that_is_taken_back_leaves_what_else_a_site_did() -> None:
    job = World().job
    site, error = SiteId("general"), ErrorReport(code="Refused", problem="its data may not travel")
    count_failure(job, site, error)
    count_failure(job, site, error, for_good=True)
    forgive(job, site)
    assert job.excluded == (site,)
    count_failure(job, SiteId("other"), error)
    forgive(job, SiteId("other"))
    assert job.excluded == (site,)


def test_a_visit_on_stricter_terms_than_published_is_no_visit() -> None:
    """Nobody could measure its model, or nobody else train it."""
    world = World()
    world.routes = in_turn("general", "specialist")
    visit = world.run_until(is_training)
    assert isinstance(visit, StartWork)
    outcome = world.done(visit)
    assert outcome.entry is not None
    fact = msgspec.structs.replace(outcome.entry.fact, release_to=("ZZ",))
    entry = msgspec.structs.replace(outcome.entry, fact=fact)
    world.feed(Reported(msgspec.structs.replace(outcome, entry=entry)))
    assert world.job.excluded == ("general",)
    assert "may not travel as far as it published" in world.job.problems[SiteId("general")]
    world.run()
    assert {visit.site for visit in world.job.made} == {"specialist"}
    assert world.job.best is not None
    assert world.job.best.release_to == ("*",)


@pytest.mark.parametrize("claimed", [(), ("ghost",), ("mpvu-broad", "specialist")])
def test_a_model_is_held_by_who_made_it_whoever_its_report_names(claimed: tuple[str, ...]) -> None:
    world = World()
    visit = world.run_until(is_training)
    assert isinstance(visit, StartWork)
    outcome = world.done(visit)
    assert outcome.model is not None
    model = msgspec.structs.replace(outcome.model, holders=tuple(map(SiteId, claimed)))
    world.feed(Reported(msgspec.structs.replace(outcome, model=model)))
    assert world.job.candidate is not None
    assert world.job.candidate.model.holders == ("general",)
    all_verifiers_say(world, "Unreachable")
    world.run_until(lambda command: isinstance(command, ComputeRoute))
    assert {holder for _, holder in world.job.cut_off} == {"general"}
    assert world.job.failures == {"general": 1}


def test_a_job_waits_for_a_verifier_and_goes_on_when_one_comes() -> None:
    world = World()
    world.run_until(lambda command: isinstance(command, ChooseVerifiers))
    nobody = VerifierAssignment(objective=OBJECTIVES[1], site=None)
    world.feed(VerifiersChosen((nobody,)))
    assert state_of(world) is JobState.WAITING
    assert "expert" in world.job.detail
    assert world.job.wake_at_s is not None
    world.feed(Woke())
    world.run()
    assert state_of(world) is JobState.REACHED


@pytest.mark.parametrize("told_by", ["its verifiers", "the site where it waits"])
def test_an_unverified_model_that_was_lost_with_its_site_is_made_again(told_by: str) -> None:
    world = World()
    first = world.run_until(is_training)
    assert isinstance(first, StartWork)
    world.feed(Reported(world.done(first)))
    if told_by == "its verifiers":
        all_verifiers_say(world, "Unreachable")
    else:
        world.run_until(is_verification)
        world.feed(CandidateLost("no holder answers"))
    again = world.run_until(is_training)
    assert isinstance(again, StartWork)
    assert list(world.job.outstanding) == [again.work.visit]
    assert model_of(again) == model_of(first)
    world.feed(Reported(world.done(again)))
    world.run()
    assert state_of(world) is JobState.REACHED


def test_a_report_about_something_else_is_a_failure_of_its_site() -> None:
    world = World()
    start = world.run_until(is_training)
    assert isinstance(start, StartWork)
    honest = world.done(start)
    assert honest.entry is not None
    other = ModelRef(manifest=Digest("e" * 64), size_bytes=1, holders=(start.site,))
    for wrong in (
        msgspec.structs.replace(honest, model=other),
        msgspec.structs.replace(honest, entry=None),
        msgspec.structs.replace(
            honest,
            entry=msgspec.structs.replace(
                honest.entry, fact=msgspec.structs.replace(honest.entry.fact, examples=10**6)
            ),
        ),
    ):
        there = World()
        given = there.run_until(is_training)
        there.feed(Reported(wrong))
        assert there.job.failures == {"general": 1}
        assert given is not None
        assert there.job.spent_examples == 0


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"delta": 1e-7, "epsilon": 5.0}, True),  # At the delta that the owner of the data demands.
        ({"clip": 2.0}, False),
        ({"mechanism": NoiseMechanism(rate=0.25, noise=2.0, steps=40)}, False),
        (None, False),
    ],
)
def test_a_visit_that_is_less_private_than_ordered_is_not_believed(
    change: dict[str, Any] | None, kept: bool
) -> None:
    world = World()
    start = world.run_until(is_training)
    assert isinstance(start, StartWork)
    honest = world.done(start)
    assert honest.entry is not None
    wish = PrivacyWish(epsilon=3.0)
    told = PrivacySpent(
        epsilon=3.0,
        delta=wish.delta,
        clip=wish.clip,
        mechanism=NoiseMechanism(rate=0.25, noise=4.0, steps=40),
    )
    spent = None if change is None else msgspec.structs.replace(told, **change)
    fact = msgspec.structs.replace(honest.entry.fact, privacy=spent)
    report = msgspec.structs.replace(honest, entry=msgspec.structs.replace(honest.entry, fact=fact))
    work = msgspec.structs.replace(start.work, privacy=wish)
    assert (world.wrong(Outstanding(start.site, work), report) == "") == kept


def test_nobody_reports_for_another_site() -> None:
    world = World()
    start = world.run_until(is_training)
    assert isinstance(start, StartWork)
    forged = msgspec.structs.replace(world.done(start), site=SiteId("rogue"))
    world.feed(Reported(forged))
    assert start.work.visit in world.job.outstanding
    world.feed(Reported(world.done(start)))
    assert start.work.visit not in world.job.outstanding


def test_a_verification_of_another_model_is_not_believed() -> None:
    world = World()
    verify = world.run_until(is_verification)
    assert isinstance(verify, StartWork)
    honest = world.done(verify)
    assert honest.entry is not None
    for change in ({"model": Digest("d" * 64)}, {"value": float("nan")}, {"topic": "cooking"}):
        fact = msgspec.structs.replace(honest.entry.fact, **change)
        entry = msgspec.structs.replace(honest.entry, fact=fact)
        report = msgspec.structs.replace(honest, entry=entry)
        assert world.wrong(Outstanding(verify.site, verify.work), report)
    assert not world.wrong(Outstanding(verify.site, verify.work), honest)


def test_work_that_was_lost_before_it_was_measured_is_paid_all_the_same() -> None:
    world = World()
    first = world.run_until(is_training)
    assert isinstance(first, StartWork)
    world.feed(Reported(world.done(first)))
    all_verifiers_say(world, "Unreachable")
    world.run_until(lambda command: isinstance(command, ComputeRoute))
    shown = view(world.job, world.now_s)
    assert (shown.cost_usd, shown.examples) == (0.5, 100)
    assert world.job.failures == {"general": 1}


def test_a_waiting_job_looks_less_and_less_often() -> None:
    world = World()
    pauses = []
    world.run_until(lambda command: isinstance(command, ComputeRoute))
    for _ in range(8):
        world.feed(Planned(route=None, decision=DECISION, waiting_for="ghr"))
        assert world.job.wake_at_s is not None
        pauses.append(world.job.wake_at_s - world.now_s)
        world.feed(Woke())
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]


def test_a_site_that_fails_before_there_is_a_model_is_excluded_from_the_next_question() -> None:
    world = World()
    for _ in range(2):
        make = world.run_until(lambda command: isinstance(command, StartWork))
        assert isinstance(make, StartWork)
        world.feed(Reported(failed(make, "WorkFailed")))
    topology = MsDrrt(snapshot=Drrt(version=1, at_s=0.0), options=(), verifiers={}, rejections=())
    question = route_question(world.job, topology, world.now_s)
    assert question.excluded == ("general",)
    assert question.spent.duration_s > 0


def test_a_model_goes_no_further_than_all_the_data_that_it_learned_from_allows() -> None:
    world = World()
    allowed = iter((("*",), ("US", "DE"), ("DE", "FR")))

    def route(job: Job) -> Route | None:
        planned = world.next_route(job)
        assert planned is not None
        here = msgspec.structs.replace(planned.visits[0], release_to=next(allowed))
        return msgspec.structs.replace(planned, visits=(here,))

    world.routes = route
    for _ in range(2):
        start = world.run_until(is_training)
        assert isinstance(start, StartWork)
        world.feed(Reported(world.done(start)))
    assert world.job.candidate is not None
    assert world.job.candidate.release_to == ("DE",)


def test_a_verifier_that_keeps_failing_ends_the_job() -> None:
    world = World()
    for _ in range(2):
        verify = world.run_until(lambda c: isinstance(c, StartWork) and c.site == "mpvu-broad")
        assert isinstance(verify, StartWork)
        world.feed(Reported(failed(verify, "WorkFailed")))
    world.run()
    assert state_of(world) is JobState.FAILED


def test_a_model_that_cannot_be_measured_is_given_up_and_the_job_goes_on() -> None:
    """Its training diverged: neither its verifier nor the job has failed."""
    world = World()
    visit = world.run_until(is_training)
    assert isinstance(visit, StartWork)
    world.feed(Reported(world.done(visit)))
    verified = world.job.checkpoints[-1].model
    verify = world.run_until(lambda c: isinstance(c, StartWork) and c.site == "mpvu-broad")
    assert isinstance(verify, StartWork)
    assert world.job.candidate is not None
    made_at = world.job.candidate.made_at
    assert made_at is not None
    world.feed(Reported(failed(verify, "WorkFailed", "model")))
    world.run_until(lambda command: isinstance(command, ComputeRoute))
    world.pending.append(ComputeRoute())
    assert "cannot be measured" in world.job.detail
    assert "cannot be measured: mpvu-broad says" in world.job.problems[made_at]
    assert world.job.failures[made_at] == 1
    assert not world.job.verifier_failures
    start = world.run_until(is_training)
    assert isinstance(start, StartWork)
    assert model_of(start) == verified


def test_a_test_set_whose_policy_refuses_is_asked_again_after_a_wait() -> None:
    world = World()
    for _ in range(3):
        verify = world.run_until(lambda c: isinstance(c, StartWork) and c.site == "mpvu-broad")
        assert isinstance(verify, StartWork)
        world.feed(Reported(failed(verify, "Refused")))
        assert world.job.candidate is not None
        assert world.job.candidate.refused == {"mpvu-broad"}
        nobody = VerifierAssignment(objective=OBJECTIVES[0], site=None)
        world.feed(VerifiersChosen((nobody,)))
        assert state_of(world) is JobState.WAITING
        assert "policy at mpvu-broad refuses" in world.job.detail
        world.pending.clear()
        world.feed(Woke())
    world.run()
    assert state_of(world) is JobState.REACHED


def test_no_route_exhausts_the_job_and_keeps_its_best_model() -> None:
    world = World()
    world.routes = lambda job: None if job.made else world.next_route(job)
    world.run()
    assert state_of(world) is JobState.EXHAUSTED
    assert world.job.best is not None
    assert world.job.best.values[OBJECTIVES[0]] == pytest.approx(0.65)
    assert "no further visit" in world.job.detail


def test_no_route_now_makes_the_job_wait() -> None:
    world = World()
    world.run_until(lambda command: isinstance(command, ComputeRoute))
    world.feed(Planned(route=None, decision=DECISION, waiting_for="sites that are away: ghr"))
    assert state_of(world) is JobState.WAITING
    world.feed(Woke())
    world.run()
    assert state_of(world) is JobState.REACHED


def test_a_route_may_go_back_to_the_best_model() -> None:
    world = World()
    last = None

    def route(job: Job) -> Route | None:
        if len(job.made) < 2:
            return world.next_route(job)
        return Route(start=job.checkpoints[1].model.manifest, visits=(stop("other"),), reaches=True)

    world.routes = route
    for _ in range(3):
        start = world.run_until(is_training)
        assert isinstance(start, StartWork)
        last = model_of(start)
        world.feed(Reported(world.done(start)))
    assert last == world.job.checkpoints[1].model


@pytest.mark.parametrize("event", [CancelRequested(), DeadlinePassed()])
def test_stopping_tells_the_site_and_keeps_the_last_model(event: JobEvent) -> None:
    world = World()
    start = world.run_until(is_training)
    assert isinstance(start, StartWork)
    world.feed(event)
    world.run()
    assert [stopped.visit for stopped in world.stopped] == [start.work.visit]
    assert world.job.state.final
    assert world.job.best is not None
    world.feed(Reported(world.done(start)))
    assert world.job.state.final


def test_a_cancelled_job_goes_on_from_its_best_model_and_its_pause_costs_no_time() -> None:
    world = World()
    world.visit_twice()
    best, known = world.job.best, len(world.job.lineage)
    world.feed(CancelRequested())
    before_s = world.now_s
    left_s = (world.job.deadline_at_s or 0.0) - before_s
    world.run()
    world.now_s += 1e6
    world.feed(ResumeAsked())
    assert (world.job.deadline_at_s or 0.0) - world.now_s == pytest.approx(left_s)
    assert view(world.job, world.now_s).seconds == pytest.approx(
        before_s - world.job.submitted_at_s
    )
    start = world.run_until(is_training)
    assert isinstance(start, StartWork)
    assert best is not None
    assert model_of(start) == best.model
    world.feed(Reported(world.done(start)))
    world.run()
    assert world.job.state is JobState.REACHED
    assert len(world.job.lineage) > known, "it is one lineage, of one order"


def test_what_a_model_knew_untrained_stays_so_when_its_job_is_resumed_from_it() -> None:
    world = World()
    world.visit_twice()
    first, *later = world.job.checkpoints
    worse = dict.fromkeys(first.values, 0.0)
    world.job.checkpoints[1:] = [msgspec.structs.replace(one, values=worse) for one in later]
    untrained = view(world.job, world.now_s).untrained
    world.feed(CancelRequested())
    world.feed(ResumeAsked())
    assert world.job.latest == first
    assert view(world.job, world.now_s).untrained == untrained == first.values


def test_a_job_that_was_cancelled_before_it_began_begins_when_it_is_resumed() -> None:
    world = World()
    world.feed(CancelRequested())
    world.feed(ResumeAsked())
    world.run()
    assert world.job.state is JobState.REACHED


def test_recovery_takes_up_what_was_under_way_with_the_same_ids() -> None:
    world = World()
    start = world.run_until(is_training)
    again = replay(world.facts)
    assert handle(again, Recovered(), world.now_s) == (start,)


def test_every_decision_is_told_from_the_facts() -> None:
    world = World()
    world.run()
    made = decisions(world.facts)
    planned = [(fact, at_s) for fact, at_s in world.facts if isinstance(fact, Planned)]
    assert [d.number for d in made] == list(range(1, len(planned) + 1))
    assert [(d.route, d.at_s) for d in made] == [(fact.route, at_s) for fact, at_s in planned]
    assert [d.visits_before for d in made] == [0, 0, 1, 2, 3]


def test_an_unknown_fact_tells_the_jobs_history() -> None:
    world = World()
    with pytest.raises(IllegalTransition, match="submitted and cannot take Woke"):
        world.feed(Woke())


@pytest.mark.parametrize(
    ("sites", "name"),
    [
        (("a", "b"), "sequential"),
        (("a", "b", "a"), "cyclic"),
        (("a", "a", "b"), "sequential"),
        ((), "sequential"),
    ],
)
def test_the_algorithm_has_a_name(sites: tuple[str, ...], name: str) -> None:
    assert algorithm(tuple(SiteId(site) for site in sites)) == name


ACTIONS = (
    *("step", "step", "step", "lose", "fail", "unreachable", "repeat", "cancel", "recover"),
    *("resume", "resume"),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(ACTIONS), max_size=60))
def test_after_any_events_a_job_ends_or_waits_and_its_replay_is_identical(
    actions: list[str],
) -> None:
    world = World()
    for action in actions:
        if world.job.state.final and (action != "resume" or world.job.state not in RESUMED):
            continue
        _disturb(world, action)
    world.run()
    if world.job.state is JobState.WAITING:
        world.feed(Woke())
        world.run()
    assert world.job.state.final or world.job.state is JobState.WAITING
    stored = [(decode(encode(event), JobEvent), at_s) for event, at_s in world.facts]
    again = replay(stored)
    assert view(again, 0.0) == view(world.job, 0.0)
    assert again.outstanding == world.job.outstanding
    made = {visit.model for visit in world.job.made}
    assert len(made) == len(world.job.made)


def _disturb(world: World, action: str) -> None:
    starts = [c for c in world.pending if isinstance(c, StartWork)]
    if action == "cancel":
        world.feed(CancelRequested())
    elif action == "resume":
        if world.job.state.final:
            world.feed(ResumeAsked())
    elif action == "recover":
        world.pending.clear()
        world.feed(Recovered())
    elif action == "repeat" and world.started:
        world.feed(Reported(world.done(world.started[-1])))
    elif action in ("lose", "fail", "unreachable") and starts:
        start = starts[0]
        world.pending.remove(start)
        code = {"fail": "WorkFailed", "unreachable": "Unreachable"}.get(action)
        if code is None:
            world.feed(SiteLost(start.site))
        else:
            world.feed(Reported(failed(start, code)))
        if world.job.state is JobState.WAITING:
            world.feed(Woke())
    else:
        world.step()


ODD = (math.nan, math.inf, -math.inf, -1.0, 1e300, 2**64 - 1)


def with_fact(report: WorkOutcome, **changes: object) -> WorkOutcome:
    """The report with another fact."""
    assert report.entry is not None
    fact = msgspec.structs.replace(report.entry.fact, **changes)
    entry = msgspec.structs.replace(report.entry, fact=fact)
    return msgspec.structs.replace(report, entry=entry)


@pytest.mark.parametrize("kind", [is_training, is_verification])
def test_no_number_is_believed_that_cannot_be(kind: Callable[[Command], bool]) -> None:
    """Each number of each kind of fact: whatever is added later is bounded, too."""
    world = World()
    start = world.run_until(kind)
    assert isinstance(start, StartWork)
    given, honest = Outstanding(start.site, start.work), world.done(start)
    assert honest.entry is not None
    plain = msgspec.to_builtins(honest.entry.fact)
    names = {name for name, value in plain.items() if isinstance(value, int | float)}
    assert {"at_s", "seconds", "bytes_in"} < names
    assert {"loss", "examples", "size_bytes"} < names or {"value", "items"} < names
    for name in names:
        for number in ODD:
            assert world.wrong(given, with_fact(honest, **{name: number})), (name, number)


@pytest.mark.parametrize("value", [-0.5, 1.01, 3.0])
def test_a_metric_is_a_share(value: float) -> None:
    world = World()
    verify = world.run_until(is_verification)
    assert isinstance(verify, StartWork)
    given, honest = Outstanding(verify.site, verify.work), world.done(verify)
    for change in ({"value": value}, {"by_label": {"a": value}}, {"standard_error": value}):
        assert world.wrong(given, with_fact(honest, **change))


@pytest.mark.parametrize("days", [2, 300_000])
def test_a_fact_is_not_of_the_future(days: int) -> None:
    world = World()
    world.now_s = 1_800_000_000.0
    start = world.run_until(is_training)
    assert isinstance(start, StartWork)
    given, honest = Outstanding(start.site, start.work, world.now_s), world.done(start)
    assert not world.wrong(given, honest)
    dated = with_fact(honest, at_s=world.now_s + days * 86_400.0)
    assert "later day" in world.wrong(given, dated)


def test_a_model_is_of_the_size_that_its_entry_names() -> None:
    world = World()
    start = world.run_until(is_training)
    assert isinstance(start, StartWork)
    given, honest = Outstanding(start.site, start.work), world.done(start)
    assert honest.model is not None
    for change in ({"size_bytes": 2**62}, {"size_bytes": 2}, {"size_bytes": 0}):
        model = msgspec.structs.replace(honest.model, **change)
        assert world.wrong(given, msgspec.structs.replace(honest, model=model))


def test_a_fresh_model_is_of_the_ordered_recipe_and_seed() -> None:
    world = World()
    start = world.run_until(lambda command: isinstance(command, StartWork))
    assert isinstance(start, StartWork)
    given, honest = Outstanding(start.site, start.work), world.done(start)
    for change in ({"recipe": "other/1"}, {"seed": 99}):
        assert "another model" in world.wrong(given, with_fact(honest, **change))


def test_nothing_is_planned_with_times_longer_than_the_job_runs() -> None:
    world = World()
    for kind in (is_training, is_verification):
        start = world.run_until(kind)
        assert isinstance(start, StartWork)
        honest = world.done(start)
        assert honest.entry is not None
        fact = msgspec.structs.replace(honest.entry.fact, seconds=1e18, transfer_s=1e18)
        entry = msgspec.structs.replace(honest.entry, fact=fact)
        world.feed(Reported(msgspec.structs.replace(honest, entry=entry)))
    world.run()
    job = world.job
    ran_s = job.at_s - job.submitted_at_s
    assert job.verify_s is not None
    assert job.verify_s <= ran_s
    assert all(max(one.seconds, one.transfer_s, one.verify_s) <= ran_s for one in job.made)
