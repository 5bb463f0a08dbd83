"""Where a model that travels by itself goes: it asks MTRCE by what it has heard and seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.jobs.job import Job
from daitn.control.jobs.question import route_question, starts
from daitn.control.route.engine import Mtrce
from daitn.control.route.next_site import (
    NOWHERE,
    DataProspect,
    KnownVerifier,
    LocalView,
    MeasuredModel,
    check_travels,
    local_question,
    remembered,
    topic_at,
    waits_for,
)
from daitn.control.route.question import RouteQuestion
from daitn.objects.cordons import Cordon
from daitn.objects.decisions import Route
from daitn.objects.descriptors import (
    ComputeDescriptor,
    DataPolicy,
    DatasetDescriptor,
    NodeDescriptor,
    Role,
    VerifierDescriptor,
)
from daitn.objects.descriptors import TestSetDescriptor as ExamDescriptor
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import Digest, JobId, ObjectiveName, OwnerId, SiteId
from daitn.objects.intents import (
    Budget,
    DataWanted,
    ModelWanted,
    Objective,
    PinnedVisit,
    Preference,
    Quantity,
    Requirement,
    Training,
)
from daitn.objects.intents import TrainingIntent as Intent
from daitn.objects.jobs import Checkpoint, VisitView, WorkNeeds
from daitn.objects.merging import Algorithm
from daitn.objects.model_needs import ColumnsNeeded
from daitn.objects.models import ModelRef
from daitn.topology.inbound import LINK_QUANTITIES

NOW_S = 1_000.0
NEEDS = WorkNeeds(
    data_schema="qa-pairs/1",
    test_schema="multiple-choice/1",
    parameters=1,
    flops_per_example=1e7,
    memory_bytes=1_000,
    size_bytes=1_000,
)
HERE = SiteId("mpvu")
VERIFIERS = (KnownVerifier(HERE, "medicine", "US"), KnownVerifier(HERE, "medicine/neurology", "US"))
MEASURED = tuple(
    MeasuredModel(HERE, topic, "accuracy", 0.25, 400, {})
    for topic in ("medicine", "medicine/neurology")
)


def model(number: int) -> ModelRef:
    return ModelRef(manifest=Digest(f"{number:064d}"), size_bytes=1_000, holders=(HERE,))


def checkpoint(
    number: int, broad: float, expert: float, visits: tuple[int, ...] = ()
) -> Checkpoint:
    values = {ObjectiveName("broad"): broad, ObjectiveName("expert"): expert}
    errors = dict.fromkeys(values, 0.02)
    return Checkpoint(
        model=model(number),
        values=values,
        standard_error=errors,
        entries=(),
        release_to=("*",),
        visits=visits,
    )


def job(broad: float = 0.25, expert: float = 0.25, **changes: Any) -> Job:
    """Broad knowledge is to reach 0.8, that of neurology 0.9; a fresh model was measured."""
    plain: dict[str, Any] = {
        "name": "healthcare",
        "owner": OwnerId("ana"),
        "model": ModelWanted(recipe="causal-lm"),
        "objectives": (
            Objective(name="broad", topic="medicine", at_least=0.8),
            Objective(name="expert", topic="medicine/neurology", at_least=0.9),
        ),
        "data": DataWanted(topics=("medicine",)),
        **changes,
    }
    return Job(
        id=JobId("healthcare-a1"),
        intent=Intent(**plain),
        needs=NEEDS,
        start=None,
        insist=False,
        submitted_at_s=0.0,
        checkpoints=[checkpoint(0, broad, expert)],
    )


def visited(of: Job, site: str, dataset: str, broad: float, expert: float) -> None:
    """The latest model learned at a site and was measured."""
    before = of.checkpoints[-1]
    values = {"broad": broad, "expert": expert}
    of.made.append(
        VisitView(
            site=SiteId(site),
            dataset=dataset,
            work=3000,
            seconds=1.0,
            transfer_s=0.1,
            overhead_s=0.1,
            verify_s=1.0,
            bytes_in=0,
            cost_usd=0.0,
            loss=1.0,
            values=values,
            gains={
                name: value - before.values[ObjectiveName(name)] for name, value in values.items()
            },
            model=model(len(of.made) + 1).manifest,
        )
    )
    number = len(of.made)
    of.checkpoints.append(checkpoint(number, broad, expert, (*before.visits, number - 1)))


def prospect(site: str, topic: str, **changes: Any) -> DataProspect:
    plain: dict[str, Any] = {
        "examples": 3000,
        "price_usd_per_1k": 0.0,
        "delay_s": 0.01,
        "jurisdiction": "US",
        "owner": site,
        **changes,
    }
    return DataProspect(SiteId(site), topic, **plain)


def node(site: str, topic: str, **changes: Any) -> NodeDescriptor:
    """A site as it is; `changes` are of its data set, its owner, or its compute."""
    compute = ComputeDescriptor(
        device="cpu",
        memory_bytes=changes.pop("memory_bytes", 10_000),
        speed_flops=changes.pop("speed_flops", 1e10),
        recipes=changes.pop("recipes", ("causal-lm",)),
    )
    owner = OwnerId(changes.pop("owner", site))
    plain: dict[str, Any] = {
        "name": "qa",
        "site": SiteId(site),
        "data_schema": NEEDS.data_schema,
        "modality": "text",
        "topics": (topic,),
        "samples": 3000,
        "labels": {},
        "quality": 1.0,
        "fresh_at_s": NOW_S,
        "jurisdiction": "US",
        "policy": DataPolicy(recipes=("causal-lm",)),
        **changes,
    }
    return NodeDescriptor(
        site=SiteId(site),
        owner=owner,
        roles=(Role.DATA, Role.COMPUTE),
        jurisdiction=plain["jurisdiction"],
        public_key="",
        started_at_s=0.0,
        version=1,
        software="",
        datasets=(DatasetDescriptor(**plain),),
        compute=compute,
    )


GENERAL, NEURO = prospect("ghr", "medicine"), prospect("ninds", "medicine/neurology")


def asked(of: Job, *prospects: DataProspect, **known: Any) -> tuple[RouteQuestion, LocalView]:
    plain = {"site": HERE, "prospects": prospects, "verifiers": VERIFIERS, "measured": MEASURED}
    view = LocalView(**{**plain, "visited": of.met, **known})
    return local_question(route_question(of, NOWHERE, NOW_S), of.needs, view), view


def planned(question: RouteQuestion) -> Route | None:
    return Mtrce().plan(question)[0]


def first(of: Job, *prospects: DataProspect, **known: Any) -> str | None:
    route = planned(asked(of, *prospects, **known)[0])
    return route.visits[0].site if route else None


def reasons(of: Job, *prospects: DataProspect, **known: Any) -> list[str]:
    question, _ = asked(of, *prospects, **known)
    return [no.filter for no in question.topology.rejections if "/" in no.candidate]


def test_it_goes_where_what_lacks_is_taught() -> None:
    assert first(job(0.3, 0.95), prospect("law", "medicine/law"), GENERAL) == "ghr"
    route = planned(asked(job(0.79, 0.4), GENERAL, NEURO)[0])
    assert route is not None
    assert {visit.site for visit in route.visits} == {"ghr", "ninds"}
    assert first(job(0.3, 0.89), GENERAL, prospect("tiny", "medicine", examples=30)) == "ghr"


def test_the_route_says_how_much_and_from_which_model() -> None:
    route = planned(asked(job(), GENERAL, NEURO)[0])
    assert route is not None
    assert route.start == model(0).manifest
    assert route.visits[0].examples > 0
    assert route.visits[0].expected.keys() == {"broad", "expert"}


def test_what_was_measured_counts_more_than_what_is_told() -> None:
    """`ghr` was visited and taught nothing of the topic that it tells of."""
    taught = job()
    taught.met[SiteId("ghr")] = node("ghr", "medicine/neurology")
    visited(taught, "ghr", "qa", 0.26, 0.26)
    alike = (prospect("ghr", "medicine/neurology"), prospect("nhlbi", "medicine"))
    assert first(taught, *alike) == "nhlbi"


def test_a_site_that_was_visited_is_known_as_it_was_found() -> None:
    found = job()
    found.met[SiteId("ghr")] = node("ghr", "medicine", samples=500, labels={"a": 500})
    question, view = asked(found, GENERAL, NEURO)
    options = {option.site: option for option in question.topology.options}
    assert (options[SiteId("ghr")].id, options[SiteId("ghr")].dataset.samples) == ("ghr/qa", 500)
    assert options[SiteId("ninds")].compute.speed_flops == pytest.approx(1e10)
    route = planned(question)
    assert route is not None
    assert topic_at(question, view, route) in ("medicine", "medicine/neurology")


def test_a_site_that_announces_itself_is_known_before_a_visit() -> None:
    """It counts more than what routes advertise, and than what was found there long ago."""
    found = job()
    found.met[SiteId("ghr")] = node("ghr", "medicine", samples=500)
    now = {
        SiteId("ghr"): node("ghr", "medicine", samples=700, fresh_at_s=NOW_S - 60.0),
        SiteId("ninds"): node("ninds", "medicine/neurology", labels={"a": 9}, speed_flops=3e9),
        SiteId("away"): node("away", "medicine/neurology"),
    }
    question, _ = asked(found, GENERAL, NEURO, announced=now)
    options = {option.site: option for option in question.topology.options}
    assert set(options) == {"ghr", "ninds"}, "nobody knows the way to the other"
    assert options[SiteId("ghr")].dataset == now[SiteId("ghr")].datasets[0]
    assert options[SiteId("ninds")].dataset.labels == {"a": 9}
    assert options[SiteId("ninds")].compute.speed_flops == 3e9


def test_what_a_site_announces_is_checked_before_a_model_sets_out() -> None:
    choosy = job(0.79, 0.25, requirements=(Requirement(quantity=Quantity.QUALITY, at_least=0.9),))
    poor = {SiteId("ninds"): node("ninds", "medicine/neurology", quality=0.5)}
    assert first(choosy, NEURO) == "ninds"
    assert reasons(choosy, NEURO, announced=poor) == ["quality"]
    assert first(choosy, NEURO, announced=poor) is None


def test_a_table_of_another_width_is_left_out_as_soon_as_it_is_described() -> None:
    columns = ColumnsNeeded(least=3, most=3, field="model.config.features")
    narrow = job(0.79, 0.25)
    narrow.needs = msgspec.structs.replace(narrow.needs, columns=columns)
    described = {SiteId("ninds"): node("ninds", "medicine/neurology", columns=2)}
    assert first(narrow, NEURO) == "ninds"
    assert reasons(narrow, NEURO, announced=described) == ["columns"]


def test_it_waits_for_a_site_that_is_closed_or_cordoned_for_now() -> None:
    """Its announcement says so, and leaves it no option until that passes."""
    site = SiteId("ninds")
    shut = DataPolicy(recipes=("causal-lm",), hours=("Sun 00:00-00:01",))
    closed = {site: node(site, "medicine/neurology", policy=shut)}
    plain = node(site, "medicine/neurology")
    cordon = Cordon(by="ops", since_s=NOW_S, reason="an upgrade")
    cordoned = {site: msgspec.structs.replace(plain, cordon=cordon)}
    for announced, why in ((closed, "outside of their hours"), (cordoned, "cordoned")):
        question, view = asked(job(0.79, 0.25), NEURO, announced=announced)
        assert planned(question) is None
        waiting = waits_for(question, view)
        assert why in waiting
        assert site in waiting
        given_up = replace(question, excluded=(site,))
        assert waits_for(given_up, view) == ""


def test_an_announced_verifier_is_known_before_it_measures() -> None:
    test = ExamDescriptor(
        topic="medicine",
        test_schema=NEEDS.test_schema,
        metrics=("accuracy",),
        items=37,
        chance=0.2,
        labels={"a": 30, "b": 7},
    )
    verifier = VerifierDescriptor(tests=(test,), recipes=("causal-lm",))
    announced = {HERE: msgspec.structs.replace(node(HERE, "finance"), verifier=verifier)}
    question, _ = asked(job(), GENERAL, measured=(), announced=announced)
    (broad,) = question.topology.verifiers[ObjectiveName("broad")]
    assert broad.test == test
    assert {option.site for option in question.topology.options} == {"ghr"}


def test_tests_are_known_by_what_they_measured() -> None:
    told = MeasuredModel(HERE, "medicine", "accuracy", 0.63, 100, {"a": 1.0, "b": 0.0})
    question, _ = asked(job(), GENERAL, measured=(told,))
    (broad,) = question.topology.verifiers[ObjectiveName("broad")]
    assert (broad.test.items, broad.test.chance) == (100, 0.5)
    assert broad.test.labels == {"a": 50, "b": 50}
    (expert,) = question.topology.verifiers[ObjectiveName("expert")]
    assert (expert.test.chance, expert.test.labels) == (0.0, {})


def test_what_the_owner_does_not_want_is_not_visited_and_told_why() -> None:
    us = Requirement(quantity=Quantity.JURISDICTION, one_of=("US",))
    french = prospect("necker", "medicine/neurology", jurisdiction="FR")
    assert reasons(job(requirements=(us,)), french) == ["jurisdiction"]
    other = Requirement(quantity=Quantity.OWNER, none_of=("ninds",))
    assert reasons(job(requirements=(other,)), NEURO) == ["owner"]
    assert reasons(job(), prospect("ecb", "finance")) == ["topic"]
    failed = job()
    failed.failures[SiteId("ninds")] = 2
    assert first(failed, NEURO) is None


def test_the_budget_bounds_what_is_chosen() -> None:
    free = prospect("ghr", "medicine/neurology", examples=2000)
    dear = prospect("ninds", "medicine/neurology", price_usd_per_1k=1.0)
    poor = job(0.79, 0.25, budget=Budget(cost_usd=0.01))
    assert first(poor, dear, free) == "ghr"
    few = planned(asked(job(budget=Budget(examples=300)), GENERAL, NEURO)[0])
    assert few is None or few.visits[0].examples <= 300


def test_what_only_a_site_knows_is_looked_at_on_arrival() -> None:
    quality = Requirement(quantity=Quantity.QUALITY, at_least=0.9)
    fast = Requirement(quantity=Quantity.SPEED_FLOPS, at_least=1e12)
    choosy = job(0.79, 0.25, requirements=(quality, fast))
    assert reasons(choosy, NEURO) == []
    slow = remembered(node("ninds", "medicine/neurology", quality=0.5))
    arrived = {"site": SiteId("ninds"), "visited": {SiteId("ninds"): slow}}
    assert reasons(choosy, NEURO, **arrived) == ["quality", "speed_flops"]
    assert first(choosy, NEURO, **arrived) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"requirements": (Requirement(quantity=Quantity.RTT_S, at_most=0.1),)}, "requirements[0]"),
        (
            {"requirements": (Requirement(quantity=Quantity.THROUGHPUT_BPS, at_least=1.0),)},
            "requirements[0]",
        ),
        ({"route": (PinnedVisit(site=SiteId("ghr"), examples=10),)}, "route"),
        ({"model": ModelWanted(recipe="causal-lm", start="weights")}, "model.start"),
        ({"training": Training(algorithm=Algorithm.FEDAVG)}, "training.algorithm"),
        ({"training": Training(credits_usd=1.0)}, "training.credits_usd"),
    ],
)
def test_what_cannot_be_kept_without_a_centre_is_refused(
    changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_travels(job(**changes).intent)
    assert refused.value.field == field
    assert "--autonomous" in refused.value.fix


def test_preferences_are_of_the_one_engine() -> None:
    frugal = job(preferences=(Preference(scorer="cost", weight=5.0),))
    assert first(frugal, GENERAL, NEURO) is not None
    with pytest.raises(InvalidInput, match="no scorer"):
        first(job(preferences=(Preference(scorer="luck", weight=1.0),)), GENERAL)


def test_it_goes_on_from_the_latest_or_the_best_model() -> None:
    harmed = job()
    visited(harmed, "ghr", "qa", 0.78, 0.88)
    visited(harmed, "ninds", "qa", 0.40, 0.70)
    known = {one.model.manifest for one in starts(harmed)}
    assert known == {model(1).manifest, model(2).manifest}
    harmed.met |= {site: node(site, "medicine") for site in (SiteId("ghr"), SiteId("ninds"))}
    route = planned(asked(harmed, GENERAL, NEURO)[0])
    assert route is None or route.start in known


def test_a_model_stays_where_it_arrived_unless_elsewhere_is_clearly_better() -> None:
    alike = [prospect(site, "medicine/neurology") for site in ("ninds", "other")]
    met = {one.site: remembered(node(one.site, "medicine/neurology")) for one in alike}
    for one in alike:
        question, _ = asked(
            job(0.79, 0.3), *alike, site=one.site, visited={one.site: met[one.site]}
        )
        route = planned(replace(question, here=one.site))
        assert route is not None
        assert route.visits[0].site == one.site
    slow = remembered(node("ninds", "medicine/neurology", speed_flops=1e5))
    found = {**met, SiteId("ninds"): slow}
    hasty = job(0.79, 0.3, budget=Budget(duration_s=NOW_S + 600.0))
    question, _ = asked(hasty, *alike, site=SiteId("ninds"), visited=found)
    route = planned(replace(question, here=SiteId("ninds")))
    assert route is not None
    assert route.visits[0].site == "other"


def test_sites_that_refused_it_come_later() -> None:
    question, _ = asked(job(0.79, 0.3), GENERAL, NEURO)
    route = planned(replace(question, later=(SiteId("ninds"),)))
    assert route is not None
    assert route.visits[0].site == "ghr"
    question = replace(question, later=(SiteId("ninds"), SiteId("ghr")))
    assert planned(question) is None


def test_it_waits_for_what_may_come_and_for_nothing_else() -> None:
    assert "no data" in waits_for(*asked(job()))
    assert "expert" in waits_for(*asked(job(), GENERAL, verifiers=VERIFIERS[:1], measured=()))
    assert waits_for(*asked(job(), GENERAL)) == ""
    away = job()
    away.met[SiteId("ninds")] = node("ninds", "medicine/neurology")
    assert "ninds" in waits_for(*asked(away, GENERAL))
    question, view = asked(job(), GENERAL)
    assert "ghr" in waits_for(replace(question, later=(SiteId("ghr"),)), view)


def test_release_rules_hold_of_what_it_learned_from() -> None:
    kept = job(0.79, 0.3)
    kept.checkpoints = [msgspec.structs.replace(kept.checkpoints[0], release_to=("US",))]
    french = prospect("necker", "medicine/neurology", jurisdiction="FR")
    assert first(kept, french) is None
    assert first(kept, french, NEURO) == "ninds"


# No requirement is ever violated

NAMES = ("a", "b", "c")
TOPICS = ("medicine", "medicine/neurology", "finance")
_TYPICAL = {
    Quantity.SAMPLES: 1_000.0,
    Quantity.QUALITY: 0.5,
    Quantity.AGE_S: 100.0,
    Quantity.SPEED_FLOPS: 1e10,
    Quantity.MEMORY_BYTES: 5_000.0,
}
BOUNDS = {
    quantity: _TYPICAL.get(quantity, 1.0)
    for quantity in Quantity
    if not (quantity.is_name or quantity in LINK_QUANTITIES)
}
UNSEEN = [*BOUNDS.keys() - {Quantity.SAMPLES, Quantity.PRICE_USD_PER_1K}]
"""What only the site itself can tell: nothing of it is advertised."""


@pytest.mark.parametrize("quantity", sorted(UNSEEN))
@pytest.mark.parametrize("side", ["at_least", "at_most"])
def test_what_only_the_site_can_tell_is_assumed_to_meet_the_intent(
    quantity: Quantity, side: str
) -> None:
    required = msgspec.convert({"quantity": quantity, side: BOUNDS[quantity]}, Requirement)
    assert first(job(0.3, 0.95, requirements=(required,)), GENERAL) == GENERAL.site


@st.composite
def requirement(draw: st.DrawFn) -> Requirement:
    quantity = draw(st.sampled_from([each for each in Quantity if each not in LINK_QUANTITIES]))
    if not quantity.is_name:
        bound = BOUNDS[quantity]
        if draw(st.booleans()):
            return Requirement(quantity=quantity, at_least=bound)
        return Requirement(quantity=quantity, at_most=bound)
    names = ("US", "FR") if quantity is Quantity.JURISDICTION else NAMES
    listed = (draw(st.sampled_from(names)),)
    if draw(st.booleans()):
        return Requirement(quantity=quantity, one_of=listed)
    return Requirement(quantity=quantity, none_of=listed)


@st.composite
def sites(draw: st.DrawFn) -> dict[SiteId, NodeDescriptor]:
    return {
        SiteId(name): node(
            name,
            draw(st.sampled_from(TOPICS)),
            owner=draw(st.sampled_from(NAMES)),
            samples=draw(st.sampled_from((100, 1_000, 4_000))),
            quality=draw(st.sampled_from((0.2, 0.5, 1.0))),
            fresh_at_s=NOW_S - draw(st.sampled_from((0.0, 100.0, 500.0))),
            price_usd_per_1k=draw(st.sampled_from((0.0, 1.0, 3.0))),
            speed_flops=draw(st.sampled_from((1e9, 1e10, 1e11))),
            memory_bytes=draw(st.sampled_from((500, 5_000, 50_000))),
            jurisdiction=draw(st.sampled_from(("US", "FR"))),
            data_schema=draw(st.sampled_from((NEEDS.data_schema, "table/1"))),
            labels=draw(st.sampled_from(({}, {"known": 10}, {"strange": 10}))),
            policy=DataPolicy(
                recipes=draw(st.sampled_from((("*",), ("classifier",)))),
                owners=draw(st.sampled_from((("*",), ("bob",)))),
            ),
        )
        for name in NAMES
    }


def told(one: NodeDescriptor) -> DataProspect:
    (data,) = one.datasets
    return DataProspect(
        site=one.site,
        topic=data.topics[0],
        examples=data.samples,
        price_usd_per_1k=data.price_usd_per_1k,
        delay_s=0.01,
        jurisdiction=data.jurisdiction,
        owner=one.owner,
    )


def value(quantity: Quantity, one: NodeDescriptor) -> float | str:
    (data,), compute = one.datasets, one.compute
    assert compute is not None
    known: dict[Quantity, float | str] = {
        Quantity.OWNER: one.owner,
        Quantity.SITE: one.site,
        Quantity.JURISDICTION: data.jurisdiction,
        Quantity.SAMPLES: float(data.samples),
        Quantity.QUALITY: data.quality,
        Quantity.AGE_S: NOW_S - data.fresh_at_s,
        Quantity.PRICE_USD_PER_1K: data.price_usd_per_1k,
        Quantity.SPEED_FLOPS: compute.speed_flops,
        Quantity.MEMORY_BYTES: float(compute.memory_bytes),
    }
    return known[quantity]


@settings(max_examples=60, deadline=None)
@given(sites(), st.lists(requirement(), max_size=3), st.sampled_from(NAMES))
def test_no_visit_violates_what_the_owner_or_the_site_requires(
    network: dict[SiteId, NodeDescriptor], required: list[Requirement], arrived: str
) -> None:
    """Where it arrives, what the route begins with is allowed; elsewhere, as far as is told."""
    of = job(0.3, 0.3, requirements=tuple(required), budget=Budget(cost_usd=5.0, examples=9_000))
    of.needs = msgspec.structs.replace(NEEDS, labels=("known",), labels_field="model.config.labels")
    here = network[SiteId(arrived)]
    prospects = [told(one) for one in network.values()]
    question, _ = asked(of, *prospects, site=here.site, visited={here.site: remembered(here)})
    route = planned(replace(question, here=here.site))
    if route is None:
        return
    visit = route.visits[0]
    assert visit.examples <= 9_000
    assert visit.expected_cost_usd <= 5.0
    there = network[visit.site]
    for one in required:
        if there is here or one.quantity not in UNSEEN:
            assert one.shortfall(value(one.quantity, there)) == 0
    assert there.datasets[0].topics[0].startswith("medicine")
    if there is here:
        assert there.datasets[0].data_schema == NEEDS.data_schema
        assert "strange" not in there.datasets[0].labels
        assert there.datasets[0].policy == DataPolicy(recipes=("*",))
        assert there.compute is not None
        assert there.compute.memory_bytes >= NEEDS.memory_bytes
