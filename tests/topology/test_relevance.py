"""MS-DRRT: what may teach and measure a model, and what an owner is told of everything else."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from daitn.objects.cordons import Cordon
from daitn.objects.decisions import Rejection
from daitn.objects.descriptors import ComputeDescriptor, DataPolicy, NodeDescriptor
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import ObjectiveName, SiteId
from daitn.objects.intents import (
    Objective,
    PinnedVisit,
    Quantity,
    Requirement,
    Training,
)
from daitn.objects.merging import Algorithm
from daitn.objects.model_needs import ColumnsNeeded
from daitn.objects.privacy import PrivacyDemand, PrivacyWish
from daitn.objects.quorum import Quorum
from daitn.objects.readings import LinkReading, LoadReading, Reading
from daitn.topology.relaxation import relaxed
from daitn.topology.snapshot import Drrt, MsDrrt
from daitn.topology.state import DrrtState

from .medicine import (
    NOW_S,
    RECIPE,
    TOPICS,
    cut,
    data_site,
    dataset,
    drrt,
    exam,
    intent,
    link,
    nodes,
    verifier_site,
)

BROAD, EXPERT = ObjectiveName("broad"), ObjectiveName("expert")


def at_least(quantity: Quantity, value: float) -> Requirement:
    return Requirement(quantity=quantity, at_least=value)


def at_most(quantity: Quantity, value: float) -> Requirement:
    return Requirement(quantity=quantity, at_most=value)


def told(relevant: MsDrrt, candidate: str) -> dict[str, Rejection]:
    return {r.filter: r for r in relevant.rejections if r.candidate == candidate}


def only(*described: NodeDescriptor, **changes: object) -> Drrt:
    """One data site `a` with the verifiers of the nine sites."""
    node = msgspec.structs.replace(data_site("a", dataset("a", "medicine/neurology")), **changes)
    return drrt([node, *described, *nodes()[-2:]])


def test_all_nine_sites_can_teach_medicine() -> None:
    relevant = cut(drrt(nodes()), intent())
    assert [option.site for option in relevant.options] == sorted(TOPICS)
    assert [v.site for v in relevant.verifiers[BROAD]] == ["board"]
    assert [v.site for v in relevant.verifiers[EXPERT]] == ["clinic"]


def test_fit_says_who_teaches_what() -> None:
    fit = {option.site: option.fit for option in cut(drrt(nodes()), intent()).options}
    assert fit[SiteId("ninds")] == {BROAD: pytest.approx(2 / 3), EXPERT: 1.0}
    assert fit[SiteId("cdc")] == {BROAD: pytest.approx(2 / 3), EXPERT: 0.5}


def test_coverage_is_the_share_of_test_items_with_a_label_that_the_data_has() -> None:
    option = cut(drrt(nodes()), intent()).options[0]
    assert option.coverage == {BROAD: 0.75, EXPERT: 0.75}


def test_nothing_is_covered_where_nobody_can_measure() -> None:
    option = cut(drrt(nodes(), lost=["clinic"]), intent()).options[0]
    assert option.coverage == {BROAD: 0.75, EXPERT: 0.0}


def test_narrow_topics_leave_out_what_is_broader_or_beside_them() -> None:
    relevant = cut(drrt(nodes()), intent(topics=("medicine/neurology",)))
    assert [option.id for option in relevant.options] == ["ninds/questions"]
    refused = told(relevant, "cdc/questions")["topic"]
    assert refused.relax_to == '["medicine/general","medicine/neurology"]'
    assert refused.shortfall == 0.5


@pytest.mark.parametrize(
    ("changed", "name", "field"),
    [
        ({"compute": None}, "compute", ""),
        (
            {"datasets": (dataset("a", "medicine", data_schema="table/1"),)},
            "schema",
            "model.recipe",
        ),
        (
            {"datasets": (dataset("a", "medicine", policy=DataPolicy(recipes=("other",))),)},
            "recipe-allowed",
            "model.recipe",
        ),
        (
            {
                "datasets": (
                    dataset(
                        "a", "medicine", policy=DataPolicy(recipes=(RECIPE,), owners=("friends",))
                    ),
                )
            },
            "owner-allowed",
            "owner",
        ),
        (
            {
                "compute": ComputeDescriptor(
                    device="cpu", memory_bytes=8_000_000_000, speed_flops=1e9, recipes=("other",)
                )
            },
            "recipe-installed",
            "model.recipe",
        ),
    ],
)
def test_what_no_change_of_a_bound_can_mend_is_told_without_one(
    changed: dict[str, object], name: str, field: str
) -> None:
    refused = told(cut(only(**changed), intent()), "a/questions")[name]
    assert (refused.field, refused.relax_to) == (field, "")
    with pytest.raises(InvalidInput, match="no value of the intent"):
        relaxed(intent(), refused)


def test_a_cordoned_site_gets_nothing_and_its_reason_is_told() -> None:
    cordon = Cordon(by="ops", since_s=1.0, reason="new disks")
    relevant = cut(only(cordon=cordon), intent())
    refused = told(relevant, "a/questions")["cordoned"]
    assert refused.reason == "site a is cordoned by ops: new disks"
    assert (refused.field, refused.relax_to) == ("", "")
    assert not relevant.options
    unit = msgspec.structs.replace(verifier_site("v", exam("medicine/neurology")), cordon=cordon)
    measured = cut(drrt([data_site("a", dataset("a", "medicine/neurology")), unit]), intent())
    (name,) = {r.reason for r in measured.rejections if r.filter == "verifier-cordoned"}
    assert name == "verifier v is cordoned by ops: new disks"
    assert not any(measured.verifiers.values())


def test_memory_is_told_in_bytes() -> None:
    refused = told(cut(only(), intent(), memory_bytes=9_000_000_000), "a/questions")["memory"]
    assert (refused.shortfall, refused.unit) == (1e9, "bytes")


def test_every_filter_is_told_not_only_the_first() -> None:
    asked = intent(at_least(Quantity.SAMPLES, 1000), at_most(Quantity.AGE_S, 60), topics=("law",))
    refused = told(cut(drrt(nodes(), lost=["cdc"]), asked), "cdc/questions")
    assert set(refused) == {"alive", "topic", "samples", "age_s"}
    assert (refused["samples"].shortfall, refused["samples"].unit) == (550, "samples")
    assert refused["samples"].field == "requirements[0].at_least"
    assert refused["samples"].relax_to == "450"


def test_a_proposed_bound_is_rounded_so_that_more_passes() -> None:
    sold = dataset("a", "medicine", samples=1239, price_usd_per_1k=1.2341)
    asked = intent(at_least(Quantity.SAMPLES, 5000), at_most(Quantity.PRICE_USD_PER_1K, 1.0))
    snapshot = only(datasets=(sold,))
    refused = told(cut(snapshot, asked), "a/questions")
    assert refused["samples"].relax_to == "1230"
    assert refused["price_usd_per_1k"].relax_to == "1.24"
    mended = relaxed(relaxed(asked, refused["samples"]), refused["price_usd_per_1k"])
    assert cut(snapshot, mended).options


def test_a_link_is_the_best_that_a_live_site_measured() -> None:
    links = [
        link("ninds", "cdc", rtt_s=0.001),
        link("nhlbi", "cdc", rtt_s=0.08),
        link("niddk", "cdc", rtt_s=0.09),
        link("cdc", "cdc", rtt_s=0.0001),
    ]
    asked = intent(at_most(Quantity.RTT_S, 0.05))
    refused = told(cut(drrt(nodes(), links, lost=["ninds"]), asked), "cdc/questions")["rtt_s"]
    assert refused.shortfall == pytest.approx(0.03)
    assert refused.relax_to == "0.08"
    assert "cdc" in {o.site for o in cut(drrt(nodes(), links), asked).options}


def test_an_unmeasured_link_does_not_pass_silently() -> None:
    asked = intent(at_least(Quantity.THROUGHPUT_BPS, 1.0))
    relevant = cut(drrt(nodes(), [link("ninds", "cdc", rtt_s=0.001)]), asked)
    assert not relevant.options
    assert "no live site has measured" in told(relevant, "cdc/questions")["throughput_bps"].reason


def test_a_stale_link_is_told_by_its_age() -> None:
    asked = intent(at_most(Quantity.RTT_S, 1.0))
    links = [link("ninds", "cdc", rtt_s=0.001, at_s=NOW_S - 5000)]
    refused = told(cut(drrt(nodes(), links), asked), "cdc/questions")["rtt_s"]
    assert "5000 s old" in refused.reason
    assert relaxed(asked, refused).requirements == ()


def test_a_price_that_is_no_number_does_not_pass() -> None:
    sold = dataset("a", "medicine", price_usd_per_1k=math.nan)
    asked = intent(at_most(Quantity.PRICE_USD_PER_1K, 5.0))
    refused = told(cut(only(datasets=(sold,)), asked), "a/questions")["price_usd_per_1k"]
    assert "no finite number" in refused.reason


def test_a_queue_counts_only_while_its_reading_is_fresh() -> None:
    def queue(at_s: float) -> int:
        state = DrrtState()
        for node in nodes():
            state.absorb(node, NOW_S)
        reading = Reading(4.0, at_s, SiteId("cdc"))
        state.absorb(
            LoadReading(
                site=SiteId("cdc"), queue=reading, cpu_share=reading, disk_free_bytes=reading
            ),
            NOW_S,
        )
        options = cut(state.snapshot(NOW_S), intent()).options
        return next(option.queue for option in options if option.site == "cdc")

    assert queue(NOW_S - 10) == 4
    assert queue(NOW_S - 5000) == 0


def test_data_whose_models_may_not_reach_a_verifier_is_out() -> None:
    policy = DataPolicy(recipes=(RECIPE,), release_to=("CA",))
    closed = data_site("a", dataset("a", "medicine", policy=policy))
    relevant = cut(drrt([closed, *nodes()[-2:]]), intent())
    assert told(relevant, "a/questions")["release"].shortfall == 1
    abroad = verifier_site(
        "toronto", exam("medicine"), exam("medicine/neurology"), jurisdiction="CA"
    )
    assert cut(drrt([closed, *nodes()[-2:], abroad]), intent()).options


def test_a_verifier_beside_the_data_needs_no_release() -> None:
    policy = DataPolicy(recipes=(RECIPE,), release_to=())
    here = verifier_site("a", exam("medicine"), exam("medicine/neurology"))
    closed = msgspec.structs.replace(
        data_site("a", dataset("a", "medicine", policy=policy)), verifier=here.verifier
    )
    assert cut(drrt([closed]), intent()).options


CLOSED = ("Tue 00:00-24:00",)
"""`NOW_S` is a Monday."""


def test_data_of_another_purpose_or_outside_of_its_hours_is_out() -> None:
    policy = DataPolicy(recipes=(RECIPE,), purposes=("research",), hours=CLOSED)
    held = data_site("a", dataset("a", "medicine", policy=policy))
    snapshot = drrt([held, *nodes()])
    refused = told(cut(snapshot, intent()), "a/questions")
    assert set(refused) == {"purpose-allowed", "hours"}
    assert refused["purpose-allowed"].field == "purpose"
    assert "Tue 00:00-24:00 (UTC)" in refused["hours"].reason
    stated = msgspec.structs.replace(intent(), purpose="research")
    assert set(told(cut(snapshot, stated), "a/questions")) == {"hours"}
    tomorrow = cut(snapshot, stated, now_s=NOW_S + 86_400.0)
    assert "a" in {option.site for option in tomorrow.options}


def test_a_start_model_is_left_out_where_the_data_owner_did_not_agree() -> None:
    held = {
        name: data_site(
            name,
            dataset(
                name, "medicine", policy=DataPolicy(recipes=(RECIPE,), start_models=name == "open")
            ),
        )
        for name in ("open", "shut")
    }
    snapshot = drrt([*held.values(), *nodes()])
    brings = msgspec.structs.replace(
        intent(), model=msgspec.structs.replace(intent().model, start="parts")
    )
    refused = told(cut(snapshot, brings), "shut/questions")
    assert set(refused) == {"start-model"}
    assert refused["start-model"].field == "model.start"
    assert not told(cut(snapshot, brings), "open/questions")
    assert not told(cut(snapshot, intent()), "shut/questions")


def test_a_test_set_whose_policy_says_no_does_not_measure() -> None:
    policies = {
        "verifier-policy": DataPolicy(recipes=(RECIPE,), owners=("friends",)),
        "verifier-hours": DataPolicy(recipes=(RECIPE,), hours=CLOSED),
    }
    for name, policy in policies.items():
        board = verifier_site("board", exam("medicine", policy=policy))
        relevant = cut(drrt([*nodes()[:9], board, nodes()[-1]]), intent())
        assert relevant.verifiers[BROAD] == ()
        assert [v.site for v in relevant.verifiers[EXPERT]] == ["clinic"]
        refused = told(relevant, "board")
        assert name in refused
        assert refused[name].reason.startswith("the owner of the test set ")


def test_a_pinned_site_that_cannot_train_is_told() -> None:
    route = tuple(
        PinnedVisit(site=SiteId(site), examples=10) for site in ("cdc", "nidds", "gard", "board")
    )
    relevant = cut(drrt(nodes(), lost=["gard"]), intent(route=route))
    pinned = {r.field: r for r in relevant.rejections if r.filter == "pinned"}
    assert set(pinned) == {"route[1].site", "route[2].site", "route[3].site"}
    assert "not in the network" in pinned["route[1].site"].reason
    assert "not connected now" in pinned["route[2].site"].reason
    assert "no data set" in pinned["route[3].site"].reason
    mended = relaxed(intent(route=route), pinned["route[1].site"])
    assert mended.route[1].site in TOPICS


def test_data_with_labels_that_the_model_does_not_tell_apart_is_out() -> None:
    told_apart = ("information", "treatment", "outlook")
    odd = data_site("odd", dataset("odd", "medicine", labels={"information": 5, "Treatment": 5}))
    relevant = cut(drrt([odd, *nodes()]), intent(), labels=told_apart)
    assert "odd" not in {option.site for option in relevant.options}
    assert "ninds" in {option.site for option in relevant.options}
    refused = told(relevant, "odd/questions")
    assert set(refused) == {"labels"}
    assert refused["labels"].field == "model.config.classes"
    assert "Treatment" in refused["labels"].reason
    assert "model.config.classes" in refused["labels"].reason
    assert refused["labels"].relax_to == ""
    assert cut(drrt([odd, *nodes()]), intent()).options[0].site == "cancergov"
    assert "odd" in {option.site for option in cut(drrt([odd, *nodes()]), intent()).options}


def test_a_test_set_with_labels_that_the_model_does_not_tell_apart_cannot_measure_it() -> None:
    relevant = cut(drrt(nodes()), intent(), labels=("information", "treatment"))
    assert relevant.verifiers[BROAD] == ()
    refused = told(relevant, "board")["verifier-labels"]
    assert "outlook" in refused.reason
    assert refused.field == "model.config.classes"


class TestColumns:
    """Tables and models of other widths do not fit; nothing is known of what an earlier release
    describes."""

    THREE = ColumnsNeeded(least=3, most=3, field="model.config.features", fix="count them")

    def cut(
        self, data: int | None, tested: int | None, needed: ColumnsNeeded, metric: str = "accuracy"
    ) -> MsDrrt:
        """A site `a` and a verifier `board` with tables of so many columns."""
        of_data, of_test = (msgspec.UNSET if n is None else n for n in (data, tested))
        site = data_site("a", dataset("a", "medicine", columns=of_data))
        board = verifier_site("board", exam("medicine", columns=of_test, metrics=(metric,)))
        objective = Objective(name="broad", topic="medicine", at_least=0.5, metric=metric)
        return cut(drrt([site, board]), intent(objectives=(objective,)), columns=needed)

    @pytest.mark.parametrize("data", [3, None])
    @pytest.mark.parametrize("tested", [3, None])
    def test_those_that_fit_or_are_unknown_pass(self, data: int | None, tested: int | None) -> None:
        relevant = self.cut(data, tested, self.THREE)
        assert not relevant.rejections
        assert relevant.options
        assert relevant.verifiers[BROAD]

    def test_what_does_not_fit_is_named_with_the_field_and_what_to_do(self) -> None:
        relevant = self.cut(2, 2, self.THREE)
        assert not relevant.options
        assert not relevant.verifiers[BROAD]
        for candidate, name in (("a/questions", "columns"), ("board", "verifier-columns")):
            refused = told(relevant, candidate)[name]
            assert refused.field == "model.config.features"
            assert "2 columns" in refused.reason
            assert "model.config.features is for 3; count them" in refused.reason

    def test_a_maximum_is_one_too(self) -> None:
        few = ColumnsNeeded(most=2, field="model.config.ranges", fix="state more")
        assert self.cut(1, 1, few).options
        refused = told(self.cut(4, 2, few), "a/questions")["columns"]
        assert "model.config.ranges is for at most 2; state more" in refused.reason
        assert refused.shortfall == 2.0

    def test_a_model_is_measured_on_as_many_columns_as_it_learned(self) -> None:
        refused = told(self.cut(3, 2, ColumnsNeeded()), "a/questions")
        assert set(refused) == {"measured-columns"}
        assert "3 columns to learn from, and broad is measured on 2" in (
            refused["measured-columns"].reason
        )
        assert self.cut(3, None, ColumnsNeeded()).options
        assert self.cut(2, 3, ColumnsNeeded(), "unexposed").options  # Probes have one more.

    def test_what_reads_no_columns_needs_none(self) -> None:
        board = verifier_site("board", exam("medicine", columns=2))
        site = data_site("a", dataset("a", "medicine", columns=3))
        objective = Objective(name="broad", topic="medicine", at_least=0.5)
        assert cut(drrt([site, board]), intent(objectives=(objective,))).options


def test_a_metric_that_the_recipe_does_not_compute_is_not_measured() -> None:
    board = verifier_site("board", exam("medicine", metrics=("fluency", "accuracy")))
    asked = intent(
        objectives=(Objective(name="b", topic="medicine", at_least=0.5, metric="fluency"),)
    )
    assert cut(drrt([board]), asked).verifiers[ObjectiveName("b")]
    relevant = cut(drrt([board]), asked, metrics=("accuracy",))
    assert not relevant.verifiers[ObjectiveName("b")]
    refused = told(relevant, "board")["verifier-metric"]
    assert refused.field == "objectives[0].metric"
    assert "cannot measure fluency, which the recipe does not compute" in refused.reason
    assert relaxed(asked, refused).objectives[0].metric == "accuracy"


def test_a_model_that_no_site_can_make_needs_a_start() -> None:
    relevant = cut(drrt(nodes()), intent(), imported=True)
    assert not relevant.options
    assert told(relevant, "cdc/questions")["start"].field == "model.start"
    model = msgspec.structs.replace(intent().model, start="folder")
    started = msgspec.structs.replace(intent(), model=model)
    assert "start" not in told(cut(drrt(nodes()), started, imported=True), "cdc/questions")


class TestPath:
    """Two sites between which every echo is lost have no path."""

    def cut(self, *links: LinkReading, known_s: float = 3600.0) -> MsDrrt:
        state = DrrtState()
        since_s = NOW_S - known_s
        clinic = verifier_site("clinic", exam("medicine"), exam("medicine/neurology"))
        for node in (*nodes()[:9], clinic):
            state.absorb(node, since_s)
        for reading in links:
            state.absorb(reading, NOW_S)
        return cut(state.snapshot(NOW_S), intent())

    def lost(self, source: str, target: str) -> LinkReading:
        return link(source, target, loss=1.0)

    def test_data_that_no_verifier_can_fetch_from_is_out(self) -> None:
        relevant = self.cut(self.lost("cdc", "clinic"), self.lost("clinic", "cdc"))
        assert "cdc" not in {option.site for option in relevant.options}
        refused = told(relevant, "cdc/questions")["path"]
        assert "no path between cdc and who measures" in refused.reason
        assert "listen: []" in refused.reason

    @pytest.mark.parametrize("way_back", [{"loss": 0.9}, {"rtt_s": 0.1, "loss": 1.0}, {}])
    def test_one_echo_that_came_back_or_was_not_tried_is_enough(
        self, way_back: dict[str, float]
    ) -> None:
        relevant = self.cut(self.lost("cdc", "clinic"), link("clinic", "cdc", **way_back))
        assert "cdc" in {option.site for option in relevant.options}

    def test_sites_that_have_just_come_are_given_time_to_find_each_other(self) -> None:
        links = self.lost("cdc", "clinic"), self.lost("clinic", "cdc")
        relevant = self.cut(*links, known_s=10.0)
        assert "cdc" in {option.site for option in relevant.options}


def test_a_stated_site_none_of_whose_data_can_be_used_says_why() -> None:
    odd = data_site("odd", dataset("odd", "medicine", labels={"0.0": 5}))
    route = (PinnedVisit(site=SiteId("odd"), examples=10),)
    labels = ("information", "treatment", "outlook")
    relevant = cut(drrt([odd, *nodes()]), intent(route=route), labels=labels)
    (pinned,) = [r for r in relevant.rejections if r.filter == "pinned"]
    assert "odd/questions: its labels 0.0 are not among model.config.classes" in pinned.reason


def test_a_verifier_is_told_by_the_test_set_that_comes_nearest() -> None:
    tests = exam("law"), exam("medicine/oncology")
    snapshot = drrt([*nodes()[:9], verifier_site("board", *tests)])
    relevant = cut(snapshot, intent())
    assert relevant.verifiers == {BROAD: (), EXPERT: ()}
    for refused, share in zip(
        (r for r in relevant.rejections if r.candidate == "board"), (1 / 3, 1 / 2), strict=True
    ):
        assert refused.filter == "verifier-topic"
        assert refused.relax_to == '"medicine/oncology"'
        assert refused.shortfall == pytest.approx(share)
        assert "medicine/oncology, law" in refused.reason


def test_a_lost_verifier_cannot_measure() -> None:
    relevant = cut(drrt(nodes(), lost=["clinic"]), intent())
    assert relevant.verifiers[EXPERT] == ()
    assert told(relevant, "clinic")["verifier-alive"].field == "objectives[1]"


def test_data_is_left_out_whose_privacy_is_spent_or_whose_owner_wants_sums() -> None:
    demand = PrivacyDemand(epsilon_total=3.0, epsilon_per_visit=1.0)
    private = DataPolicy(recipes=(RECIPE,), privacy=demand)
    summed = DataPolicy(recipes=(RECIPE,), secure_aggregation=True)
    held = {
        "left": msgspec.structs.replace(
            dataset("left", "medicine", policy=private), private_visits_left=2
        ),
        "spent": msgspec.structs.replace(
            dataset("spent", "medicine", policy=private), private_visits_left=0
        ),
        "summed": dataset("summed", "medicine", policy=summed),
    }
    snapshot = drrt([*(data_site(name, one) for name, one in held.items()), *nodes()])
    able = cut(snapshot, intent(), private=True)
    assert "left" in {option.site for option in able.options}
    refused = told(able, "spent/questions")
    assert set(refused) == {"privacy-budget"}
    assert "epsilon 3" in refused["privacy-budget"].reason
    refused = told(able, "summed/questions")
    assert set(refused) == {"secure-aggregation"}
    assert refused["secure-aggregation"].field == "training.secure_aggregation"
    assert set(told(cut(snapshot, intent()), "left/questions")) == {"privacy"}
    rounds = Training(algorithm=Algorithm.FEDAVG, secure_aggregation=True)
    secure = msgspec.structs.replace(intent(), training=rounds)
    assert "summed" in {option.site for option in cut(snapshot, secure).options}
    wish = Training(privacy=PrivacyWish(epsilon=1.0))
    wished = msgspec.structs.replace(intent(), training=wish)
    assert not cut(snapshot, wished).options


@pytest.mark.parametrize("algorithm", [one for one in Algorithm if one is not Algorithm.AUTO])
def test_data_whose_owner_demands_privacy_is_left_out_where_it_would_be_refused(
    algorithm: Algorithm,
) -> None:
    demand = PrivacyDemand(epsilon_total=3.0, epsilon_per_visit=1.0)
    policy = DataPolicy(recipes=(RECIPE,), privacy=demand)
    snapshot = drrt([data_site("kept", dataset("kept", "medicine", policy=policy)), *nodes()])
    asked = msgspec.structs.replace(intent(), training=Training(algorithm=algorithm))
    relevant = cut(snapshot, asked, private=True)
    if algorithm in ("fedprox", "scaffold", "ewc", "lwf"):
        assert told(relevant, "kept/questions")["privacy"].field == "training.algorithm"
    else:
        assert "kept" in {option.site for option in relevant.options}


def test_a_pull_that_privacy_does_not_cover_is_named() -> None:
    demand = PrivacyDemand(epsilon_total=3.0, epsilon_per_visit=1.0)
    policy = DataPolicy(recipes=(RECIPE,), privacy=demand)
    snapshot = drrt([data_site("kept", dataset("kept", "medicine", policy=policy)), *nodes()])
    pulled = Training(algorithm=Algorithm.FEDAVG, mu=0.1)
    asked = msgspec.structs.replace(intent(), training=pulled)
    assert told(cut(snapshot, asked, private=True), "kept/questions")["privacy"].field == (
        "training.mu"
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"items": 60}, "has 60 items, and a quorum needs 100"),
        ({"items": 60, "metrics": ("rmse",)}, "the sampling error of rmse is unknown"),
    ],
)
def test_a_quorum_takes_verifiers_that_can_be_compared(change: dict[str, Any], why: str) -> None:
    tests = [
        msgspec.structs.replace(exam(topic), **change)
        for topic in ("medicine", "medicine/neurology")
    ]
    metric = change.get("metrics", ("accuracy",))[0]
    asked = msgspec.structs.replace(
        intent(),
        objectives=tuple(msgspec.structs.replace(o, metric=metric) for o in intent().objectives),
    )
    snapshot = drrt([*nodes()[:9], verifier_site("small", *tests)])
    assert "small" in cut(snapshot, asked).verifier_sites(BROAD)
    quorate = msgspec.structs.replace(asked, verification=Quorum(quorum=2, of=3))
    relevant = cut(snapshot, quorate)
    assert "small" not in relevant.verifier_sites(BROAD)
    refused = told(relevant, "small")["verifier-quorum"]
    assert why in refused.reason
    assert refused.field == "verification.quorum"
