"""Playing plans out is following them visit by visit; what is not allowed is not made."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.route.engine import Mtrce
from daitn.control.route.obvious_plans import obvious_plans
from daitn.control.route.question import RouteQuestion, Spent
from daitn.control.route.rollout import HORIZON, Plan, PlayedBefore, expected, play
from daitn.control.route.task import RouteTask, route_task
from daitn.control.route.value_model import anchored, values
from daitn.objects.descriptors import ANY
from daitn.objects.intents import Budget

from .instances import instance
from .plain_value_model import followed
from .route_world import checkpoint, general, intent, question, special, topology
from .test_route_posterior import history

WEIGHTS = Mtrce().weights
LABELS = {"information": 300, "treatment": 200}


def asked(seed: int, sites: int, budget: Budget | None = None) -> RouteTask:
    """The task of a random question, of a fresh model or of one that was at its first site."""
    base = instance(seed, sites)
    if budget is not None:
        base = replace(base, intent=msgspec.structs.replace(base.intent, budget=budget))
    return route_task(begun(base) if seed % 2 else base, WEIGHTS)


def begun(base: RouteQuestion) -> RouteQuestion:
    site = base.topology.options[0].site
    visits = tuple(history((site, 400, 0.45, 0.3), (site, 900, 0.5, 0.36)))
    starts = (checkpoint(visits, "a", site), checkpoint(visits[:1], "b", site))
    spent = Spent(duration_s=13.0, examples=1_300)
    return replace(base, checkpoints=starts, history=visits, spent=spent)


def plans_of(seed: int, given: RouteTask) -> list[Plan]:
    rng = random.Random(seed)
    count = len(given.known.options)
    return [
        Plan(
            rng.randrange(len(given.starts)),
            tuple(
                (rng.randrange(count), rng.choice((32, 200, 1_500, 9_000)))
                for _ in range(rng.randint(0, 6))
            ),
        )
        for _ in range(5)
    ]


budgets = st.builds(
    Budget,
    duration_s=st.none() | st.floats(20.0, 500.0),
    cost_usd=st.none() | st.floats(0.0, 3.0),
    examples=st.none() | st.integers(1_400, 20_000),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 100_000), st.integers(1, 6), budgets)
def test_playing_plans_is_following_each_visit_by_visit(
    seed: int, sites: int, budget: Budget
) -> None:
    given = asked(seed, sites, budget)
    plans = plans_of(seed, given)
    outcome = play(given, plans)
    for row in (0, 1, 17, len(given.draws) - 1):
        for k, plan in enumerate(plans):
            end = followed(given, plan, row)
            assert outcome.visits[k, row] == end.visits
            assert outcome.missing[k, row] == pytest.approx(end.missing, abs=1e-5)
            assert outcome.seconds[k, row] == pytest.approx(end.seconds)
            assert outcome.cost_usd[k, row] == pytest.approx(end.cost_usd)
            assert outcome.examples[k, row] == pytest.approx(end.examples)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 100_000), st.integers(1, 6))
def test_plans_do_not_change_each_other(seed: int, sites: int) -> None:
    given = asked(seed, sites)
    plans = plans_of(seed, given)
    together = play(given, plans)
    few = np.arange(3, 9)
    for k, plan in enumerate(plans):
        alone = play(given, (plan,))
        np.testing.assert_array_equal(alone.visits[0], together.visits[k])
        assert alone.effort[0] == pytest.approx(together.effort[k], rel=1e-9)
        np.testing.assert_array_equal(play(given, (plan,), few).visits[0], alone.visits[0, few])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 100_000), st.integers(1, 6), st.floats(0.5, 2.0))
def test_reused_rollouts_and_abandoned_plans_leave_other_results_unchanged(
    seed: int, sites: int, share: float
) -> None:
    given = asked(seed, sites)
    plans = plans_of(seed, given)
    whole, few = play(given, plans), np.r_[0:12, len(given.draws) - 1]
    earlier = PlayedBefore(few, play(given, plans, few))
    np.testing.assert_allclose(earlier.outcomes.effort, whole.effort_under(given, few))
    enough = share * float(np.median(whole.effort))
    for found in (
        play(given, plans, enough=enough),
        play(given, plans, None, enough, earlier),
    ):
        kept = whole.effort <= enough
        assert (found.effort[~kept] > enough).all()
        np.testing.assert_allclose(found.effort[kept], whole.effort[kept])
        np.testing.assert_array_equal(found.visits[kept], whole.visits[kept])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 100_000), st.integers(1, 6))
def test_a_plan_that_goes_on_reaches_no_later(seed: int, sites: int) -> None:
    """It ends where targets hold; what comes after is for the draws in which they do not."""
    given = asked(seed, sites)
    for plan in plans_of(seed, given):
        longer = replace(plan, stops=(*plan.stops, (0, 500)))
        short, long = play(given, (plan, longer)).visits
        assert (long[short > 0] == short[short > 0]).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 100_000), st.integers(1, 6))
def test_what_is_expected_of_a_plan_is_the_mean_over_the_draws(seed: int, sites: int) -> None:
    given = asked(seed, sites)
    plan = next(iter(obvious_plans(given)))
    told = expected(given, (plan,), (3,))[0]
    start = given.starts[plan.start]
    model = start.model
    for depth, (site, examples) in enumerate(plan.stops[:3]):
        model = model.after(given.known, given.draws, site, float(examples))
        whole = (values(given.known, given.draws, model.skills) * given.known.shares).sum(axis=2)
        each = anchored(whole, start.believed, start.off)
        usual = np.average(each, 0, given.weight)
        np.testing.assert_allclose(told.values[depth], usual, rtol=1e-5)
    alone = play(
        replace(given, targets=given.targets + 1.0), (replace(plan, stops=plan.stops[:3]),)
    )
    assert told.seconds.sum() == pytest.approx(alone.seconds[0, 0])
    assert told.cost_usd.sum() == pytest.approx(alone.cost_usd[0, 0])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 100_000), st.integers(1, 8), budgets)
def test_obvious_ways_visit_open_options_with_some_examples(
    seed: int, sites: int, budget: Budget
) -> None:
    given = asked(seed, sites, budget)
    shut = replace(given, open=np.arange(sites) != 0)
    for plan in obvious_plans(shut):
        assert len(plan.stops) <= HORIZON
        for option, examples in plan.stops:
            assert option != 0
            assert examples > 0


class TestRules:
    """Which visits of a plan are allowed."""

    def allowed(
        self, *stops: int, release_to: tuple[str, ...] = (ANY,), verifier: str = "US"
    ) -> int:
        """Of visits to `here` (0, US, free) and `kept` (1, FR, released to FR alone)."""
        options = (
            general("here", LABELS),
            special("kept", "neurology", LABELS, place="FR", release_to=("FR",)),
        )
        asked = question(intent(broad=0.99), topology(options, verifier_place=verifier))
        start = msgspec.structs.replace(asked.checkpoints[0], release_to=release_to)
        given = route_task(replace(asked, checkpoints=(start,)), WEIGHTS)
        plan = Plan(0, tuple((k, 100) for k in stops))
        return int(play(given, (plan,)).allowed[0])

    def test_what_is_released_anywhere_may_go_anywhere(self) -> None:
        assert self.allowed(0, 0, 0) == 3

    def test_what_may_not_reach_a_verifier_is_not_learned(self) -> None:
        assert self.allowed(0, 1, 0) == 1

    def test_what_was_learned_from_kept_data_stays(self) -> None:
        assert self.allowed(0, 1, 1, 0, verifier="FR") == 3

    def test_a_checkpoint_that_is_bound_stays(self) -> None:
        assert self.allowed(0, release_to=("FR",), verifier="FR") == 0
        assert self.allowed(1, release_to=("FR",), verifier="FR") == 1


def test_an_effort_falls_with_the_chance_and_rises_with_time_and_money() -> None:
    seconds, usd = np.array([10.0, 20.0]), np.array([1.0, 0.5])
    given = asked(0, 3, Budget(duration_s=100.0, cost_usd=10.0))
    assert np.diff(given.effort(seconds, 0.0 * usd))[0] > 0
    assert np.diff(given.effort(0.0 * seconds, usd))[0] < 0
    reached, missed = _efforts(given, [0.0, 1.0])
    assert reached < missed


def _efforts(given: RouteTask, targets: Sequence[float]) -> list[float]:
    plan = Plan(0, ((0, 500),))
    wanted = [replace(given, targets=np.full(2, target + 1e-9)) for target in targets]
    return [float(play(one, (plan,)).effort[0]) for one in wanted]
