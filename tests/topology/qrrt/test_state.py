"""The live QRRT: facts in, versions out."""

from __future__ import annotations

import itertools
import math
import random
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.objects.deployments import Api, DeploymentState
from daitn.objects.errors import InvalidInput
from daitn.objects.findings import Finding
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Demand, DemandRate
from daitn.objects.queries import AUTO, QueryIntent
from daitn.topology.qrrt import findings, links
from daitn.topology.qrrt.filters import passing
from daitn.topology.qrrt.observation import COUNTS_S, Observation
from daitn.topology.qrrt.paths import paths_from
from daitn.topology.qrrt.relevance import relevant_to
from daitn.topology.qrrt.snapshot import Deployed, Qrrt
from daitn.topology.qrrt.state import (
    ASSUMED_FIRST_TOKEN_S,
    FIRST_PAUSE_S,
    FORGET_AFTER_S,
    LONGEST_PAUSE_S,
    MOST_RATES,
    QrrtState,
)

from .world import (
    NOW_S,
    OTHER_WEIGHTS,
    deployment,
    evidence,
    facility,
    figures,
    finding,
    gateway,
    link,
    serving,
    state_of,
    unit,
)

MDF = SiteId("mdf")
Fact = tuple[str, object]
"""How the state is told, and what."""


def seen(snapshot: Qrrt) -> dict[str, Any]:
    """A snapshot as plain values, without the numbers of its version, rows and descriptors."""
    columns = {name: getattr(snapshot.columns, name) for name in snapshot.columns._fields}
    ids = [row.id for row in snapshot.rows]
    assert dict(snapshot.row_of) == {id_: at for at, id_ in enumerate(ids)}
    assert len(set(snapshot.described.tolist())) == len(snapshot.described) == len(ids)
    return {
        "rows": sorted(snapshot.rows, key=lambda row: row.id),
        "columns": {
            id_: {name: column[at].item() for name, column in columns.items()}
            for at, id_ in enumerate(ids)
        },
        "rows_of": {
            name: sorted(ids[row] for row in rows.tolist())
            for name, rows in snapshot.rows_of.items()
        },
        "accuracies": {
            topic: {
                id_: [repr(getattr(known, name)[at].item()) for name in known.__slots__]
                for at, id_ in enumerate(ids)
            }
            for topic, known in snapshot.accuracies.topics.items()
        },
        "nodes": dict(snapshot.nodes),
        "gateways": snapshot.gateways,
        "links": {source: dict(targets) for source, targets in snapshot.links.items()},
        "demand": dict(snapshot.demand),
    }


INTENT = QueryIntent(
    origin=SiteId("gw"), owner="", api=Api.CHAT, model=AUTO, topic="law", tokens_in=9, tokens_out=9
)
LAWYER = deployment("doctor", evidence=(evidence("law", 0.6),))
FACTS: list[Fact] = [
    ("described", unit()),
    ("described", facility("mdf", deployment("doctor", evidence=(evidence("medicine", 0.8),)))),
    ("described", facility("mdf", deployment("nurse"), deployment("doctor"), version=2)),
    ("described", facility("hub", deployment("doctor", claimed={"law": 0.4}))),
    ("described", facility("hub", LAWYER, version=3)),
    ("described", gateway("gw")),
    ("absorb_finding", finding("doctor", "mdf", "medicine", 0.7)),
    ("absorb_finding", finding("doctor", "mdf", "medicine", 0.6, at_s=NOW_S - 30, degraded=True)),
    ("absorb_finding", finding("doctor", "mdf", "medicine", 0.9, at_s=NOW_S - 30)),
    ("absorb_finding", finding("doctor", "hub", "law", 0.3, verifier=SiteId("clinic"))),
    ("absorb_finding", finding("nurse", "mdf", "law", 0.5, manifest=OTHER_WEIGHTS)),
    ("absorb_link", link("gw", "mdf", 0.02)),
    ("absorb_link", link("gw", "mdf", 0.09, at_s=NOW_S - 90, loss=0.5)),
    ("absorb_link", link("gw", "hub", 0.03)),
    *(("came", SiteId(site)) for site in ("mdf", "hub", "gw", "board")),
]


def absorb(state: QrrtState, fact: Fact) -> None:
    method, said = fact
    getattr(state, method)(said, NOW_S)


@settings(max_examples=200)
@given(st.permutations(FACTS), st.lists(st.sampled_from(FACTS), max_size=5))
def test_the_order_of_facts_does_not_show_nor_that_some_come_twice(
    facts: list[Fact], again: list[Fact]
) -> None:
    one, other = QrrtState(), QrrtState()
    for fact in FACTS:
        absorb(one, fact)
    for fact in (*facts, *again):
        absorb(other, fact)
        other.snapshot()
    assert seen(other.snapshot()) == seen(one.snapshot())


class Machine:
    """A state with some facilities that come, change and go, and what should be known of them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.state = QrrtState()
        self.version = itertools.count(1)
        self.models: dict[str, tuple[str, ...]] = {}
        self.alive: set[str] = set()
        self.said: dict[str, float] = {}
        self.described: dict[int, Deployed] = {}
        self.at_s = NOW_S

    def step(self) -> None:
        site = self.rng.choice("abcd")
        match self.rng.randrange(5):
            case 0 | 1:
                names = tuple(self.rng.sample("xyz", self.rng.randrange(4)))
                node = facility(
                    site, *(deployment(name) for name in names), version=next(self.version)
                )
                self.state.described(node, self.at_s)
                kept = {f"{name}@{site}" for name in names}
                gone = {f"{name}@{site}" for name in self.models.get(site, ())} - kept
                self.said = {id_: v for id_, v in self.said.items() if id_ not in gone}
                self.models[site] = names
            case 2:
                self.state.came(SiteId(site), self.at_s)
                self.alive.add(site)
            case 3:
                self.state.lost(SiteId(site), self.at_s)
                self.alive.discard(site)
            case 4:
                name, value = self.rng.choice("xyz"), self.rng.random()
                self.state.absorb_serving(
                    serving(site, figures(name, first_token_s=value)), self.at_s
                )
                if name in self.models.get(site, ()):
                    self.said[f"{name}@{site}"] = value

    def check(self) -> None:
        snapshot, before = self.state.snapshot(), self.described
        self.described = dict(zip(snapshot.described.tolist(), snapshot.rows, strict=True))
        ids = sorted(
            ((name, site) for site, names in self.models.items() for name in names),
        )
        assert sorted((row.name, row.site) for row in snapshot.rows) == ids
        for at, row in enumerate(snapshot.rows):
            assert snapshot.row_of[row.id] == at
            assert at in snapshot.rows_of[row.name]
            assert before.get(int(snapshot.described[at]), row) is row
            assert snapshot.columns.available[at] == (row.site in self.alive)
            first_token_s = self.said.get(row.id, ASSUMED_FIRST_TOKEN_S)
            assert snapshot.columns.first_token_s[at] == first_token_s
        assert sum(map(len, snapshot.rows_of.values())) == len(snapshot.rows)
        assert set(snapshot.nodes) == self.alive & set(self.models)


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_columns_follow_their_rows_and_versions_never_change(seed: int, steps: int) -> None:
    machine = Machine(random.Random(seed))
    kept = []
    for _ in range(steps):
        machine.step()
        machine.check()
        snapshot = machine.state.snapshot()
        kept.append((snapshot, repr(seen(snapshot))))
    assert all(repr(seen(snapshot)) == told for snapshot, told in kept)


def steps_of(work: Callable[[], object]) -> int:
    """The steps of the interpreter that some work takes; those within array operations are one."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def test_what_a_join_costs_does_not_grow_with_the_facilities_that_are_there() -> None:
    state, steps = state_of([gateway("gw"), gateway("hub")]), []
    known = state.snapshot(), paths_from(state.snapshot(), SiteId("gw"), NOW_S)

    def join(site: str) -> None:
        nonlocal known
        models = (deployment(name, claimed={"law": 0.5}) for name in ("doctor", site))
        node = facility(site, *models)
        state.described(node, NOW_S)
        state.came(node.site, NOW_S)
        snapshot = state.snapshot()
        known = snapshot, paths_from(snapshot, SiteId("gw"), NOW_S, known=known)
        passing(relevant_to(snapshot, INTENT, known[1], np.zeros(len(snapshot.rows)), NOW_S))

    for number in range(1, 301):
        name = f"mdf{number:03}"
        if number in {20, 21, 22, 280, 281, 282}:
            steps.append(steps_of(partial(join, name)))
        else:
            join(name)
    assert len(known[0].rows) == 600
    few, many = sorted(steps[:3])[1], sorted(steps[3:])[1]
    assert many == few


def test_what_a_version_holds_cannot_be_written() -> None:
    snapshot = state_of([facility("mdf", deployment("doctor", claimed={"law": 0.5}))]).snapshot()
    known = snapshot.accuracies.topics["law"]
    for array in (
        snapshot.columns.first_token_s, snapshot.columns.available, snapshot.rows_of["doctor"],
        known.value, known.trust,
    ):  # fmt: skip
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_a_version_is_made_once() -> None:
    state = state_of([facility("mdf", deployment("doctor"))])
    assert state.snapshot() is state.snapshot()
    before = state.snapshot()
    state.came(MDF, NOW_S)  # It is there already.
    state.absorb_link(link("gw", "mdf", 0.1), NOW_S)
    after = state.snapshot()
    assert after.version == before.version + 1
    assert after.rows is before.rows
    assert after.cache is before.cache


def test_who_has_no_deployments_changes_no_column() -> None:
    state = state_of([facility("mdf", deployment("doctor", claimed={"law": 0.5}))])
    before = state.snapshot()
    state.described(gateway("gw"), NOW_S)
    state.came(SiteId("gw"), NOW_S)
    after = state.snapshot()
    assert after.gateways == ("gw",)
    assert (after.rows, after.row_of) == (before.rows, before.row_of)
    for name in after.columns._fields:
        assert getattr(after.columns, name) is getattr(before.columns, name), name
    assert after.described is before.described
    assert after.accuracies is before.accuracies


def test_an_older_descriptor_changes_nothing() -> None:
    state = state_of([facility("mdf", deployment("doctor"), version=5)])
    state.described(facility("mdf", version=4), NOW_S)
    assert len(state.snapshot().rows) == 1
    state.described(facility("mdf", started_at_s=2.0), NOW_S)
    assert not state.snapshot().rows


def test_a_name_that_is_advertised_twice_counts_once() -> None:
    twice = facility("mdf", deployment("doctor", slots=3), deployment("doctor", slots=9))
    snapshot = state_of([twice]).snapshot()
    assert [row.id for row in snapshot.rows] == ["doctor@mdf"]
    assert snapshot.columns.slots[0] == 3


def test_only_what_is_ready_at_a_live_site_is_there() -> None:
    models = (
        deployment("a"),
        deployment("b", state=DeploymentState.DRAINING),
        deployment("c", state=DeploymentState.LOADING),
    )
    state = state_of([facility("mdf", *models)])
    assert state.snapshot().columns.available.tolist() == [True, False, False]
    state.lost(MDF, NOW_S)
    assert not state.snapshot().columns.available.any()
    assert not state.snapshot().nodes


def test_a_node_that_is_gone_for_long_is_forgotten_with_what_it_has() -> None:
    state = state_of([facility("mdf", deployment("doctor")), gateway("gw")], link("gw", "mdf", 0.1))
    state.lost(MDF, NOW_S)
    later_s = NOW_S + FORGET_AFTER_S
    state.described(gateway("gw", version=2), later_s - 1)
    assert state.snapshot().rows
    state.described(gateway("gw", version=3), later_s)
    snapshot = state.snapshot()
    assert not snapshot.rows
    assert not snapshot.links
    assert not snapshot.rows_of
    state.described(facility("mdf", deployment("doctor")), later_s)
    state.came(MDF, later_s)
    assert state.snapshot().columns.available.tolist() == [True]


def test_a_unit_that_is_gone_for_good_holds_nothing_degraded() -> None:
    sick = finding("doctor", "mdf", "medicine", 0.3, degraded=True)
    state = state_of([facility("mdf", deployment("doctor")), unit("board")], sick)
    state.lost(SiteId("board"), NOW_S)
    later_s = NOW_S + FORGET_AFTER_S
    state.described(facility("mdf", deployment("doctor"), version=2), later_s - 1)
    assert state.snapshot().columns.degraded.tolist() == [True]
    state.described(facility("mdf", deployment("doctor"), version=3), later_s)
    assert state.snapshot().columns.degraded.tolist() == [False]
    assert state.snapshot().accuracies.topics["medicine"].value.tolist() == [0.3]
    # It is back, and tells anew what it found.
    state.described(unit("board"), later_s)
    state.came(SiteId("board"), later_s)
    state.absorb_finding(sick, later_s)
    assert state.snapshot().columns.degraded.tolist() == [True]


def test_a_node_that_came_back_in_time_is_not_forgotten() -> None:
    state = state_of([facility("mdf", deployment("doctor")), gateway("gw")])
    state.lost(MDF, NOW_S)
    state.came(MDF, NOW_S + 10)
    state.described(gateway("gw", version=2), NOW_S + 2 * FORGET_AFTER_S)
    assert state.snapshot().columns.available.tolist() == [True]


def test_demand_goes_with_its_gateway_and_nonsense_is_left_out() -> None:
    def rate(per_s: float) -> DemandRate:
        return DemandRate(topic="law", model="auto", per_s=per_s, shed_per_s=0.0, tokens_out=10.0)

    state, site = state_of([gateway("gw")]), SiteId("gw")
    rates = (rate(math.nan), rate(2.0), rate(-1.0), rate(math.inf))
    state.absorb_demand(Demand(site=site, at_s=NOW_S, rates=rates), NOW_S)
    state.absorb_demand(Demand(site=SiteId("stranger"), at_s=NOW_S, rates=rates), NOW_S)
    assert {s: told.rates for s, told in state.snapshot().demand.items()} == {site: (rate(2.0),)}
    state.absorb_demand(Demand(site=site, at_s=NOW_S, rates=(rate(1.0),) * 5000), NOW_S)
    assert len(state.snapshot().demand[site].rates) == MOST_RATES
    state.lost(site, NOW_S)
    assert not state.snapshot().demand


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.1, 1e300])
def test_figures_that_make_no_sense_are_left_out(wrong: float) -> None:
    state = state_of([facility("mdf", deployment("doctor"))])
    before = seen(state.snapshot())["columns"]["doctor@mdf"]
    nonsense = figures("doctor", first_token_s=wrong, per_token_s=wrong, error_share=wrong)
    state.absorb_serving(serving("mdf", nonsense), NOW_S)
    state.observe("mdf", "doctor", Observation(False, wrong, wrong), NOW_S)
    after = seen(state.snapshot())["columns"]["doctor@mdf"]
    assert after == {**before, "measured_at_s": NOW_S, "reported_at_s": NOW_S}


@pytest.mark.parametrize(
    ("in_flight", "waiting", "load"), [(-5, 3, 3.0), (-5, -5, 0.0), (2**63 - 1, 0, 2.0**63)]
)
def test_loads_are_never_negative(in_flight: int, waiting: int, load: float) -> None:
    said = figures("doctor", in_flight=in_flight, waiting=waiting)
    state = state_of([facility("mdf", deployment("doctor"))], serving("mdf", said))
    assert state.snapshot().columns.in_flight[0] == load


@pytest.mark.parametrize("rtt_s", [math.nan, math.inf, -1.0])
def test_a_link_that_makes_no_sense_is_told_and_changes_nothing(rtt_s: float) -> None:
    state = state_of([facility("mdf")])
    with pytest.raises(InvalidInput, match="not a finite number") as raised:
        state.absorb_link(link("gw", "mdf", rtt_s), NOW_S)
    assert raised.value.field == "rtt_s"
    assert not state.snapshot().links


def test_links_of_sites_that_nobody_described_do_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links, "MOST_STRANGE_LINKS", 50)
    state = state_of([gateway("gw"), facility("mdf")], link("gw", "mdf", 0.1))
    for number in range(1000):
        state.absorb_link(link("gw", f"made-up-{number}", 0.1), NOW_S)
        state.absorb_link(link(f"invented-{number}", "gw", 0.1), NOW_S)
    known = state.snapshot().links
    assert sum(map(len, known.values())) == 51
    assert MDF in known[SiteId("gw")]


def test_findings_on_what_nobody_knows_do_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(findings, "MOST_FINDINGS", 100)
    kept = findings.Findings()
    kept.keep(finding("doctor", "mdf", "medicine", 0.5, verifier=SiteId("clinic")))
    for number in range(1000):
        kept.keep(finding(f"made-up-{number}", "mdf", f"t{number}", 0.5))
    ids = [f"made-up-{number}@mdf" for number in range(1000)]
    assert [bool(kept.on(id_)) for id_ in ids] == [False] * 900 + [True] * 100
    assert len(kept.on("doctor@mdf")) == 1, "another unit's word is not lost by it"


def test_what_is_forgotten_for_want_of_room_does_not_go_on_counting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(findings, "MOST_FINDINGS", 1)
    state = state_of([facility("mdf", deployment("doctor"), deployment("nurse"))])
    for name in ("doctor", "nurse"):
        state.absorb_finding(finding(name, "mdf", "law", 0.5, degraded=True), NOW_S)
    assert state.snapshot().columns.degraded.tolist() == [False, True]


def test_a_finding_waits_for_its_deployment() -> None:
    state = QrrtState()
    state.absorb_finding(finding("doctor", "mdf", "medicine", 0.7), NOW_S)
    state.described(facility("mdf", deployment("doctor")), NOW_S)
    assert state.snapshot().accuracies.topics["medicine"].value.tolist() == [0.7]


def test_a_facility_that_tells_loads_only_has_measured_nothing() -> None:
    state = state_of([facility("mdf", deployment("doctor"))])
    state.absorb_serving(serving("mdf", figures("doctor", in_flight=3)), NOW_S)
    assert state.snapshot().columns.measured_at_s.tolist() == [0.0]
    for nonsense_s in (-1.0, math.inf, math.nan, 1e9):
        state.absorb_serving(serving("mdf", figures("doctor", first_token_s=nonsense_s)), NOW_S)
        assert state.snapshot().columns.measured_at_s.tolist() == [0.0]
    state.absorb_serving(serving("mdf", figures("doctor", first_token_s=0.2)), NOW_S)
    assert state.snapshot().columns.measured_at_s.tolist() == [NOW_S]


def told(state: QrrtState, **said: Any) -> None:
    state.absorb_serving(serving("mdf", figures("doctor", **said)), NOW_S)


def test_a_deployment_that_fails_is_left_alone_ever_longer_until_it_answers() -> None:
    state = state_of([facility("mdf", deployment("doctor"))])
    pauses_s = []
    for _ in range(9):
        state.observe("mdf", "doctor", Observation(failed=True), NOW_S)
        pauses_s.append(state.snapshot().columns.suspended_until_s[0] - NOW_S)
    assert pauses_s[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses_s[-1] == LONGEST_PAUSE_S
    assert state.snapshot().columns.error_share[0] > 0.5
    state.observe("mdf", "doctor", Observation(failed=False), NOW_S)
    assert state.snapshot().columns.suspended_until_s[0] == 0
    state.observe("mdf", "doctor", Observation(failed=True), NOW_S)
    assert state.snapshot().columns.suspended_until_s[0] == NOW_S + FIRST_PAUSE_S


def test_a_facility_does_not_talk_itself_faster_than_it_was_seen_to_be() -> None:
    state = state_of([facility("mdf", deployment("doctor"))])
    told(state, first_token_s=0.001, per_token_s=0.0, error_share=0.0)
    for _ in range(20):
        state.observe("mdf", "doctor", Observation(False, 5.0, 0.1), NOW_S)
        told(state, first_token_s=0.001, per_token_s=0.0, error_share=0.0)
    columns = state.snapshot().columns
    assert columns.first_token_s[0] == pytest.approx(5.0)
    assert columns.per_token_s[0] == pytest.approx(0.1)
    said = serving("mdf", figures("doctor", first_token_s=0.001))
    state.absorb_serving(said, NOW_S + COUNTS_S)
    assert state.snapshot().columns.first_token_s[0] == 0.001


def test_what_a_facility_says_is_believed_where_it_is_near_what_was_seen_or_worse() -> None:
    state = state_of([facility("mdf", deployment("doctor"))])
    state.observe("mdf", "doctor", Observation(False, 0.3, 0.01), NOW_S)
    told(state, first_token_s=0.2, per_token_s=4.0)
    columns = state.snapshot().columns
    assert (columns.first_token_s[0], columns.per_token_s[0]) == (0.2, 4.0)


def test_failures_that_a_facility_does_not_own_up_to_count() -> None:
    state = state_of([facility("mdf", deployment("doctor"))])
    for _ in range(5):
        state.observe("mdf", "doctor", Observation(failed=True), NOW_S)
    told(state, error_share=0.0)
    assert state.snapshot().columns.error_share[0] == pytest.approx(1 - 0.8**5)


def test_adverts_that_flap_leave_nothing_behind() -> None:
    state = state_of([gateway("gw")])
    for version in range(1, 200):
        names = (f"m{version}",) if version % 2 else ()
        models = (deployment(name, claimed={f"t{version}": 0.5}) for name in names)
        state.described(facility("mdf", *models, version=version), NOW_S)
        state.observe("mdf", f"m{version}", Observation(failed=True), NOW_S)
    state.described(facility("mdf", version=1000), NOW_S)
    snapshot = state.snapshot()
    assert (snapshot.rows, dict(snapshot.row_of), dict(snapshot.rows_of)) == ((), {}, {})
    assert not snapshot.accuracies.topics
    assert not state._seen
    assert not state._failures
    assert not state._knowledge._estimated


def test_a_descriptor_that_says_the_same_of_its_facility_keeps_the_rows() -> None:
    state = state_of([facility("mdf", deployment("doctor"))])
    before = state.snapshot()
    state.described(facility("mdf", deployment("doctor"), version=2, software="new"), NOW_S)
    after = state.snapshot()
    assert after.rows is before.rows
    assert after.nodes[MDF].software == "new"


@given(st.lists(st.tuples(st.floats(), st.floats(), st.floats()), max_size=10))
def test_no_reading_makes_a_column_that_is_no_number(
    said: list[tuple[float, float, float]],
) -> None:
    state = state_of([facility("mdf", deployment("doctor"))])
    for first_token_s, per_token_s, error_share in said:
        told(state, first_token_s=first_token_s, per_token_s=per_token_s, error_share=error_share)
        state.observe("mdf", "doctor", Observation(False, first_token_s, per_token_s), NOW_S)
        state.absorb_finding(finding("doctor", "mdf", "law", first_token_s), NOW_S)
    columns = state.snapshot().columns
    for name in columns._fields:
        assert np.isfinite(getattr(columns, name)).all(), name
    for known in state.snapshot().accuracies.topics.values():
        assert (known.trust == 0).all() or np.isfinite(known.value).all()


def test_a_finding_of_another_metric_is_no_accuracy() -> None:
    other: Finding = finding("doctor", "mdf", "medicine", 0.7, metric="rouge", degraded=True)
    snapshot = state_of([facility("mdf", deployment("doctor"))], other).snapshot()
    assert not snapshot.accuracies.topics
    assert not snapshot.columns.degraded[0]
