"""T-FAM: yes, or no with reasons and the smallest single changes that would make it yes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.feasibility import assess
from daitn.control.route.engine import Mtrce
from daitn.control.route.question import Believed
from daitn.objects.decisions import Assessment, Rejection, Relaxation
from daitn.objects.descriptors import DataPolicy, NodeDescriptor, VerifierDescriptor
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.intents import (
    Budget,
    DataWanted,
    PinnedVisit,
    Quantity,
    Requirement,
    TrainingIntent,
)
from daitn.objects.quorum import Quorum
from daitn.topology.relaxation import as_value, relaxed
from daitn.topology.relevance import relevant_to
from daitn.topology.snapshot import DataOption, Drrt, MsDrrt, SiteState
from tests.topology.medicine import needs

from .instances import instance
from .route_world import MEDICINE, NOW_S, general, healthcare, intent, question, topology

Cut = Callable[[TrainingIntent], MsDrrt]


def network(options: Iterable[DataOption], judges: bool = True) -> Drrt:
    """A snapshot with whole descriptors, so that intents can be cut out of it for real."""
    by_site = {option.site: option for option in options}
    seen = topology(by_site.values())
    tests = tuple(found[0].test for found in seen.verifiers.values())
    recipes = ("causal-lm",)

    def described(site: SiteId, node: NodeDescriptor) -> NodeDescriptor:
        if site in by_site:
            option = by_site[site]
            return msgspec.structs.replace(node, datasets=(option.dataset,), compute=option.compute)
        verifier = VerifierDescriptor(tests=tests, recipes=recipes) if judges else None
        return msgspec.structs.replace(node, verifier=verifier)

    sites = seen.snapshot.sites
    for site, state in seen.snapshot.sites.items():
        node = described(site, state.descriptor)
        sites = sites.set(site, SiteState(descriptor=node, alive=True, changed_at_s=NOW_S))
    return replace(seen.snapshot, sites=sites)


def judged_by(owners: Sequence[str]) -> Drrt:
    """With a verifier of each of these owners: `judge-0` and so on."""
    seen = network(healthcare())
    judge = seen.sites[SiteId("judge")].descriptor
    sites = seen.sites.delete(SiteId("judge"))
    for number, owner in enumerate(owners):
        site = SiteId(f"judge-{number}")
        node = msgspec.structs.replace(judge, site=site, owner=OwnerId(owner))
        sites = sites.set(site, SiteState(descriptor=node, alive=True, changed_at_s=NOW_S))
    return replace(seen, sites=sites)


def cutting(snapshot: Drrt, labels: tuple[str, ...] = ()) -> Cut:
    return lambda asked: relevant_to(snapshot, asked, needs(1 << 20, labels), now_s=NOW_S)


def assessed(asked: TrainingIntent, cut: Cut) -> Assessment:
    return assess(question(asked, cut(asked)), cut)


def changed(asked: TrainingIntent, field: str, value: str) -> TrainingIntent:
    change = Rejection(candidate="", filter="", reason="", field=field, relax_to=value)
    return relaxed(asked, change)


def the(assessment: Assessment, field: str) -> Relaxation:
    return next(found for found in assessment.relaxations if found.field == field)


HEALTHCARE = cutting(network(healthcare()))
HEART_ALONE = cutting(network(o for o in healthcare() if o.site == "nhlbi"))
WANTED = intent(broad=0.8, expert=0.9)
MODEST = intent(broad=0.6, expert=0.5)


def test_what_the_network_can_do_is_feasible_with_its_route() -> None:
    said = assessed(MODEST, HEALTHCARE)
    assert said.feasible
    assert (said.reasons, said.relaxations) == ((), ())
    assert said.route is not None
    assert said.route.reaches


def test_what_is_less_than_sure_is_feasible_with_its_chance() -> None:
    said = assessed(WANTED, HEALTHCARE)
    assert said.feasible
    assert said.relaxations == ()
    assert said.route is not None
    assert said.route.chance < 0.8
    assert f"a chance of about {said.route.chance:.0%}" in said.reasons[0]


def test_a_target_beyond_all_data_is_lowered_to_what_is_reachable() -> None:
    said = assessed(WANTED, HEART_ALONE)
    assert not said.feasible
    assert said.reasons[0].startswith("objective expert: at most 0.")
    assert [found.field for found in said.relaxations] == ["objectives[1].at_least"]
    proposed = float(said.relaxations[0].proposed)
    assert 0.5 < proposed < 0.9
    lowered = changed(WANTED, "objectives[1].at_least", said.relaxations[0].proposed)
    assert assessed(lowered, HEART_ALONE).feasible
    above = changed(WANTED, "objectives[1].at_least", as_value(round(proposed + 0.01, 2)))
    assert not assessed(above, HEART_ALONE).feasible


@pytest.mark.parametrize(
    ("budget", "field", "step"),
    [
        (Budget(duration_s=5.0), "duration_s", 0.04),
        (Budget(examples=20), "examples", 0.04),
    ],
)
def test_a_budget_is_raised_to_the_least_that_suffices(
    budget: Budget, field: str, step: float
) -> None:
    asked = intent(budget=budget, broad=0.8, expert=0.9)
    said = assessed(asked, HEALTHCARE)
    assert not said.feasible
    path = f"budget.{field}"
    raised = the(said, path)
    assert assessed(changed(asked, path, raised.proposed), HEALTHCARE).feasible
    less = as_value(int(float(raised.proposed) * (1.0 - step)))
    assert not assessed(changed(asked, path, less), HEALTHCARE).feasible


class TestShortDeadline:
    """Only what certainly takes too long is refused; how long things take is learned."""

    ASKED = intent(budget=Budget(duration_s=6.0), broad=0.5)

    def judged(self, asked: TrainingIntent, **taught: Believed) -> Assessment:
        """As by a control centre whose earlier jobs taught this; the job measured nothing yet."""
        fresh = question(asked, HEALTHCARE(asked), verify_s=None, experience=taught)
        return assess(fresh, HEALTHCARE)

    def test_a_deadline_that_may_suffice_is_not_refused(self) -> None:
        said = self.judged(self.ASKED)
        assert said.feasible
        assert said.route is not None
        assert sum(visit.expected_s for visit in said.route.visits) <= 6.0

    def test_a_deadline_in_which_nothing_can_be_trained_is_refused(self) -> None:
        at_once = intent(budget=Budget(duration_s=0.02), broad=0.5)
        said = self.judged(at_once)
        assert not said.feasible
        assert not said.could_begin
        assert "budget.duration_s" in {found.field for found in said.relaxations}

    def test_where_jobs_measured_for_a_minute_it_is_refused(self) -> None:
        said = self.judged(self.ASKED, measuring=Believed(math.log(60.0), 0.2))
        assert not said.feasible
        assert "s of the job's 6" in said.reasons[0]

    def test_where_jobs_measured_quickly_its_chance_is_better(self) -> None:
        quick = {
            "measuring": Believed(math.log(0.2), 0.3),
            "overhead": Believed(math.log(0.2), 0.3),
        }
        unknown, known = self.judged(self.ASKED), self.judged(self.ASKED, **quick)
        assert unknown.route is not None
        assert known.route is not None
        assert known.route.chance >= unknown.route.chance
        assert known.route.chance > 0.5


def test_a_change_after_which_it_is_far_from_sure_says_so() -> None:
    asked = intent(budget=Budget(examples=20), broad=0.8, expert=0.9)
    assert the(assessed(asked, HEALTHCARE), "budget.examples").effect.endswith(
        "may reach every target"
    )


def test_a_requirement_is_relaxed_to_the_value_that_just_suffices() -> None:
    asked = msgspec.structs.replace(
        intent(broad=0.8, expert=0.95),
        requirements=(Requirement(quantity=Quantity.SAMPLES, at_least=2_000),),
    )
    said = assessed(asked, HEALTHCARE)
    assert not said.feasible
    relaxation = the(said, "requirements[0].at_least")
    ninds = next(o for o in healthcare() if o.site == "ninds").dataset.samples
    assert ninds - 10 <= float(relaxation.proposed) <= ninds
    assert relaxation.current == "2000"
    assert "ninds" in relaxation.effect
    assert assessed(changed(asked, relaxation.field, relaxation.proposed), HEALTHCARE).feasible
    higher = changed(asked, relaxation.field, as_value(ninds + 1))
    assert not assessed(higher, HEALTHCARE).feasible


def test_a_requirement_on_names_admits_the_one_that_is_needed() -> None:
    sites = ("cdc", "mplus", "nhlbi", "ninds")
    cut = cutting(network(o for o in healthcare() if o.site in sites))
    asked = msgspec.structs.replace(
        intent(broad=0.6, expert=0.99),
        requirements=(Requirement(quantity=Quantity.SITE, one_of=("mplus", "nhlbi")),),
    )
    said = assessed(asked, cut)
    assert not said.feasible
    relaxation = the(said, "requirements[0].one_of")
    admitted = set(msgspec.json.decode(relaxation.proposed)) - {"mplus", "nhlbi"}
    assert admitted == {"ninds"}


def test_a_topic_is_added() -> None:
    asked = msgspec.structs.replace(
        intent(broad=0.6, expert=0.9), data=DataWanted(topics=("medicine/cardiology",))
    )
    said = assessed(asked, HEALTHCARE)
    assert not said.feasible
    relaxation = the(said, "data.topics")
    assert assessed(changed(asked, "data.topics", relaxation.proposed), HEALTHCARE).feasible


def test_no_data_at_all_says_which_filter_keeps_it_out() -> None:
    asked = msgspec.structs.replace(
        WANTED,
        data=DataWanted(topics=("law",)),
        requirements=(Requirement(quantity=Quantity.QUALITY, at_least=0.5),),
    )
    said = assessed(asked, HEALTHCARE)
    assert not said.feasible
    assert said.route is None
    assert len(said.reasons) == 1
    assert "none of the 9 data sets passes data.topics" in said.reasons[0]


def test_an_objective_that_nobody_measures_is_told() -> None:
    said = assessed(WANTED, cutting(network(healthcare(), judges=False)))
    assert not said.feasible
    assert said.reasons == (
        "no verifier can measure objective broad (test set on medicine)",
        "no verifier can measure objective expert (test set on medicine/neurology)",
    )


def test_a_quorum_of_one_owners_verifiers_is_none() -> None:
    asked = msgspec.structs.replace(MODEST, verification=Quorum(quorum=2, of=3))
    for owners, feasible in ((("board", "board"), False), (("board", "clinic"), True)):
        said = assessed(asked, cutting(judged_by(owners)))
        assert said.feasible is feasible, said.reasons
        if not feasible:
            assert "judge-0, judge-1, all of the owner board" in said.reasons[0]
            assert "another owner's verifier" in said.reasons[0]
            assert the(said, "verification").proposed == '{"quorum":1,"of":1}'


def test_a_quorum_that_too_few_can_make_up_is_lowered_to_those_who_can() -> None:
    asked = msgspec.structs.replace(MODEST, verification=Quorum(quorum=2, of=3))
    said = assessed(asked, HEALTHCARE)
    assert not said.feasible
    assert said.reasons[0].startswith("fewer than 2 verifiers (verification.quorum) can measure")
    assert said.reasons[0].endswith("alone")
    proposed = the(said, "verification").proposed
    assert proposed == '{"quorum":1,"of":1}'
    assert assessed(changed(asked, "verification", proposed), HEALTHCARE).feasible


def test_two_budgets_that_are_both_too_small_have_no_single_change() -> None:
    asked = intent(budget=Budget(duration_s=5.0, examples=20), broad=0.8, expert=0.9)
    said = assessed(asked, HEALTHCARE)
    assert len(said.reasons) == 2
    assert said.reasons[0].endswith("s of the job's 5")
    assert said.reasons[1].endswith("examples of the job's 20")
    assert not [found for found in said.relaxations if found.field.startswith("budget")]


class TestStatedRoute:
    def asked(self, *sites: str, budget: Budget | None = None) -> TrainingIntent:
        stops = tuple(PinnedVisit(site=SiteId(site), examples=1_000) for site in sites)
        return msgspec.structs.replace(WANTED, route=stops, budget=budget or Budget())

    def test_it_is_feasible_while_it_may_reach(self) -> None:
        said = assessed(self.asked("cdc", "ninds"), HEALTHCARE)
        assert said.feasible
        assert said.route is not None
        assert said.route.chance >= 0.01

    def test_one_that_never_reaches_is_not_feasible_and_may_be_insisted_on(self) -> None:
        hopeless = msgspec.structs.replace(
            intent(broad=0.99), route=(PinnedVisit(site=SiteId("cdc"), examples=40),)
        )
        said = assessed(hopeless, HEALTHCARE)
        assert not said.feasible
        assert said.could_begin
        assert said.route is not None
        assert not said.route.reaches
        assert said.reasons[0].startswith(
            "the stated route reaches the targets with a chance below 1%: broad 0."
        )

    def test_lessons_alone_do_not_refuse_it(self) -> None:
        """A few jobs that learned slowly are no proof that the next one does."""
        asked = self.asked("cdc", "ninds")
        slow = {"tau": Believed(9.0, 0.1), "ceiling": Believed(-1.0, 0.1)}
        taught = replace(question(asked, HEALTHCARE(asked)), experience=slow)
        assert Mtrce().plan(taught)[0].chance == 0.0  # type: ignore[union-attr]
        assert assess(taught, HEALTHCARE).feasible

    def test_one_that_is_too_long_may_be_insisted_on_as_far_as_it_goes(self) -> None:
        asked = self.asked("cdc", "ninds", budget=Budget(examples=1_500))
        assert assessed(asked, HEALTHCARE).could_begin
        whole = question(asked, HEALTHCARE(asked))
        assert Mtrce().plan(whole)[0] is None
        begun, _ = Mtrce().plan(replace(whole, insisted=True))
        assert begun is not None
        assert [stop.site for stop in begun.visits] == ["cdc"]
        nothing = self.asked("cdc", "ninds", budget=Budget(examples=500))
        assert not assessed(nothing, HEALTHCARE).could_begin

    def test_its_sites_have_to_be_there(self) -> None:
        said = assessed(self.asked("cdc", "nhs"), HEALTHCARE)
        assert not said.feasible
        assert "nhs" in said.reasons[0]
        typo = assessed(self.asked("cdc", "nind"), HEALTHCARE)
        relaxation = the(typo, "route[1].site")
        assert relaxation.proposed == '"ninds"'

    def test_it_has_to_keep_to_the_budget(self) -> None:
        asked = self.asked("cdc", "ninds", budget=Budget(examples=1_500))
        said = assessed(asked, HEALTHCARE)
        assert not said.feasible
        assert "2000 examples of the job's 1500" in said.reasons[0]
        assert float(the(said, "budget.examples").proposed) == pytest.approx(2_000, rel=0.02)

    def test_labels_that_the_model_does_not_tell_apart_are_told_with_their_site(self) -> None:
        odd = general("odd", {"0.0": 50, "symptoms": 40})
        cut = cutting(network([*healthcare(), odd]), MEDICINE)
        assert assessed(self.asked("cdc", "ninds"), cut).feasible
        said = assessed(self.asked("cdc", "odd"), cut)
        assert not said.feasible
        assert "odd" in said.reasons[0]
        assert "labels 0.0 are not among model.config.classes" in said.reasons[0]

    def test_what_it_learned_may_have_to_stay_where_the_route_does_not(self) -> None:
        kept = general("kept", {"symptoms": 40}, release_to=("US",))
        abroad = general("abroad", {"symptoms": 40}, place="DE")
        cut = cutting(network([*healthcare(), kept, abroad]))
        allowed = assessed(self.asked("abroad", "kept"), cut)
        assert not any("may not go" in reason for reason in allowed.reasons)
        said = assessed(self.asked("kept", "abroad"), cut)
        assert not said.feasible
        assert "may not go to abroad" in said.reasons[0]

    @pytest.mark.parametrize(
        ("policy", "told"),
        [
            (DataPolicy(recipes=("other",)), "does not allow recipe causal-lm"),
            (DataPolicy(recipes=("*",), owners=("friends",)), "does not admit models of clinic"),
        ],
    )
    def test_what_a_data_owner_refuses_is_told(self, policy: DataPolicy, told: str) -> None:
        closed = general("closed", {"symptoms": 40})
        dataset = msgspec.structs.replace(closed.dataset, policy=policy)
        snapshot = network([*healthcare(), msgspec.structs.replace(closed, dataset=dataset)])
        said = assessed(self.asked("cdc", "closed"), cutting(snapshot))
        assert not said.feasible
        assert told in said.reasons[0]


def test_classes_that_no_data_has_are_told() -> None:
    said = assessed(WANTED, cutting(network(healthcare()), ("yes", "no")))
    assert not said.feasible
    assert any("are not among model.config.classes (yes, no)" in told for told in said.reasons)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    st.integers(0, 10_000),
    st.one_of(
        st.builds(Budget, duration_s=st.floats(1.0, 11.0)),
        st.builds(Budget, examples=st.integers(1, 31)),
        st.builds(Budget, duration_s=st.floats(5.0, 20.0), examples=st.integers(1, 31)),
    ),
)
def test_every_proposed_change_makes_it_feasible_by_itself(seed: int, budget: Budget) -> None:
    base = instance(seed, 3)
    limited = msgspec.structs.replace(base.intent, budget=budget)

    def cut(asked: TrainingIntent) -> MsDrrt:
        return base.topology

    said = assess(replace(base, intent=limited), cut)
    if said.feasible:
        return
    assert said.reasons
    for relaxation in said.relaxations:
        eased = changed(limited, relaxation.field, relaxation.proposed)
        assert assess(replace(base, intent=eased), cut).feasible
