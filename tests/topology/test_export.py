"""Topologies as JSON and as GraphML that graph tools read."""

from __future__ import annotations

import io

import msgspec
import networkx as nx

from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Quantity, Requirement
from daitn.objects.readings import LoadReading, Reading
from daitn.topology.export import RelevantView, TopologyView, export, export_relevant
from daitn.topology.graphml import relevant_to_graphml, to_graphml
from daitn.topology.layers import layered
from daitn.topology.snapshot import Drrt
from daitn.topology.state import DrrtState

from .medicine import NOW_S, cut, data_site, dataset, drrt, intent, link, nodes


def world() -> Drrt:
    links = [link("cdc", "ninds", rtt_s=0.02, throughput_bps=5e6), link("ninds", "cdc", loss=0.5)]
    return drrt(nodes(), links, lost=["gard"])


def read(graphml: str) -> nx.DiGraph:
    return nx.read_graphml(io.BytesIO(graphml.encode()))


def test_the_json_holds_all_and_reads_back() -> None:
    view = export(world())
    assert msgspec.json.decode(msgspec.json.encode(view), type=TopologyView) == view
    assert [site.site for site in view.sites if not site.alive] == ["gard"]
    assert {node.layer for node in view.nodes} == {"data", "compute", "verifier", "reachability"}


def test_no_number_is_shown_without_its_age_and_origin() -> None:
    first = export(world()).links[0]
    assert first.rtt_s is not None
    assert (first.rtt_s.value, first.rtt_s.age_s, first.rtt_s.origin) == (0.02, 60.0, "cdc")
    assert first.loss is None


def test_graphml_reads_back_with_typed_attributes() -> None:
    known = read(to_graphml(export(world())))
    assert known.number_of_nodes() == 9 * 3 + 2 * 2
    data = known.nodes["data:ninds/questions"]
    assert (data["layer"], data["site"], data["alive"]) == ("data", "ninds", True)
    assert (data["samples"], data["quality"]) == (450, 0.9)
    assert known.nodes["reachability:gard"]["alive"] is False
    assert known.nodes["compute:cdc"]["memory_bytes"] == 8_000_000_000
    there = known.edges["reachability:cdc", "reachability:ninds"]
    assert (there["rtt_s"], there["rtt_s_age_s"], there["throughput_bps"]) == (0.02, 60.0, 5e6)
    assert "rtt_s" not in known.edges["reachability:ninds", "reachability:cdc"]
    assert known.edges["data:ninds/questions", "verifier:clinic"]["coupling"] == "measures"


def test_graphml_has_the_edges_that_the_analysis_counts() -> None:
    snapshot = drrt(nodes(), [link("cdc", "ninds", rtt_s=0.02)])
    graph = layered(snapshot)
    counted = {frozenset((graph[one].id, graph[other].id)) for one, other in graph.edge_list()}
    written = {frozenset(edge) for edge in read(to_graphml(export(snapshot))).edges}
    assert counted == written


def test_load_is_written_with_its_age() -> None:
    state = DrrtState()
    state.absorb(data_site("a"), NOW_S)
    reading = Reading(3.0, NOW_S - 7, SiteId("a"))
    load = LoadReading(site=SiteId("a"), queue=reading, cpu_share=reading, disk_free_bytes=reading)
    state.absorb(load, NOW_S)
    node = read(to_graphml(export(state.snapshot(NOW_S)))).nodes["reachability:a"]
    assert (node["queue"], node["queue_age_s"]) == (3.0, 7.0)


def test_the_cut_for_a_model_keeps_options_and_reasons() -> None:
    asked = intent(
        Requirement(quantity=Quantity.SITE, none_of=("cdc",)), topics=("medicine/general",)
    )
    view = export_relevant(cut(world(), asked))
    assert msgspec.json.decode(msgspec.json.encode(view), type=RelevantView) == view
    known = read(relevant_to_graphml(view))
    assert known.nodes["data:ghr/questions"]["relevant"] is True
    assert known.nodes["data:cdc/questions"]["relevant"] is False
    assert "site not in {cdc}" in known.nodes["data:cdc/questions"]["rejected"]
    assert known.nodes["verifier:board"]["relevant"] is True
    assert "does not test medicine/neurology" in known.nodes["verifier:board"]["rejected"]
    assert "relevant" not in known.nodes["reachability:cdc"]


def test_names_that_xml_cannot_hold_do_not_break_it() -> None:
    odd = data_site("a", dataset("a", "medicine", name='<x> & "y"\x00\ud800', jurisdiction="]]>"))
    (node,) = (
        attributes
        for _, attributes in read(to_graphml(export(drrt([odd])))).nodes(data=True)
        if attributes["layer"] == "data"
    )
    assert node["dataset"] == '<x> & "y"\ufffd\ufffd'
    assert node["jurisdiction"] == "]]>"


def test_the_order_of_facts_does_not_show() -> None:
    forth, back = drrt(nodes()), drrt(reversed(nodes()))
    assert to_graphml(export(forth)) == to_graphml(export(back))


def test_an_empty_topology_is_written() -> None:
    assert read(to_graphml(export(drrt([])))).number_of_nodes() == 0
