"""Work is within what its owner ordered, or is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from daitn.control.jobs.ordered import check_ordered
from daitn.objects.errors import Refused
from daitn.objects.identifiers import Digest, JobId, SiteId, VisitId
from daitn.objects.intents import (
    Budget,
    PinnedVisit,
    Quantity,
    Requirement,
    Training,
    TrainingIntent,
)
from daitn.objects.lineage import Entry, Visit
from daitn.objects.merging import CONSIDERED, RULES, Algorithm, MergeRule
from daitn.objects.messages import MergeWork, VerifyWork, VisitWork, Work
from daitn.objects.models import ModelRef
from daitn.objects.orders import MOST_EXAMPLES, MOST_FRESH, MOST_VISITS, Order, Spent
from tests.control.test_next_site import node

from .world import INTENT

HERE = node("clinic", "medicine/neurology", recipes=("classifier",))
VISIT = VisitWork(
    visit=VisitId("qa-1.1"),
    job=JobId("qa-1"),
    recipe="classifier",
    config={},
    seed=3,
    owner="acme",
    dataset="qa",
    examples=100,
    model=None,
    previous=(),
)
MEASURE = VerifyWork(
    visit=VisitId("qa-1.2"),
    job=JobId("qa-1"),
    recipe="classifier",
    config={},
    topic="medicine",
    metric="accuracy",
    model=ModelRef(manifest=Digest("0" * 64), size_bytes=1, holders=()),
    previous=(),
    owner=INTENT.owner,
)


def ordered(intent: TrainingIntent, **terms: Any) -> Order:
    return Order(network="net", intent=intent, until_s=1.0, number="1", **terms)


def spent(**done: int) -> Spent:
    return Spent(order=Digest("o"), until_s=1.0, **done)


def wanted(**changes: Any) -> TrainingIntent:
    return msgspec.structs.replace(INTENT, **changes)


def route(*visits: tuple[str, int]) -> TrainingIntent:
    pinned = tuple(PinnedVisit(site=SiteId(site), examples=n) for site, n in visits)
    return wanted(route=pinned)


def requiring(quantity: Quantity, **bound: Any) -> TrainingIntent:
    return wanted(requirements=(Requirement(quantity=quantity, **bound),))


@pytest.mark.parametrize(
    ("intent", "trained"),
    [
        (INTENT, 0),
        (wanted(budget=Budget(examples=100)), 0),
        (wanted(budget=Budget(examples=150)), 50),
        (route(("clinic", 100)), 0),
        (route(("other", 5), ("clinic", 60), ("clinic", 60)), 0),
        (requiring(Quantity.SITE, one_of=("clinic",)), 0),
        (requiring(Quantity.RTT_S, at_most=1e-9), 0),
    ],
)
def test_what_is_within_is_done(intent: TrainingIntent, trained: int) -> None:
    check_ordered(VISIT, ordered(intent), HERE, spent(examples=trained))


@pytest.mark.parametrize(
    ("intent", "trained", "field"),
    [
        (wanted(budget=Budget(examples=99)), 0, "budget.examples"),
        (wanted(budget=Budget(examples=149)), 50, "budget.examples"),
        (route(("other", 1000)), 0, "route"),
        (route(("clinic", 99)), 0, "route"),
        (wanted(name="other"), 0, "name"),
        (requiring(Quantity.SITE, none_of=("clinic",)), 0, "requirements"),
        (requiring(Quantity.JURISDICTION, one_of=("XX",)), 0, "requirements"),
        (requiring(Quantity.OWNER, one_of=("nobody",)), 0, "requirements"),
        (requiring(Quantity.SAMPLES, at_least=1e9), 0, "requirements"),
        (requiring(Quantity.QUALITY, at_least=1.1), 0, "requirements"),
        (requiring(Quantity.PRICE_USD_PER_1K, at_most=-1.0), 0, "requirements"),
    ],
)
def test_what_is_beyond_the_intent_is_refused(
    intent: TrainingIntent, trained: int, field: str
) -> None:
    with pytest.raises(Refused, match="order does not include") as refused:
        check_ordered(VISIT, ordered(intent), HERE, spent(examples=trained))
    assert refused.value.field.startswith(field)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"recipe": "causal-lm"}, "model.recipe"),
        ({"config": {"label": "mrn"}}, "model.config"),
        ({"owner": "curious"}, "owner"),
        ({"job": "qa2-1"}, "name"),
    ],
)
def test_other_work_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as refused:
        check_ordered(msgspec.structs.replace(VISIT, **changes), ordered(INTENT), HERE, spent())
    assert refused.value.field == field


@pytest.mark.parametrize("changes", [{"topic": "finance"}, {"metric": "loss"}])
def test_only_what_was_to_be_measured_is(changes: dict[str, Any]) -> None:
    check_ordered(MEASURE, ordered(INTENT), HERE, spent())
    with pytest.raises(Refused) as refused:
        check_ordered(msgspec.structs.replace(MEASURE, **changes), ordered(INTENT), HERE, spent())
    assert refused.value.field == "objectives"


@pytest.mark.parametrize("work", [VISIT, MEASURE])
@pytest.mark.parametrize("field", ["owner", "purpose"])
def test_work_is_for_whom_and_what_the_order_says(work: Work, field: str) -> None:
    with pytest.raises(Refused) as refused:
        check_ordered(
            msgspec.structs.replace(work, **{field: "another"}), ordered(INTENT), HERE, spent()
        )
    assert refused.value.field == field


def visited(site: str, examples: int, step: int = 0) -> Entry:
    fact = Visit(
        job=VISIT.job, visit=VisitId("qa-1.9"), site=SiteId(site), dataset="qa", at_s=1.0,
        seconds=1.0, transfer_s=0.0, overhead_s=0.0, bytes_in=0, examples=examples, loss=None,
        model_in=Digest(f"m{step}"), model_out=Digest(f"m{step + 1}"), size_bytes=1,
    )  # fmt: skip
    return Entry(fact=fact, previous=(), public_key="", signature="")


def test_what_other_sites_trained_counts_too() -> None:
    after = msgspec.structs.replace(VISIT, lineage=(visited("other", 60),))
    check_ordered(after, ordered(wanted(budget=Budget(examples=160))), HERE, spent())
    with pytest.raises(Refused, match="160 examples"):
        check_ordered(after, ordered(wanted(budget=Budget(examples=159))), HERE, spent())


def test_a_visit_that_the_owner_fixed_is_made_once() -> None:
    order = ordered(route(("other", 100), ("clinic", 150)))
    check_ordered(
        msgspec.structs.replace(VISIT, lineage=(visited("other", 99),)), order, HERE, spent()
    )
    again = msgspec.structs.replace(VISIT, lineage=(visited("clinic", 51),))
    with pytest.raises(Refused, match="order does not include") as refused:
        check_ordered(again, order, HERE, spent())
    assert refused.value.field == "route"


def test_a_site_makes_no_models_without_end() -> None:
    check_ordered(VISIT, ordered(INTENT), HERE, spent(fresh=MOST_FRESH - 1))
    with pytest.raises(Refused, match="fresh models"):
        check_ordered(VISIT, ordered(INTENT), HERE, spent(fresh=MOST_FRESH))


def test_a_site_is_visited_no_more_often_than_ordered() -> None:
    """Without `budget.examples` too: each visit tells a little more of the records."""
    order = ordered(INTENT, visits=3)
    again = msgspec.structs.replace(VISIT, model=MEASURE.model)
    check_ordered(again, order, HERE, spent(visits=2))
    with pytest.raises(Refused, match="more than 3 visits") as refused:
        check_ordered(again, order, HERE, spent(visits=3))
    assert refused.value.field == "visits"
    travelled = msgspec.structs.replace(
        again, lineage=tuple(visited("other", 1, k) for k in range(3))
    )
    with pytest.raises(Refused, match="more than 3 visits"):
        check_ordered(travelled, order, HERE, spent())
    at_once = msgspec.structs.replace(again, lineage=(visited("other", 1),) * 3)
    check_ordered(at_once, order, HERE, spent())
    with pytest.raises(Refused, match="order does not include"):
        check_ordered(VISIT, ordered(INTENT), HERE, spent(visits=MOST_VISITS))
    with pytest.raises(Refused, match="examples"):
        check_ordered(VISIT, ordered(INTENT), HERE, spent(examples=MOST_EXAMPLES))


def test_a_verifier_measures_no_more_than_ordered() -> None:
    order = ordered(INTENT, measurements=3)
    check_ordered(MEASURE, order, HERE, spent(measurements=2))
    with pytest.raises(Refused, match="more than 3 measurements"):
        check_ordered(MEASURE, order, HERE, spent(measurements=3))


RULE = Training(algorithm=Algorithm.FEDAVG).rule
MERGED = ("m1", "m2")


def merge(**changes: Any) -> MergeWork:
    """Of two models that two sites trained on 60 and 40 examples."""
    assert RULE is not None
    base, models = ref("m0"), tuple(ref(name) for name in MERGED)
    lineage = tuple(
        Entry(
            fact=msgspec.structs.replace(
                visited(f"at-{name}", examples).fact, model_out=Digest(name)
            ),
            previous=(),
            public_key="",
            signature="",
        )
        for name, examples in zip(MERGED, (60, 40), strict=True)
    )
    work = MergeWork(
        visit=VISIT.visit, job=VISIT.job, recipe=VISIT.recipe, config=VISIT.config, seed=0,
        owner=VISIT.owner, base=base, trained=models, shares=(60, 40), rule=RULE, previous=(),
        purpose=VISIT.purpose, order=VISIT.order, lineage=lineage,
    )  # fmt: skip
    return msgspec.structs.replace(work, **changes)


def ref(name: str) -> ModelRef:
    return ModelRef(manifest=Digest(name), size_bytes=1, holders=())


def test_models_are_merged_as_ordered_and_count_for_what_they_learned() -> None:
    order = ordered(wanted(training=Training(algorithm=Algorithm.FEDAVG)))
    check_ordered(merge(), order, HERE, spent())
    refusals: tuple[tuple[dict[str, Any], str], ...] = (
        ({"shares": (60, 41)}, "training"),
        ({"rule": MergeRule(rate=2.0)}, "training.merging"),
        ({"lineage": merge().lineage[:1]}, "training"),
        ({"base": ref("elsewhere")}, "training"),
        ({"moments": ref("forged")}, "training"),
        ({"config": {"hidden": [9]}}, "model.config"),
        ({"trained": (ref("m1"), ref("m1")), "shares": (60, 60)}, "training"),
    )
    for changes, field in refusals:
        with pytest.raises(Refused) as refused:
            check_ordered(merge(**changes), order, HERE, spent())
        assert refused.value.field == field, changes
    with pytest.raises(Refused, match="merges"):
        check_ordered(merge(), order, HERE, spent(merges=MOST_VISITS))
    few = ordered(wanted(training=order.intent.training, budget=Budget(examples=99)))
    with pytest.raises(Refused, match="100 examples"):
        check_ordered(merge(), few, HERE, spent())
    for other in (Training(algorithm=Algorithm.SEQUENTIAL), Training(algorithm=Algorithm.DILOCO)):
        with pytest.raises(Refused, match="rule of merging"):
            check_ordered(merge(), ordered(wanted(training=other)), HERE, spent())


def test_an_owner_who_leaves_the_choice_has_ordered_what_may_be_chosen_and_nothing_else() -> None:
    order = ordered(wanted(training=Training(algorithm=Algorithm.AUTO)))
    for algorithm in CONSIDERED:
        check_ordered(merge(rule=RULES[algorithm]), order, HERE, spent())
    with pytest.raises(Refused, match="rule of merging"):
        check_ordered(merge(rule=RULES[Algorithm.KRUM]), order, HERE, spent())
    with pytest.raises(Refused, match="rule of merging"):
        check_ordered(merge(rule=MergeRule(rate=2.0)), order, HERE, spent())
    stated = ordered(wanted(route=(PinnedVisit(site=SiteId("clinic"), examples=100),)))
    with pytest.raises(Refused, match="rule of merging"):
        check_ordered(merge(), stated, HERE, spent())
