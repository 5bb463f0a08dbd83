"""A query's cut of the topology for people and programs."""

from __future__ import annotations

import io

import msgspec
import networkx as nx
import numpy as np
import pytest

from daitn.objects.cordons import Cordon
from daitn.objects.deployments import Api, DeploymentState
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Demand, DemandRate
from daitn.objects.queries import AUTO, QueryConstraints, QueryIntent, Trust
from daitn.topology.export import AgedReading
from daitn.topology.qrrt.export import (
    QrrtView,
    QueryCut,
    export_qrrt,
    export_query,
    qrrt_to_graphml,
    query_to_graphml,
)
from daitn.topology.qrrt.paths import paths_from
from daitn.topology.qrrt.relevance import relevant_to
from daitn.topology.qrrt.served import ServedModel, ServedModels, served_models
from daitn.topology.qrrt.state import QrrtState

from .world import (
    NOW_S,
    deployment,
    facility,
    figures,
    finding,
    gateway,
    link,
    serving,
    state_of,
    tell,
)

GW = SiteId("gw")


def world() -> QrrtState:
    claims = {"medicine/neurology": 1.0, "law": 0.9}
    nodes = [
        gateway("gw"),
        gateway("hub"),
        facility("far", deployment("doctor", claimed=claims)),
        facility("near", deployment("doctor"), deployment("nurse", claimed=claims)),
        facility("lost", deployment("nurse")),
    ]
    return state_of(
        nodes,
        link("gw", "far", 0.5),
        link("gw", "hub", 0.01),
        link("hub", "far", 0.01),
        link("gw", "lost", 0.1, loss=1.0),
        finding("doctor", "far", "medicine", 0.7),
        finding("doctor", "near", "medicine", 0.5),
        serving("near", figures("doctor", in_flight=2, first_token_s=0.2, per_token_s=0.01)),
    )


def cut(state: QrrtState, **constraints: object) -> QueryCut:
    snapshot = state.snapshot()
    intent = QueryIntent(
        origin=GW, owner="", api=Api.CHAT, model=AUTO, topic="medicine/neurology", tokens_in=50,
        tokens_out=50, constraints=QueryConstraints(**constraints),  # type: ignore[arg-type]
    )  # fmt: skip
    paths, nobody = paths_from(snapshot, GW, NOW_S), np.zeros(len(snapshot.rows))
    return export_query(relevant_to(snapshot, intent, paths, nobody, NOW_S))


def read(graphml: str) -> nx.DiGraph:
    return nx.read_graphml(io.BytesIO(graphml.encode()))


def test_the_json_holds_all_and_reads_back() -> None:
    told = cut(world(), min_accuracy=0.6)
    assert msgspec.json.decode(msgspec.json.encode(told), type=QueryCut) == told
    options = {option.deployment: option for option in told.options}
    assert list(options) == ["doctor@far", "doctor@near", "nurse@lost", "nurse@near"]
    assert [option.deployment for option in told.options if option.may_answer] == ["doctor@far"]
    reasons = {id_: [no.filter for no in option.rejections] for id_, option in options.items()}
    assert reasons == {
        "doctor@far": [],
        "doctor@near": ["accuracy"],
        "nurse@lost": ["accuracy", "path"],
        "nurse@near": ["accuracy"],
    }
    assert options["doctor@far"].path == ("gw", "hub", "far")
    assert options["nurse@lost"].path == ()
    assert options["doctor@near"].load == 2


def test_what_counts_for_the_query_is_shown_with_its_age_and_claims_without() -> None:
    options = {option.deployment: option for option in cut(world()).options}
    far, nurse, lost = options["doctor@far"], options["nurse@near"], options["nurse@lost"]
    assert (far.accuracy, far.trust, far.accuracy_age_s) == (0.7, Trust.ASKED, 60.0)
    assert (nurse.accuracy, nurse.trust, nurse.accuracy_age_s) == (1.0, Trust.CLAIMED, None)
    assert (lost.accuracy, lost.trust, lost.accuracy_age_s) == (None, None, None)


def test_graphml_reads_back_with_layers_and_paths() -> None:
    known = read(query_to_graphml(cut(world(), min_accuracy=0.6)))
    layers = {attributes["layer"] for _, attributes in known.nodes(data=True)}
    assert layers == {"query", "model", "deployment", "reachability"}
    far = known.nodes["deployment:doctor@far"]
    assert (far["relevant"], far["accuracy"], far["trust"]) == (True, 0.7, "asked")
    assert "no path from gw to lost" in known.nodes["deployment:nurse@lost"]["rejected"]
    assert nx.has_path(known, "gateway:gw", "model:doctor")
    assert known.edges["gateway:gw", "site:hub"]["coupling"] == "link"
    assert known.edges["site:far", "deployment:doctor@far"]["coupling"] == "at"
    assert known.edges["deployment:doctor@far", "model:doctor"]["coupling"] == "serves"
    assert not list(known.predecessors("deployment:nurse@lost"))


def test_an_empty_topology_is_written() -> None:
    told = cut(QrrtState())
    assert told.options == ()
    assert list(read(query_to_graphml(told)).nodes) == ["gateway:gw"]


def whole() -> QrrtView:
    state = world()
    state.lost(SiteId("lost"), NOW_S)
    rate = DemandRate(topic="law", model=AUTO, per_s=2.5, shed_per_s=0.0, tokens_out=20.0)
    state.absorb_demand(Demand(site=GW, at_s=NOW_S, rates=(rate,)), NOW_S)
    tell(state, link("gw", "stranger", 0.1))
    return export_qrrt(state.snapshot(), NOW_S)


def test_the_whole_topology_holds_who_asks_who_answers_and_the_ways() -> None:
    told = whole()
    assert msgspec.json.decode(msgspec.json.encode(told), type=QrrtView) == told
    assert [(g.site, len(g.demand)) for g in told.gateways] == [("gw", 1), ("hub", 0)]
    alive = [(f.site, f.alive) for f in told.facilities]
    assert alive == [("far", True), ("lost", False), ("near", True)]
    assert [(d.name, d.site) for d in told.deployments] == [
        ("doctor", "far"),
        ("doctor", "near"),
        ("nurse", "lost"),
        ("nurse", "near"),
    ]
    ways = [(way.source, way.target) for way in told.reachability]
    assert ways == [("gw", "far"), ("gw", "hub"), ("gw", "lost"), ("hub", "far")]
    assert told.reachability[0].rtt_s == AgedReading(value=0.5, age_s=60.0, origin=GW)


def test_the_whole_topology_as_graphml_reads_back() -> None:
    known = read(qrrt_to_graphml(whole()))
    layers = {attributes["layer"] for _, attributes in known.nodes(data=True)}
    assert layers == {"query", "reachability", "facility", "deployment", "model"}
    assert known.nodes["gateway:gw"]["queries_per_s"] == 2.5
    assert known.nodes["facility:lost"]["alive"] is False
    assert known.edges["site:gw", "site:hub"]["rtt_s"] == 0.01
    assert "medicine=0.700/asked" in known.nodes["deployment:doctor@far"]["accuracy"]
    assert nx.has_path(known, "gateway:gw", "model:doctor")
    assert not list(read(qrrt_to_graphml(export_qrrt(QrrtState().snapshot(), NOW_S))))


def test_names_that_xml_cannot_hold_do_not_break_it() -> None:
    odd = state_of([facility("far", deployment('<x> & "y"\x00\ud800'))])
    assert len(read(query_to_graphml(cut(odd)))) == 4


def test_served_models_are_told_with_what_their_figures_rest_on() -> None:
    told = served_models(world().snapshot())
    assert msgspec.json.decode(msgspec.json.encode(told), type=ServedModels) == told
    by_id = {f"{model.name}@{model.site}": model for model in told.models}
    near, far = by_id["doctor@near"], by_id["doctor@far"]
    assert (near.measured, near.in_flight, near.first_token_s) == (True, 2, 0.2)
    assert not far.measured
    assert [(known.topic, known.trust) for known in far.accuracy] == [
        ("law", Trust.CLAIMED),
        ("medicine", Trust.ASKED),
        ("medicine/neurology", Trust.CLAIMED),
    ]


def test_a_deployment_that_gets_no_queries_is_not_shown_as_ready() -> None:
    cordon, draining = (
        Cordon(by="ops", since_s=NOW_S, draining=drains) for drains in (False, True)
    )
    nodes = [
        facility("cordoned", deployment("doctor"), cordon=cordon),
        facility("draining", deployment("doctor"), cordon=draining),
        facility("lost", deployment("doctor"), cordon=cordon),
        facility("loading", deployment("doctor", state=DeploymentState.LOADING)),
        facility("ready", deployment("doctor")),
    ]
    state = state_of(nodes)
    state.lost(SiteId("lost"), NOW_S)
    shown = {model.site: model.standing for model in served_models(state.snapshot()).models}
    assert shown == {site: site for site in shown}
    assert len(shown) == len(nodes)


@pytest.mark.parametrize("state", DeploymentState)
def test_a_deployment_at_a_lost_site_is_lost_whatever_its_state_was(state: DeploymentState) -> None:
    """As `DeploymentView` says."""
    known = state_of([facility("lost", deployment("doctor", state=state))])
    known.lost(SiteId("lost"), NOW_S)
    (shown,) = served_models(known.snapshot()).models
    assert (shown.state, shown.standing) == (state, "lost")


def test_earlier_releases_read_and_send_available_under_its_former_name() -> None:
    (one, *_) = served_models(world().snapshot()).models
    plain = msgspec.to_builtins(one)
    assert plain["available"] is plain["there"] is True
    del plain["available"]  # As an earlier release sends it.
    assert msgspec.convert(plain, ServedModel).available
    assert not msgspec.convert(plain | {"there": False}, ServedModel).available
