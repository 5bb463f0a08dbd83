"""Work is within what its owner ordered, or is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from daitn.control.jobs.ordered import check_ordered
from daitn.objects.compression import Compression
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
from daitn.objects.lineage import Entry, Merge, Visit, left_by
from daitn.objects.merging import CONSIDERED, RULES, Algorithm, MergeRule
from daitn.objects.messages import MergeWork, VerifyWork, VisitWork, Work
from daitn.objects.models import ModelRef
from daitn.objects.orders import MOST_EXAMPLES, MOST_FRESH, MOST_VISITS, Order, OrderUsage
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


def spent(**done: int) -> OrderUsage:
    return OrderUsage(order=Digest("o"), until_s=1.0, **done)


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
    order = ordered(wanted(training=Training(algorithm=Algorithm.ADAPTIVE)))
    for algorithm in CONSIDERED:
        check_ordered(merge(rule=RULES[algorithm]), order, HERE, spent())
    with pytest.raises(Refused, match="rule of merging"):
        check_ordered(merge(rule=RULES[Algorithm.KRUM]), order, HERE, spent())
    with pytest.raises(Refused, match="rule of merging"):
        check_ordered(merge(rule=MergeRule(rate=2.0)), order, HERE, spent())
    stated = ordered(wanted(route=(PinnedVisit(site=SiteId("clinic"), examples=100),)))
    with pytest.raises(Refused, match="rule of merging"):
        check_ordered(merge(), stated, HERE, spent())


def late_merge(**changes: Any) -> MergeWork:
    """Of a model trained from `m0` on 30 examples, and one from `m3`, which came of `m0`."""
    before = merge()
    made = Merge(
        job=VISIT.job, visit=VISIT.visit, site=SiteId("at-m1"), at_s=0.0, seconds=0.0,
        transfer_s=0.0, overhead_s=0.0, bytes_in=0, base=Digest("m0"), models=before_models(before),
        shares=before.shares, rule=before.rule, model_out=Digest("m3"), size_bytes=1,
    )  # fmt: skip
    facts = (
        made,
        msgspec.structs.replace(visited("slow", 30).fact, model_out=Digest("m4")),
        msgspec.structs.replace(
            visited("at-m1", 60).fact, model_in=Digest("m3"), model_out=Digest("m5")
        ),
    )
    entries = tuple(Entry(fact=fact, previous=(), public_key="", signature="") for fact in facts)
    work = merge(
        base=ref("m3"), trained=(ref("m4"), ref("m5")), shares=(30, 60),
        starts=(ref("m0"), ref("m3")), behind=(1, 0), lineage=(*before.lineage, *entries),
    )  # fmt: skip
    return msgspec.structs.replace(work, **changes)


def before_models(work: MergeWork) -> tuple[Digest, ...]:
    return tuple(model.manifest for model in work.trained)


def test_a_late_model_is_merged_from_where_it_started_and_as_old_as_it_is() -> None:
    order = ordered(wanted(training=Training(algorithm=Algorithm.FEDAVG)))
    check_ordered(late_merge(), order, HERE, spent())
    refusals: tuple[dict[str, Any], ...] = (
        {"behind": (0, 0)},
        {"behind": (2, 0)},
        {"starts": (), "behind": ()},
        {"starts": (ref("m3"), ref("m3")), "behind": (0, 0)},
        {"starts": (ref("m0"), ref("m0")), "behind": (1, 1)},
        {"starts": (ref("m1"), ref("m3"))},
        {"shares": (31, 60)},
        {"lineage": late_merge().lineage[:2] + late_merge().lineage[3:]},
        {"trained": (ref("m1"), ref("m5")), "shares": (60, 60)},
    )
    for changes in refusals:
        with pytest.raises(Refused) as refused:
            check_ordered(late_merge(**changes), order, HERE, spent())
        assert refused.value.field == "training", changes


def grouped_merge(**changes: Any) -> MergeWork:
    """Of what a group merged of `m1` and `m2`, and of a model of another site."""
    group = merge(part=True, rule=MergeRule())
    facts = (
        msgspec.structs.replace(
            late_merge().lineage[2].fact, part=True, rule=MergeRule(), model_out=Digest("g1")
        ),
        msgspec.structs.replace(visited("alone", 30).fact, model_out=Digest("m4")),
    )
    entries = tuple(Entry(fact=fact, previous=(), public_key="", signature="") for fact in facts)
    work = merge(
        trained=(ref("g1"), ref("m4")), shares=(100, 30), lineage=(*group.lineage, *entries),
        rule=RULES[Algorithm.FEDADAM],
    )  # fmt: skip
    return msgspec.structs.replace(work, **changes)


def test_groups_are_merged_by_their_mean_and_what_they_make_is_for_a_merge_alone() -> None:
    order = ordered(wanted(training=Training(algorithm=Algorithm.FEDADAM)))
    check_ordered(grouped_merge(), order, HERE, spent())
    check_ordered(merge(part=True, rule=MergeRule()), order, HERE, spent())
    refusals: tuple[tuple[MergeWork, str], ...] = (
        (merge(part=True, rule=RULES[Algorithm.FEDADAM]), "training.merging"),
        (merge(rule=MergeRule()), "training.merging"),
        (grouped_merge(shares=(101, 30)), "training"),
        (grouped_merge(trained=(ref("g1"), ref("m1")), shares=(100, 60)), "training"),
        (grouped_merge(lineage=grouped_merge().lineage[1:]), "training"),
    )
    for work, field in refusals:
        with pytest.raises(Refused) as refused:
            check_ordered(work, order, HERE, spent())
        assert refused.value.field == field
    robust = ordered(wanted(training=Training(algorithm=Algorithm.MEDIAN)))
    with pytest.raises(Refused, match="rule of merging"):
        check_ordered(merge(part=True, rule=MergeRule()), robust, HERE, spent())
    lineage = grouped_merge().lineage
    part = lineage[2]
    same = msgspec.structs.replace(
        part, fact=msgspec.structs.replace(part.fact, part=False, models=(Digest("g1"),))
    )
    alike = msgspec.structs.replace(MEASURE, model=ref("g1"), lineage=(*lineage, same))
    check_ordered(alike, order, HERE, spent())
    for given in (VISIT, MEASURE):
        on_part = msgspec.structs.replace(given, model=ref("g1"), lineage=lineage)
        with pytest.raises(Refused, match="part of a round"):
            check_ordered(on_part, order, HERE, spent())


def test_updates_travel_in_the_ordered_form_and_are_visited_by_nobody() -> None:
    int8 = msgspec.structs.replace(VISIT, compression=Compression.INT8)
    check_ordered(int8, ordered(INTENT), HERE, spent())
    whole = wanted(training=Training(algorithm=Algorithm.FEDAVG, compression=Compression.NONE))
    int8 = msgspec.structs.replace(int8, local=whole.training.local)
    with pytest.raises(Refused) as refused:
        check_ordered(int8, ordered(whole), HERE, spent())
    assert refused.value.field == "training.compression"
    fact = msgspec.structs.replace(
        visited("slow", 30).fact, model_out=Digest("u1"), compression=Compression.INT8
    )
    lineage = (Entry(fact=fact, previous=(), public_key="", signature=""),)
    with pytest.raises(Refused, match="part of a round"):
        check_ordered(
            msgspec.structs.replace(MEASURE, model=ref("u1"), lineage=lineage),
            ordered(INTENT),
            HERE,
            spent(),
        )


def test_models_of_chains_count_for_all_that_they_learned_where_chains_are_ordered() -> None:
    first, second = merge().lineage
    onward = msgspec.structs.replace(second.fact, model_in=Digest("m1"))
    chain = (first, msgspec.structs.replace(second, fact=onward))
    work = merge(trained=(ref("m2"),), shares=(100,), lineage=chain)
    order = ordered(wanted(training=Training(algorithm=Algorithm.FEDSEQ)))
    check_ordered(work, order, HERE, spent())
    twice = merge(shares=(60, 100), lineage=chain)
    with pytest.raises(Refused, match="data counts twice"):
        check_ordered(twice, order, HERE, spent())
    plain = ordered(wanted(training=Training(algorithm=Algorithm.FEDAVG)))
    with pytest.raises(Refused, match="several sites"):
        check_ordered(work, plain, HERE, spent())


def test_a_site_trains_in_the_ordered_way_only() -> None:
    ewc = Training(algorithm=Algorithm.EWC, consolidation=0.5)
    work = msgspec.structs.replace(VISIT, local=ewc.local)
    check_ordered(work, ordered(wanted(training=ewc)), HERE, spent())
    for training in (Training(), Training(algorithm=Algorithm.EWC)):
        with pytest.raises(Refused, match="this way of training"):
            check_ordered(work, ordered(wanted(training=training)), HERE, spent())


def test_a_visit_goes_on_from_what_was_made_of_its_own_data_only() -> None:
    training = Training(algorithm=Algorithm.SCAFFOLD)
    order = ordered(wanted(training=training))
    for site, fits in ((HERE.site, True), ("elsewhere", False)):
        made = visited(site, 50)
        work = msgspec.structs.replace(
            VISIT, local=training.local, own=ref(left_by(made.fact)), lineage=(made,),
            model=ref("m0"),
        )  # fmt: skip
        if fits:
            check_ordered(work, order, HERE, spent())
        else:
            with pytest.raises(Refused, match="other data"):
                check_ordered(work, order, HERE, spent())


def test_partial_work_counts_for_the_site_s_data_and_no_more() -> None:
    order = ordered(wanted(training=Training(algorithm=Algorithm.FEDAVG, epochs=2.0)))
    samples = HERE.datasets[0].samples
    part = msgspec.structs.replace(
        VISIT,
        dataset=HERE.datasets[0].name,
        examples=1,
        local=order.intent.training.local,
    )
    check_ordered(msgspec.structs.replace(part, stands_for=2 * samples), order, HERE, spent())
    with pytest.raises(Refused, match="counts as"):
        check_ordered(
            msgspec.structs.replace(part, stands_for=2 * samples + 1), order, HERE, spent()
        )
    signed = merge().lineage[0]
    slow = msgspec.structs.replace(
        signed, fact=msgspec.structs.replace(signed.fact, stands_for=200)
    )
    lineage = (slow, *merge().lineage[1:])
    check_ordered(merge(lineage=lineage, shares=(200, 40)), order, HERE, spent())
    with pytest.raises(Refused, match="count for more"):
        check_ordered(merge(lineage=lineage), order, HERE, spent())
