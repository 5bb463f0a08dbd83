"""What is said before an ended job is resumed: that it cannot, or what it has left."""

from __future__ import annotations

import msgspec
import pytest

from daitn.control.jobs.resuming import refusal
from daitn.control.jobs.view import view
from daitn.objects.decisions import Rejection
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Budget, PinnedVisit
from daitn.objects.jobs import CancelRequested, DeadlinePassed, JobState, Planned, ResumeAsked
from tests.control.jobs.world import DECISION, INTENT, World


def cancelled(**changes: object) -> World:
    world = World(msgspec.structs.replace(INTENT, **changes))
    world.visit_twice()
    world.feed(CancelRequested())
    world.run()
    return world


def limited(world: World, budget: Budget) -> None:
    world.job.intent = msgspec.structs.replace(world.job.intent, budget=budget)


def test_a_job_whose_time_is_up_is_not_resumed_and_what_to_do_is_said() -> None:
    world = World()
    world.visit_twice()
    world.now_s = 100.0 + 1000.0
    world.feed(DeadlinePassed())
    assert world.job.state is JobState.EXHAUSTED
    why = refusal(world.job)
    assert why is not None
    assert "has used up its budget.duration_s, 1000" in why.problem
    assert "state model.start: job:qa-1 and a larger budget.duration_s" in why.fix
    told = view(world.job, world.now_s).not_resumed
    assert told is not None
    assert (told.problem, told.fix) == (why.problem, why.fix), "a page can say so before"


def test_a_job_whose_examples_are_used_up_is_not_resumed() -> None:
    world = cancelled()
    used = world.job.spent_examples
    limited(world, Budget(examples=used))
    why = refusal(world.job)
    assert why is not None
    assert "budget.examples" in why.problem
    limited(world, Budget(examples=used + 1))
    assert refusal(world.job) is None


def test_where_money_is_used_up_there_may_be_data_that_is_free() -> None:
    world = cancelled()
    world.job.spent_usd = 2.0
    limited(world, Budget(cost_usd=2.0))
    assert refusal(world.job) is None
    world.feed(ResumeAsked())
    assert world.job.detail == "resumed, 0 of 2 left of budget.cost_usd"


def test_a_job_that_made_every_visit_of_its_route_is_not_resumed() -> None:
    visits = tuple(PinnedVisit(site=SiteId(site), examples=10) for site in "ab")
    made = cancelled(route=visits)
    why = refusal(made.job)
    assert why is not None
    assert "a longer route" in why.fix
    assert refusal(cancelled(route=(*visits, visits[0])).job) is None


def test_who_resumes_hears_what_is_left_and_what_to_raise() -> None:
    """A visit that no limit left room for has none after it is resumed, unless sites came."""
    world = World()
    world.visit_twice()
    short = Rejection(
        candidate="cyclic",
        filter="examples",
        reason="is too long",
        field="budget.examples",
        relax_to="900",
    )
    world.feed(CancelRequested())
    world.feed(ResumeAsked())
    world.run_until(lambda command: type(command).__name__ == "ComputeRoute")
    decision = msgspec.structs.replace(DECISION, rejections=(short,))
    world.feed(Planned(route=None, decision=decision))
    assert world.job.state is JobState.EXHAUSTED
    world.run()
    world.feed(ResumeAsked())
    told = world.job.detail
    assert "left of budget.duration_s" in told
    assert "if that is too little: state model.start: job:qa-1 and budget.examples of 900" in told


@pytest.mark.parametrize("state", [JobState.REACHED, JobState.INFEASIBLE])
def test_a_job_that_is_over_for_good_is_not_resumed(state: JobState) -> None:
    world = cancelled()
    world.job.state = state
    why = refusal(world.job)
    assert why is not None
    assert f"is {state}" in why.problem


def test_a_job_that_runs_is_told_nothing() -> None:
    world = World()
    world.visit_twice()
    assert view(world.job, world.now_s).not_resumed is None
