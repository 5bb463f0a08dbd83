"""Real networks as they come out of TopoHub."""

from __future__ import annotations

import sys

import pytest

from daitn.objects.errors import InvalidInput, NotFound
from daitn.tools.real_topologies import from_topohub, names
from daitn.topology.analysis import analyse_graph


def test_many_real_networks_are_listed() -> None:
    listed = names()
    assert "topozoo/Abilene" in listed
    assert sum(name.startswith("topozoo/") for name in listed) > 200
    assert list(listed) == sorted(set(listed))


def test_links_have_length_and_the_delay_of_light_in_fibre() -> None:
    graph = from_topohub("topozoo/Abilene")
    assert (graph.num_nodes(), graph.num_edges()) == (11, 14)
    for link in graph.edges():
        assert 100 < link.length_km < 5000
        assert link.delay_s == pytest.approx(link.length_km * 5.0e-6, rel=0.01)
    assert {"New York", "Chicago"} <= {node.name for node in graph.nodes()}


@pytest.mark.parametrize("name", ["topozoo/Abilene", "sndlib/germany50", "backbone/africa"])
def test_real_networks_are_no_simple_cycles(name: str) -> None:
    found = analyse_graph(from_topohub(name), name=name)
    assert not found.shape.is_simple_cycle
    assert found.shape.cyclomatic_number > found.cycle.cyclomatic_number
    assert found.routes.count > found.cycle_routes.count


@pytest.mark.parametrize("name", ["topozoo/Nowhere", "../../../etc/hosts", ""])
def test_an_unknown_name_is_told(name: str) -> None:
    with pytest.raises(NotFound, match="no topology"):
        from_topohub(name)


def test_without_topohub_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "topohub", None)
    with pytest.raises(InvalidInput) as told:
        names()
    assert told.value.fix == "pip install 'daitn[topologies]'"
