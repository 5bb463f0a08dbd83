"""MTRCE as a control centre uses it: routes, their limits, and what measurements change."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from daitn.control.jobs.view import algorithm
from daitn.control.route.engine import Mtrce
from daitn.control.route.question import PastVisit, RouteQuestion, RouteStart, Spent
from daitn.control.route.transfers import transfer_s
from daitn.objects.access import narrowed
from daitn.objects.decisions import Decision, Route
from daitn.objects.descriptors import ANY
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Budget, PinnedVisit, Preference
from daitn.objects.orders import MOST_EXAMPLES
from daitn.objects.readings import LinkReading, Reading
from daitn.objects.wire import decode, encode
from daitn.topology.snapshot import DataOption, MsDrrt

from .instances import instance
from .route_world import NOW_S, checkpoint, general, healthcare, intent, question, special, topology

GENERAL = {"cdc", "gard", "ghr", "mplus", "seniorhealth"}
ALL_LABELS = dict.fromkeys(("information", "treatment", "inheritance", "outlook", "research"), 400)


def plan(asked: RouteQuestion) -> tuple[Route | None, Decision]:
    return Mtrce().plan(asked)


def planned(asked: RouteQuestion) -> Route:
    route, _ = plan(asked)
    assert route is not None
    return route


def without(*sites: str) -> MsDrrt:
    return topology(option for option in healthcare() if option.site not in sites)


def visit(site: str, examples: int, before: dict[str, float], after: dict[str, float]) -> PastVisit:
    return PastVisit(
        option_id=f"{site}/pairs",
        examples=examples,
        seconds=examples / 100,
        before=before,
        after=after,
        standard_error=dict.fromkeys(after, 0.015),
    )


class TestHealthcare:
    """The paper's targets over nine institutes: broad 0.8 and expert 0.9."""

    asked = question(intent(broad=0.8, expert=0.9), topology(healthcare()))

    def test_the_route_joins_general_sites_and_the_specialist(self) -> None:
        route = planned(self.asked)
        sites = {stop.site for stop in route.visits}
        assert route.reaches
        assert route.chance >= 0.5
        assert "ninds" in sites
        assert sites & GENERAL

    def test_what_is_expected_grows_towards_the_targets(self) -> None:
        first, *_, last = planned(self.asked).visits
        assert 0.25 < first.expected["broad"] < last.expected["broad"] <= 1.0
        assert last.expected["expert"] > first.expected["expert"]

    def test_neither_the_general_sites_nor_the_specialist_suffice(self) -> None:
        assert not planned(replace(self.asked, topology=without("ninds"))).reaches
        alone = topology(option for option in healthcare() if option.site == "ninds")
        assert not planned(replace(self.asked, topology=alone)).reaches

    def test_a_site_that_failed_is_not_visited_again(self) -> None:
        route = planned(replace(self.asked, excluded=(SiteId("ninds"),)))
        assert "ninds" not in {stop.site for stop in route.visits}
        assert not route.reaches

    def test_the_decision_tells_routes_by_their_stops_and_terms(self) -> None:
        route, decision = plan(self.asked)
        assert route is not None
        stops = " > ".join(f"{stop.site}:{stop.examples}" for stop in route.visits)
        assert str(decision.chosen).startswith(stops)
        assert set(decision.ranking[0].terms) == {"utility", "reach", "time", "cost"}
        assert decision.ranking[0].terms["reach"] == pytest.approx(route.chance)
        assert (decision.snapshot_version, decision.at_s) == (7, NOW_S)

    def test_the_same_question_gives_the_same_decision_after_a_round_trip(self) -> None:
        first = plan(self.asked)
        read = replace(
            self.asked,
            intent=decode(encode(self.asked.intent), type(self.asked.intent)),
            checkpoints=tuple(decode(encode(c), RouteStart) for c in self.asked.checkpoints),
            topology=topology(
                decode(encode(option), DataOption) for option in reversed(healthcare())
            ),
        )
        assert encode(plan(read)) == encode(first)


def test_forgetting_brings_the_route_back_to_an_earlier_site() -> None:
    options = (
        general("clinic", {"information": 900, "treatment": 900, "inheritance": 900}),
        special("institute", "neurology", {"outlook": 500, "research": 500, "treatment": 500}),
    )
    fresh = {"broad": 0.25, "expert": 0.25}
    learned, faded = {"broad": 0.72, "expert": 0.45}, {"broad": 0.52, "expert": 0.72}
    visits = (visit("clinic", 8_000, fresh, learned), visit("institute", 8_000, learned, faded))
    latest = checkpoint(visits, "b", "institute")
    asked = question(
        intent(broad=0.7, expert=0.6), topology(options), checkpoints=(latest,), history=visits
    )
    route = planned(asked)
    assert route.visits[0].site == "clinic"
    assert algorithm((SiteId("clinic"), SiteId("institute"), route.visits[0].site)) == "cyclic"


def test_a_visit_that_spoiled_the_model_is_undone() -> None:
    fresh, good = {"broad": 0.25, "expert": 0.25}, {"broad": 0.78, "expert": 0.6}
    first = visit("ghr", 8_000, fresh, good)
    second = visit("nhlbi", 2_000, good, {"broad": 0.3, "expert": 0.3})
    best, latest = checkpoint((first,), "a", "ghr"), checkpoint((first, second), "b", "nhlbi")
    asked = question(
        intent(broad=0.8, expert=0.85),
        topology(healthcare()),
        checkpoints=(latest, best),
        history=(first, second),
    )
    route, decision = plan(asked)
    assert route is not None
    assert route.start == best.model
    assert str(decision.chosen).startswith("back to aaaaaaaa > ")
    assert decision.rejections == ()


def test_what_holds_or_cannot_be_measured_needs_no_visit() -> None:
    done = checkpoint((visit("ghr", 500, {"broad": 0.2}, {"broad": 0.9}),))
    held = question(intent(broad=0.8), topology(healthcare()), checkpoints=(done,))
    assert plan(held)[0] is None
    seen = topology(healthcare(), {"broad": ("medicine", {})})
    seen.verifiers.update({"expert": ()})  # type: ignore[dict-item]
    assert plan(question(intent(broad=0.8, expert=0.8), seen))[0] is None


def test_data_that_teaches_nothing_more_is_exhausted() -> None:
    values = [{"broad": 0.25}, *[{"broad": 0.6}] * 26]
    amounts = (16_000, 32_000, 64_000, *[64_000] * 23)
    visits = tuple(
        visit("mplus", n, before, after)
        for n, before, after in zip(amounts, values, values[1:], strict=False)
    )
    only = topology([general("mplus", {"information": 874})])
    latest = checkpoint(visits, at="mplus")
    asked = question(intent(broad=0.95), only, checkpoints=(latest,), history=visits)
    route, decision = plan(asked)
    assert route is None
    assert decision.chosen is None


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.integers(0, 100_000),
    st.integers(1, 9),
    st.floats(20.0, 2_000.0),
    st.floats(0.0, 20.0),
    st.integers(500, 50_000),
)
def test_no_route_exceeds_what_is_left_of_the_budget(
    seed: int, sites: int, duration_s: float, cost_usd: float, examples: int
) -> None:
    base = instance(seed, sites)
    budget = Budget(duration_s=duration_s, cost_usd=cost_usd, examples=examples)
    spent = Spent(duration_s=duration_s / 3, cost_usd=cost_usd / 4, examples=examples // 5)
    asked = replace(base, intent=msgspec.structs.replace(base.intent, budget=budget), spent=spent)
    route, decision = plan(asked)
    for rejection in decision.rejections:
        assert rejection.filter in ("duration", "cost", "examples")
        assert rejection.shortfall > 0
    if route is None:
        return
    slack = 1 + 1e-9
    assert sum(stop.examples for stop in route.visits) <= examples - spent.examples
    assert sum(s.expected_s for s in route.visits) <= (duration_s - spent.duration_s) * slack
    cost = sum(stop.expected_cost_usd for stop in route.visits)
    assert cost <= (cost_usd - spent.cost_usd) * slack + 1e-9


def test_a_budget_too_small_says_by_how_much() -> None:
    """Also where a visit fits that may not lead anywhere."""
    options = tuple(o for o in healthcare() if o.site in ("cdc", "nhlbi"))
    for duration_s, fits in ((5.0, False), (13.5, True)):
        small = intent(budget=Budget(duration_s=duration_s), broad=0.8, expert=0.9)
        route, decision = plan(question(small, topology(options)))
        assert (route is not None) == fits
        assert route is None or route.chance == 0.0
        assert decision.rejections
        for rejection in decision.rejections:
            assert rejection.field == "budget.duration_s"
            assert rejection.shortfall > 0.0
            relaxed = float(rejection.relax_to)
            assert relaxed == pytest.approx(duration_s + rejection.shortfall, abs=1.0)


class TestRelease:
    """Where a model may go that learned from data with release rules."""

    kept = special("kept", "neurology", ALL_LABELS, place="FR", release_to=("FR",))
    free = general("free", ALL_LABELS, place="US")

    def test_data_whose_models_may_not_reach_a_verifier_is_not_used(self) -> None:
        seen = topology([self.kept, self.free], verifier_place="US")
        route = planned(question(intent(broad=0.8, expert=0.9), seen))
        assert {stop.site for stop in route.visits} == {"free"}
        alone, decision = plan(question(intent(broad=0.5), topology([self.kept])))
        assert alone is None
        assert {rejection.filter for rejection in decision.rejections} == {"release"}
        assert "released to FR" in decision.rejections[0].reason

    def test_restricted_data_comes_last(self) -> None:
        seen = topology([self.kept, self.free], verifier_place="FR")
        route = planned(question(intent(broad=0.85, expert=0.9), seen))
        sites = [stop.site for stop in route.visits]
        assert set(sites) == {"free", "kept"}
        assert sites == sorted(sites)

    def test_a_model_that_learned_there_stays_there(self) -> None:
        start = {"broad": 0.4, "expert": 0.5}
        made = visit("kept", 500, {"broad": 0.25, "expert": 0.25}, start)
        bound = msgspec.structs.replace(checkpoint((made,), at="kept"), release_to=("FR",))
        seen = topology([self.kept, self.free], verifier_place="FR")
        asked = question(intent(broad=0.9), seen, checkpoints=(bound,), history=(made,))
        route, _ = plan(asked)
        assert route is not None
        assert {stop.site for stop in route.visits} == {"kept"}

    def test_rules_add_up(self) -> None:
        assert narrowed((ANY,), ("FR", "US")) == ("FR", "US")
        assert narrowed(("FR", "US"), ("DE", "FR")) == ("FR",)
        assert narrowed(("FR",), (ANY,)) == ("FR",)
        assert narrowed(("FR",), ("US",)) == ()


class TestWhatDecidesBetweenLikeSites:
    """Two sites with the same data, one of them better in one respect."""

    def first_site(self, **other: object) -> str:
        pair = (general("plain", ALL_LABELS), general("special", ALL_LABELS, **other))
        return planned(question(intent(broad=0.7), topology(pair))).visits[0].site

    def test_a_faster_site(self) -> None:
        assert self.first_site(speed=4e11) == "special"
        assert self.first_site(speed=2e10) == "plain"

    def test_a_queue(self) -> None:
        assert self.first_site(queue=3) == "plain"

    def test_a_price(self) -> None:
        assert self.first_site(price=5.0) == "plain"

    def test_where_the_model_is(self) -> None:
        pair = (general("a", ALL_LABELS), general("b", ALL_LABELS))
        for here in ("a", "b"):
            made = visit(here, 500, {"broad": 0.25}, {"broad": 0.35})
            asked = question(
                intent(broad=0.6),
                topology(pair, throughput_bps=1e5),
                checkpoints=(checkpoint((made,), at=here),),
                history=(made,),
            )
            assert planned(asked).visits[0].site == here


def test_a_preference_turns_a_fast_route_into_a_cheap_one() -> None:
    options = (
        general("fast", ALL_LABELS, speed=4e11, price=2.0),
        general("cheap", ALL_LABELS, speed=5e10),
    )

    def choice(*preferences: Preference) -> str:
        wanted = msgspec.structs.replace(intent(broad=0.7), preferences=preferences)
        return planned(question(wanted, topology(options))).visits[0].site

    assert choice(Preference(scorer="cost", weight=0.0)) == "fast"
    assert choice(Preference(scorer="cost", weight=20.0)) == "cheap"
    with pytest.raises(InvalidInput, match="beauty"):
        choice(Preference(scorer="beauty", weight=1.0))


def test_transfer_takes_the_best_holder_and_distrusts_old_readings() -> None:
    seen = topology([general("a", ALL_LABELS), general("b", ALL_LABELS)]).snapshot
    a, b, judge = SiteId("a"), SiteId("b"), SiteId("judge")
    fresh = transfer_s(seen, (a,), judge, 10_000_000, NOW_S)
    assert fresh == pytest.approx(1.02)
    assert transfer_s(seen, (judge, a), judge, 10_000_000, NOW_S) == 0.0
    assert transfer_s(seen, (a,), judge, 10_000_000, NOW_S + 600) == pytest.approx(1.5 * fresh)
    assert transfer_s(seen, (a,), judge, 10_000_000, NOW_S + 1e6) == pytest.approx(2 * fresh)
    fast = LinkReading(source=judge, target=b, throughput_bps=Reading(1e8, NOW_S, judge))
    faster = replace(seen, links=seen.links.set(judge, Map({b: fast})))
    assert transfer_s(faster, (a, b), judge, 10_000_000, NOW_S) == pytest.approx(0.12)
    unmeasured = replace(seen, links=Map())
    assert transfer_s(unmeasured, (a,), judge, 10_000_000, NOW_S) > 2.0


def test_a_site_far_from_the_verifiers_is_not_preferred_for_its_size() -> None:
    """Every visit ends with the model's way to whoever measures it."""
    large = general("far", ALL_LABELS)
    small = general("near", dict.fromkeys(ALL_LABELS, 300))
    seen = topology([large, small])
    far, judge = SiteId("far"), SiteId("judge")
    assert planned(question(intent(broad=0.8), seen)).visits[0].site == far
    slow = LinkReading(source=far, target=judge, throughput_bps=Reading(1e4, NOW_S, far))
    links = seen.snapshot.links
    for source, target in ((far, judge), (judge, far)):
        links = links.set(source, links[source].set(target, slow))
    behind = replace(seen, snapshot=replace(seen.snapshot, links=links))
    route = planned(question(intent(broad=0.8), behind))
    assert {stop.site for stop in route.visits} == {"near"}


class TestPinnedRoute:
    """A route that the owner states is followed, whatever is expected of it."""

    def asked(self, made: int) -> RouteQuestion:
        stops = tuple(PinnedVisit(site=SiteId(s), examples=700) for s in ("cdc", "ninds", "cdc"))
        wanted = msgspec.structs.replace(intent(broad=0.8), route=stops)
        values = {"broad": 0.3}
        visits = tuple(visit(stop.site, 700, values, values) for stop in stops[:made])
        starts = {"checkpoints": (checkpoint(visits, at="cdc"),)} if made else {}
        return question(wanted, topology(healthcare()), **starts)

    @pytest.mark.parametrize(("made", "left"), [(0, "cdc ninds cdc"), (1, "ninds cdc"), (2, "cdc")])
    def test_what_is_left_is_planned(self, made: int, left: str) -> None:
        route = planned(self.asked(made))
        assert [stop.site for stop in route.visits] == left.split()
        assert {stop.examples for stop in route.visits} == {700}

    def test_after_its_end_there_is_nothing(self) -> None:
        assert plan(self.asked(3))[0] is None

    def test_a_site_that_is_gone_leaves_no_route(self) -> None:
        assert plan(replace(self.asked(1), topology=without("ninds")))[0] is None


def test_a_thousand_data_sets_are_planned_over() -> None:
    many = [general(f"g{k:03}", {"information": 50 + k, "symptoms": 40}) for k in range(999)]
    asked = question(
        intent(broad=0.8, expert=0.9),
        topology([*many, *healthcare()[2:4], healthcare()[7]]),
    )
    route = planned(asked)
    assert route.chance > 0.0
    assert "ninds" in {stop.site for stop in route.visits}


def test_where_every_site_failed_there_is_no_route() -> None:
    sites = tuple(option.site for option in healthcare())
    asked = question(intent(broad=0.5), topology(healthcare()), excluded=sites)
    route, decision = plan(asked)
    assert route is None
    assert decision.chosen is None


def test_a_site_that_cannot_fetch_the_model_is_not_sent_to() -> None:
    made = visit("cdc", 500, {"broad": 0.25}, {"broad": 0.4})
    only = topology(o for o in healthcare() if o.site in ("cdc", "ghr"))
    asked = question(
        intent(broad=0.7), only, checkpoints=(checkpoint((made,), at="cdc"),), history=(made,)
    )
    assert "ghr" in {s.site for s in planned(asked).visits}
    holders = (SiteId("cdc"), SiteId("judge"))
    cut_off = frozenset((SiteId("ghr"), holder) for holder in holders)
    assert {s.site for s in planned(replace(asked, cut_off=cut_off)).visits} == {"cdc"}


class TestCapsDecideNothing:
    """What a search depth, a shortlist or a limit of time once made infeasible is found."""

    def test_twelve_sites_of_one_label_each(self) -> None:
        labels = [f"label{k}" for k in range(12)]
        options = [general(f"s{k:02}", {label: 500}) for k, label in enumerate(labels)]
        seen = topology(options, {"broad": ("medicine", dict.fromkeys(labels, 40))})
        route = planned(question(intent(broad=0.8), seen))
        assert route.chance > 0.0

    def test_three_free_sites_among_forty_that_cost(self) -> None:
        paid = [general(f"p{k:02}", ALL_LABELS, price=50.0) for k in range(40)]
        free = [general(f"f{k}", {"information": 400, "treatment": 400}) for k in range(3)]
        seen = topology([*paid, *free], {"broad": ("medicine", {"information": 1, "treatment": 1})})
        poor = intent(budget=Budget(cost_usd=0.5), broad=0.8)
        route = planned(question(poor, seen))
        assert {stop.site[0] for stop in route.visits} == {"f"}
        assert route.reaches

    def test_a_limit_keeps_the_route_that_is_found_without_it(self) -> None:
        for seed in range(8):
            base = instance(seed, 4)
            free, _ = plan(base)
            if free is None or not free.reaches:
                continue
            taken_s = 1.01 * sum(stop.expected_s for stop in free.visits)
            limited = intent_within(base, Budget(duration_s=taken_s))
            route, _ = plan(limited)
            assert route is not None
            assert route.chance > 0.0


def intent_within(base: RouteQuestion, budget: Budget) -> RouteQuestion:
    return replace(base, intent=msgspec.structs.replace(base.intent, budget=budget))


more_of = st.sampled_from((1.0, 1.1, 2.0, 10.0, None))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.integers(0, 100_000),
    st.integers(1, 6),
    st.floats(11.0, 300.0),
    st.none() | st.floats(0.0, 3.0),
    st.none() | st.integers(50, 20_000),
    st.tuples(more_of, more_of, more_of),
)
def test_more_budget_never_makes_infeasible_what_was_feasible(
    seed: int,
    sites: int,
    duration_s: float,
    cost_usd: float | None,
    examples: int | None,
    times: tuple[float | None, float | None, float | None],
) -> None:
    base = instance(seed, sites)
    small = Budget(duration_s=duration_s, cost_usd=cost_usd, examples=examples)
    route, _ = plan(intent_within(base, small))
    if route is None or route.chance == 0.0:
        return
    given = (duration_s, cost_usd, examples)
    seconds, usd, most = (
        None if value is None or more is None else value * more
        for value, more in zip(given, times, strict=True)
    )
    larger = Budget(duration_s=seconds, cost_usd=usd, examples=None if most is None else int(most))
    eased, _ = plan(intent_within(base, larger))
    assert eased is not None
    assert eased.chance > 0.0


def test_the_chance_grows_with_the_budget() -> None:
    """On the whole: of one job, a route that is better for its owner may be a little less sure."""
    chances = []
    for seed in range(16):
        base = instance(seed, 1 + seed % 4)
        budgets = (Budget(duration_s=60.0 * times) for times in (0.5, 1.0, 2.0, 5.0))
        routes = [plan(intent_within(base, budget))[0] for budget in (*budgets, Budget())]
        chances.append([route.chance if route else 0.0 for route in routes])
    means = [sum(column) / len(column) for column in zip(*chances, strict=True)]
    assert means == sorted(means)
    assert means[-1] > 2 * means[0]


def test_no_route_exceeds_what_any_order_allows() -> None:
    """Sites refuse more, and would be left out of the job for it."""
    left = 900
    asked = question(
        intent(broad=0.8),
        topology(healthcare()),
        spent=Spent(examples=MOST_EXAMPLES - left),
    )
    assert sum(stop.examples for stop in planned(asked).visits) <= left
