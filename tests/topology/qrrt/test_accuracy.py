"""What is believed of a deployment's accuracy, and on which grounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.identity.keys import SigningKey
from daitn.objects.deployments import DeploymentDescriptor
from daitn.objects.descriptors import Role
from daitn.objects.findings import Finding
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.queries import Trust
from daitn.topology.qrrt.accuracy import TRUSTED, accuracy_on
from daitn.topology.qrrt.knowledge import MOST_TOPICS
from daitn.topology.qrrt.served import served_models
from daitn.topology.qrrt.snapshot import Qrrt
from daitn.topology.qrrt.state import QrrtState

from .world import (
    KEY,
    NOW_S,
    OTHER_KEY,
    OTHER_WEIGHTS,
    deployment,
    evidence,
    facility,
    finding,
    node,
    state_of,
    tell,
    unit,
)

NEUROLOGY = "medicine/neurology"


def of(model: DeploymentDescriptor, *findings: Finding) -> Qrrt:
    return state_of([unit(), facility("mdf", model)], *findings).snapshot()


def known(snapshot: Qrrt, topic: str, least: Trust = Trust.CLAIMED, row: int = 0) -> float:
    return float(accuracy_on(snapshot, topic, least).value[row])


def test_a_claim_is_shown_and_believed_by_nobody() -> None:
    snapshot = of(deployment("doctor", claimed={"medicine": 0.99}))
    assert known(snapshot, "medicine") == 0.99
    assert math.isnan(known(snapshot, "medicine", Trust.WEIGHTS))


def test_evidence_counts_with_the_key_of_a_known_unit_only() -> None:
    model = deployment("doctor", evidence=(evidence("medicine", 0.8),))
    assert known(of(model), "medicine", Trust.WEIGHTS) == 0.8
    assert math.isnan(known(of(model), "medicine", Trust.ASKED))
    forged = deployment("doctor", evidence=(evidence("medicine", 0.8, OTHER_KEY),))
    assert math.isnan(known(of(forged), "medicine"))


def test_a_site_that_is_no_unit_signs_nothing_that_counts() -> None:
    model = deployment("doctor", evidence=(evidence("medicine", 0.8),))
    state = state_of([node("board", Role.COMPUTE, public_key=KEY.public), facility("mdf", model)])
    assert math.isnan(known(state.snapshot(), "medicine"))
    state.described(unit(version=2), NOW_S)
    assert known(state.snapshot(), "medicine") == 0.8
    state.described(node("board", Role.COMPUTE, public_key=KEY.public, version=3), NOW_S)
    assert math.isnan(known(state.snapshot(), "medicine"))


def test_nothing_that_a_removed_unit_measured_counts_any_more() -> None:
    model = deployment("doctor", evidence=(evidence("medicine", 0.8),))
    asked = finding("doctor", "mdf", "law", 0.6, degraded=True)
    state = state_of([unit(), facility("mdf", model)], asked)
    before = state.snapshot()
    assert (known(before, "medicine"), known(before, "law")) == (0.8, 0.6)
    assert before.columns.degraded[0]
    state.removed(SiteId("board"), NOW_S)
    after = state.snapshot()
    assert math.isnan(known(after, "medicine"))
    assert math.isnan(known(after, "law"))
    assert not after.columns.degraded[0]
    state.described(unit(version=2), NOW_S)
    assert known(state.snapshot(), "medicine") == 0.8, "its signature is good again"
    assert math.isnan(known(state.snapshot(), "law")), "and what was dropped is gone"


def test_a_removed_facility_takes_its_deployments_along() -> None:
    state = state_of([facility("mdf", deployment("doctor")), facility("hub", deployment("doctor"))])
    state.removed(SiteId("mdf"), NOW_S)
    snapshot = state.snapshot()
    assert [row.site for row in snapshot.rows] == ["hub"]
    assert set(snapshot.nodes) == {"hub"}
    state.removed(SiteId("nobody"), NOW_S)
    assert state.snapshot() is snapshot


def test_measurements_of_other_weights_do_not_count() -> None:
    model = deployment(
        "doctor", evidence=(evidence("medicine", 0.8, model=OTHER_WEIGHTS),), manifest=None
    )
    assert math.isnan(known(of(model), "medicine"))
    swapped = finding("doctor", "mdf", "medicine", 0.8, manifest=OTHER_WEIGHTS)
    assert math.isnan(known(of(deployment("doctor"), swapped), "medicine"))
    state = state_of([facility("mdf", deployment("doctor"))], swapped)
    swap = facility("mdf", deployment("doctor", manifest=OTHER_WEIGHTS), version=2)
    state.described(swap, NOW_S)
    assert known(state.snapshot(), "medicine") == 0.8


def test_measurements_are_pooled_by_their_items() -> None:
    model = deployment("doctor", evidence=(evidence("medicine", 0.8, items=100),))
    snapshot = of(model, finding("doctor", "mdf", "medicine", 0.74, items=300))
    pooled = accuracy_on(snapshot, "medicine", Trust.ASKED)
    assert pooled.value[0] == pytest.approx((0.8 * 100 + 0.74 * 300) / 400)
    assert pooled.trust[0] == TRUSTED[Trust.ASKED]
    assert pooled.at_s[0] == NOW_S - 60


def by(verifier: str, value: float, **said: Any) -> Finding:
    said = {"items": 240, "at_s": NOW_S - 60, **said}
    return finding("doctor", "mdf", "medicine", value, verifier=SiteId(verifier), **said)


HONEST = tuple(by(f"honest-{number}", 0.88 + 0.01 * number) for number in range(5))
LIES = (
    by("liar", 0.0),
    by("liar", 0.0, items=900_000),
    by("liar", 0.0, items=10**15),
    by("liar", 1.0, items=2**63),
    by("liar", 0.0, at_s=1e300),
    by("liar", 0.0, items=1, degraded=True, two_faced=True),
    by("liar", 0.86, items=900_000),
)


@pytest.mark.parametrize("lie", LIES)
def test_no_verifier_decides_against_the_others(lie: Finding) -> None:
    snapshot = of(deployment("doctor"), *HONEST, lie)
    assert known(snapshot, "medicine", Trust.ASKED) == pytest.approx(0.9, abs=0.015)
    assert not snapshot.columns.degraded[0]
    assert snapshot.accuracies.topics["medicine"].at_s[0] <= NOW_S
    (served,) = served_models(snapshot).models
    assert not served.two_faced
    named = {*served.contradicted, *served.degraded_by, *served.two_faced_by}
    assert named == ({SiteId("liar")} if lie.value == 0.0 and lie.items < 10**6 else set())


def test_of_two_verifiers_that_differ_neither_decides() -> None:
    snapshot = of(deployment("doctor"), by("one", 0.9), by("other", 0.3, items=100_000))
    assert known(snapshot, "medicine") == pytest.approx(0.6)
    alone = of(deployment("doctor"), by("other", 0.3, items=100_000))
    assert known(alone, "medicine") == pytest.approx(0.3)


@pytest.mark.parametrize(("saying", "of_all", "out"), [(1, 1, True), (1, 2, False), (2, 2, True),
    (1, 3, False), (2, 3, True), (2, 4, False), (3, 5, True)])  # fmt: skip
def test_most_of_the_verifiers_take_a_deployment_out(saying: int, of_all: int, out: bool) -> None:
    told = [by(f"v{n}", 0.9, degraded=n < saying, two_faced=n < saying) for n in range(of_all)]
    snapshot = of(deployment("doctor"), *told)
    (served,) = served_models(snapshot).models
    assert bool(snapshot.columns.degraded[0]) is served.degraded is served.two_faced is out
    assert served.standing == ("two-faced" if out else "ready")
    assert len(served.two_faced_by) == saying
    assert len(served.measured_by) == of_all


@pytest.mark.parametrize("described_first", [True, False])
def test_an_owner_has_one_voice_however_many_verifiers_it_runs(*, described_first: bool) -> None:
    board = [unit(f"liar-{n}", owner=OwnerId("liar")) for n in range(5)]
    board += [unit(f"honest-{n}", owner=OwnerId(f"board-{n}")) for n in range(2)]
    lies = [by(f"liar-{n}", 0.1, degraded=True, two_faced=True) for n in range(5)]
    told = [*lies, by("honest-0", 0.9), by("honest-1", 0.9)]
    state = state_of([facility("mdf", deployment("doctor")), *(board if described_first else ())])
    for one in told:
        tell(state, one)
    for node_ in () if described_first else board:
        state.described(node_, NOW_S)
    snapshot = state.snapshot()
    assert known(snapshot, "medicine", Trust.ASKED) == pytest.approx(0.9)
    assert not snapshot.columns.degraded[0]
    (served,) = served_models(snapshot).models
    assert set(served.contradicted) == {f"liar-{n}" for n in range(5)}
    assert not served.two_faced
    state.described(unit("liar-0", owner=OwnerId("other"), version=3), NOW_S)
    state.described(unit("liar-1", owner=OwnerId("third"), version=3), NOW_S)
    assert state.snapshot().columns.degraded[0], "three owners of five"


def test_who_is_no_verifier_any_more_has_no_voice() -> None:
    board = [unit(f"liar-{n}", owner=OwnerId("liar")) for n in range(5)]
    board += [unit(f"honest-{n}", owner=OwnerId(f"board-{n}")) for n in range(2)]
    state = state_of([facility("mdf", deployment("doctor")), *board])
    for n in range(5):
        tell(state, by(f"liar-{n}", 0.1, degraded=True))
    for n in range(2):
        tell(state, by(f"honest-{n}", 0.8))
    for n in range(5):
        other = node(f"liar-{n}", Role.COMPUTE, owner=OwnerId("liar"), version=9)
        state.described(other, NOW_S)
    snapshot = state.snapshot()
    assert known(snapshot, "medicine", Trust.ASKED) == pytest.approx(0.8)
    assert not snapshot.columns.degraded[0]
    (served,) = served_models(snapshot).models
    assert not served.contradicted


def test_an_owner_that_is_called_like_a_site_speaks_for_itself() -> None:
    liars = [unit(f"liar-{n}", owner=OwnerId("honest")) for n in range(2)]
    state = state_of([facility("mdf", deployment("doctor")), *liars])
    for n in range(2):
        tell(state, by(f"liar-{n}", 0.1))
    tell(state, by("honest", 0.9))
    assert known(state.snapshot(), "medicine", Trust.ASKED) == pytest.approx(0.5)


def test_what_one_owner_measured_is_pooled_as_that_of_several() -> None:
    alone = state_of([unit(f"honest-{n}") for n in range(5)])
    for one in HONEST:
        tell(alone, one)
    alone.described(facility("mdf", deployment("doctor")), NOW_S)
    assert known(alone.snapshot(), "medicine") == pytest.approx(
        known(of(deployment("doctor"), *HONEST), "medicine")
    )


def test_verifiers_that_have_long_measured_nothing_hold_nobody_in_service() -> None:
    old = [by(f"gone-{n}", 0.9, at_s=NOW_S - 2 * 3600) for n in range(5)]
    snapshot = of(deployment("doctor"), *old, by("here", 0.2, degraded=True))
    assert snapshot.columns.degraded[0]


def test_a_two_faced_facility_does_not_lose_its_mark_by_another_manifest() -> None:
    marked = by("board", 0.5, degraded=True, two_faced=True)
    state = state_of([facility("mdf", deployment("doctor"))], marked)
    state.described(facility("mdf", deployment("doctor", manifest=OTHER_WEIGHTS), version=2), NOW_S)
    assert state.snapshot().columns.degraded[0]
    dropped = state_of([facility("mdf", deployment("doctor"))], by("board", 0.5, degraded=True))
    dropped.described(
        facility("mdf", deployment("doctor", manifest=OTHER_WEIGHTS), version=2), NOW_S
    )
    assert not dropped.snapshot().columns.degraded[0], "other weights may be as good as they are"


def test_a_verifier_has_one_voice_in_the_evidence() -> None:
    """However often it signs, and however many items it states."""
    keys = [SigningKey.generate() for _ in range(3)]
    nodes = [unit(f"v{n}", key) for n, key in enumerate(keys)]
    honest = [evidence("medicine", 0.9, keys[n], site=SiteId(f"v{n}")) for n in range(2)]
    lies = [
        evidence("medicine", 0.0, keys[2], site=SiteId("v2"), items=100_000, at_s=float(n))
        for n in range(9)
    ]
    model = deployment("doctor", evidence=(*honest, *lies))
    snapshot = state_of([*nodes, facility("mdf", model)]).snapshot()
    assert known(snapshot, "medicine", Trust.WEIGHTS) == pytest.approx(0.9)
    weights = deployment("doctor", evidence=(evidence("medicine", 0.82, items=900_000),))
    asked = of(weights, by("other", 0.9), by("third", 0.9))
    assert known(asked, "medicine") > 0.85, "at least half is by asking"


@given(st.permutations([*HONEST, *LIES[:2], *[by(f"v{n}", 0.1 * n) for n in range(8)]]))
def test_findings_count_alike_in_any_order(told: list[Finding]) -> None:
    there = of(deployment("doctor"), *told)
    back = of(deployment("doctor"), *reversed(told))
    assert known(there, "medicine") == known(back, "medicine")
    assert served_models(there) == served_models(back)


def test_where_asking_contradicts_the_evidence_only_asking_counts() -> None:
    model = deployment("doctor", evidence=(evidence("medicine", 0.9, items=1000),))
    snapshot = of(model, finding("doctor", "mdf", "medicine", 0.4, items=50))
    assert known(snapshot, "medicine") == 0.4


def test_the_narrowest_topic_that_covers_wins() -> None:
    told = [
        finding("doctor", "mdf", topic, value)
        for topic, value in (("medicine", 0.7), (NEUROLOGY, 0.6), ("law", 0.1))
    ]
    snapshot = of(deployment("doctor"), *told)
    assert known(snapshot, NEUROLOGY) == known(snapshot, f"{NEUROLOGY}/stroke") == 0.6
    assert known(snapshot, "medicine/cardiology") == known(snapshot, "medicine") == 0.7
    assert math.isnan(known(snapshot, "medicines"))
    assert math.isnan(known(snapshot, "cooking"))
    assert known(snapshot, "") == pytest.approx((0.7 + 0.6 + 0.1) / 3)


def test_a_claim_on_a_narrow_topic_does_not_hide_what_was_measured_on_a_broad_one() -> None:
    model = deployment("doctor", claimed={NEUROLOGY: 1.0, "law": 1.0})
    snapshot = of(model, finding("doctor", "mdf", "medicine", 0.7))
    assert known(snapshot, NEUROLOGY, Trust.WEIGHTS) == 0.7
    assert known(snapshot, "", Trust.WEIGHTS) == 0.7
    assert known(snapshot, NEUROLOGY, Trust.CLAIMED) == 1.0


def test_an_empty_topology_knows_nothing() -> None:
    for topic in ("", "medicine"):
        assert accuracy_on(QrrtState().snapshot(), topic, Trust.CLAIMED).value.shape == (0,)


def test_the_later_word_of_a_unit_counts_whichever_comes_first() -> None:
    sick = finding("doctor", "mdf", "medicine", 0.3, degraded=True, before=0.8)
    well = finding("doctor", "mdf", "medicine", 0.8, at_s=NOW_S - 30)
    for order in ((sick, well), (well, sick)):
        snapshot = of(deployment("doctor"), *order)
        assert known(snapshot, "medicine") == 0.8
        assert not snapshot.columns.degraded[0]
    assert of(deployment("doctor"), sick).columns.degraded[0]


def test_a_units_clock_that_runs_ahead_does_not_freeze_its_word() -> None:
    ahead = finding("doctor", "mdf", "medicine", 0.3, at_s=NOW_S + 1e9)
    state = state_of([facility("mdf", deployment("doctor"))], ahead)
    later = finding("doctor", "mdf", "medicine", 0.8, at_s=NOW_S + 10)
    state.absorb_finding(later, NOW_S + 10)
    assert known(state.snapshot(), "medicine") == 0.8


@pytest.mark.parametrize(
    "nonsense",
    [
        {"value": math.nan},
        {"value": math.inf},
        {"value": 1e300},
        {"value": -0.5},
        {"items": 0},
        {"items": -400},
        {"items": 10**15},
        {"at_s": math.nan},
        {"at_s": math.inf},
    ],
)
def test_measurements_that_make_no_sense_are_left_out(nonsense: dict[str, Any]) -> None:
    wrong: dict[str, Any] = {"value": 0.5, **nonsense}
    signed = evidence("medicine", **wrong)
    asked = finding("doctor", "mdf", "medicine", **wrong)
    snapshot = of(deployment("doctor", evidence=(signed,)), asked)
    assert math.isnan(known(snapshot, "medicine"))
    sane = finding("doctor", "mdf", "medicine", 0.8, at_s=NOW_S)
    assert known(of(deployment("doctor"), asked, sane), "medicine") == 0.8


@pytest.mark.parametrize("claim", [math.nan, math.inf, -1.0, 1.0001])
def test_claims_that_make_no_sense_are_left_out(claim: float) -> None:
    assert math.isnan(known(of(deployment("doctor", claimed={"medicine": claim})), "medicine"))


def test_claims_do_not_crowd_out_what_is_measured() -> None:
    invented = [
        facility(f"mdf{n}", deployment("liar", claimed={f"t{n}-{i}": 1.0 for i in range(64)}))
        for n in range(2 * MOST_TOPICS // 64)
    ]
    told = finding("doctor", "mdf", "medicine", 0.8)
    state = state_of([*invented, facility("mdf", deployment("doctor"))], told)
    assert len(state.snapshot().accuracies.topics) == MOST_TOPICS
    assert known(state.snapshot(), "medicine", row=state.snapshot().row_of["doctor@mdf"]) == 0.8


def test_topics_of_which_nothing_is_known_any_more_are_dropped() -> None:
    state = state_of([facility("mdf", deployment("doctor", claimed={"medicine": 0.5}))])
    assert state.snapshot().accuracies.topics.keys() == {"medicine"}
    state.described(facility("mdf", deployment("doctor", claimed={"law": 0.5}), version=2), NOW_S)
    assert state.snapshot().accuracies.topics.keys() == {"law"}
    state.described(facility("mdf", version=3), NOW_S)
    assert not state.snapshot().accuracies.topics


def test_what_strangers_ask_about_is_not_kept() -> None:
    snapshot = of(deployment("doctor"), finding("doctor", "mdf", "medicine", 0.8))
    for number in range(2000):
        known(snapshot, f"medicine/{number}")
        known(snapshot, f"nonsense-{number}")
    assert len(snapshot.accuracies.cache) <= 2


topics = st.sampled_from(["a", "a/b", "a/b/c", "a/bc", "b", "b/c"])
values = st.floats(0.0, 1.0)


@given(
    st.dictionaries(topics, values, max_size=6),
    st.dictionaries(topics, values, max_size=6),
    st.dictionaries(topics, values, max_size=6),
    topics,
    st.sampled_from(list(Trust)),
)
def test_of_each_level_of_trust_the_narrowest_covering_topic_is_told(
    claimed: dict[str, float],
    weights: dict[str, float],
    asked: dict[str, float],
    topic: str,
    least: Trust,
) -> None:
    signed = tuple(
        evidence(name, value)
        for name, value in weights.items()
        if name not in asked  # Where both are there they are pooled.
    )
    told = [finding("doctor", "mdf", name, value) for name, value in asked.items()]
    snapshot = of(deployment("doctor", claimed=claimed, evidence=signed), *told)
    believed = {
        **(claimed if least is Trust.CLAIMED else {}),
        **({} if least is Trust.ASKED else weights),
        **asked,
    }
    covering = [name for name in believed if topic == name or topic.startswith(f"{name}/")]
    value = known(snapshot, topic, least)
    if covering:
        assert value == pytest.approx(believed[max(covering, key=len)])
    else:
        assert math.isnan(value)
