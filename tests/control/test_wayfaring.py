"""Where a model that travels by itself goes: what lacks, what it forgets, what it may."""

from __future__ import annotations

from typing import Any

import msgspec

from daitn.control.jobs.job import Job
from daitn.control.route.wayfaring import (
    MOST_EXAMPLES,
    Prospect,
    Wayfaring,
    base_of,
    decide,
    examples_for,
)
from daitn.objects.identifiers import Digest, JobId, ObjectiveName, SiteId
from daitn.objects.intents import Budget, DataWanted, ModelWanted, Objective, Quantity, Requirement
from daitn.objects.intents import TrainingIntent as Intent
from daitn.objects.jobs import Checkpoint, MadeVisit, WorkNeeds
from daitn.objects.models import ModelRef

NEEDS = WorkNeeds(
    data_schema="qa-pairs/1",
    test_schema="multiple-choice/1",
    parameters=1,
    flops_per_example=1.0,
    memory_bytes=1,
    size_bytes=1,
)
MODEL = ModelRef(manifest=Digest("0" * 64), size_bytes=1, holders=())


def job(broad: float, expert: float, *made: MadeVisit, **changes: Any) -> Job:
    """Broad knowledge is to reach 0.8, that of neurology 0.9."""
    intent = Intent(
        name="healthcare",
        owner="ana",  # type: ignore[arg-type]
        model=ModelWanted(recipe="causal-lm"),
        objectives=(
            Objective(name="broad", topic="medicine", at_least=0.8),
            Objective(name="expert", topic="medicine/neurology", at_least=0.9),
        ),
        data=DataWanted(topics=("medicine",)),
        **changes,
    )
    values = {ObjectiveName("broad"): broad, ObjectiveName("expert"): expert}
    checkpoint = Checkpoint(
        model=MODEL, values=values, standard_error={}, entries=(), release_to=("*",)
    )
    return Job(
        id=JobId("healthcare-a1"),
        intent=intent,
        needs=NEEDS,
        start=None,
        insist=False,
        submitted_at_s=0.0,
        checkpoints=[checkpoint],
        made=list(made),
    )


def visit(site: str, **gains: float) -> MadeVisit:
    return MadeVisit(
        site=SiteId(site),
        dataset="qa",
        work=1000,
        seconds=1.0,
        transfer_s=0.0,
        overhead_s=0.0,
        verify_s=1.0,
        bytes_in=0,
        cost_usd=0.0,
        loss=1.0,
        values={},
        gains=gains,
        model=MODEL.manifest,
    )


def prospect(site: str, topic: str, **changes: Any) -> Prospect:
    plain: dict[str, Any] = {
        "examples": 3000,
        "price_usd_per_1k": 0.0,
        "delay_s": 0.01,
        "jurisdiction": "US",
        **changes,
    }
    return Prospect(SiteId(site), topic, **plain)


GENERAL, NEURO = prospect("ghr", "medicine/general"), prospect("ninds", "medicine/neurology")


def chosen(of: Job, *prospects: Prospect) -> str | None:
    return decide(Wayfaring(of, prospects, 0.0, 1)).chosen


def reasons(of: Job, *prospects: Prospect) -> list[str]:
    return [no.filter for no in decide(Wayfaring(of, prospects, 0.0, 1)).rejections]


def test_it_goes_where_what_lacks_is_taught() -> None:
    assert chosen(job(0.79, 0.4), GENERAL, NEURO) == "ninds/medicine/neurology"
    two = (GENERAL, prospect("tiny", "medicine/general", examples=30))
    assert chosen(job(0.3, 0.89), *two) == "ghr/medicine/general"


def test_what_its_visits_taught_counts_more_than_what_is_told() -> None:
    other = prospect("nhlbi", "medicine/cardiology")
    taught = job(0.5, 0.95, visit("ghr", broad=0.001, expert=0.0))
    assert chosen(taught, GENERAL, other) == "nhlbi/medicine/cardiology"
    forgot = job(
        0.75, 0.92, visit("ninds", broad=0.05, expert=0.3), visit("ghr", broad=0.08, expert=-0.4)
    )
    assert chosen(forgot, GENERAL, other) == "nhlbi/medicine/cardiology"


def test_a_site_that_taught_nothing_twice_is_left() -> None:
    spent = job(0.5, 0.95, visit("ghr", broad=0.001), visit("ghr", broad=0.0))
    assert chosen(spent, GENERAL) is None
    assert reasons(spent, GENERAL) == ["worth"]


def test_what_the_owner_does_not_want_is_not_visited_and_told_why() -> None:
    us = Requirement(quantity=Quantity.JURISDICTION, one_of=("US",))
    french = prospect("necker", "medicine/neurology", jurisdiction="FR")
    assert reasons(job(0.1, 0.1, requirements=(us,)), french) == ["requirement"]
    assert reasons(job(0.1, 0.1), prospect("ecb", "finance")) == ["topic"]
    dear = prospect("ninds", "medicine/neurology", price_usd_per_1k=1.0)
    assert reasons(job(0.1, 0.1, budget=Budget(cost_usd=2.0)), dear) == ["cost"]
    used = job(0.1, 0.1, budget=Budget(examples=500))
    used.spent_examples = 500
    assert reasons(used, NEURO) == ["examples"]
    failed = job(0.1, 0.1)
    failed.strikes[SiteId("ninds")] = 2
    assert reasons(failed, NEURO) == ["failed"]


def test_two_visits_that_did_harm_are_undone() -> None:
    harmed = job(0.78, 0.97)
    good = harmed.checkpoints[0]
    worse = {ObjectiveName("broad"): 0.72, ObjectiveName("expert"): 0.78}
    bad = Checkpoint(model=MODEL, values=worse, standard_error={}, entries=(), release_to=("*",))
    harmed.checkpoints.append(bad)
    assert base_of(harmed) is bad
    harmed.checkpoints.append(msgspec.structs.replace(bad, visits=(1,)))
    assert base_of(harmed) is good
    harmed.checkpoints[2] = msgspec.structs.replace(
        bad, values={ObjectiveName("broad"): 0.77, ObjectiveName("expert"): 0.96}
    )
    assert base_of(harmed) is harmed.checkpoints[2]


def test_a_visit_takes_what_is_there_and_what_may_be_taken() -> None:
    assert examples_for(job(0, 0), 100) == 100
    assert examples_for(job(0, 0), 10**6) == MOST_EXAMPLES
    assert examples_for(job(0, 0, budget=Budget(examples=300)), 10**6) == 300
