"""Real networks to run on: topologies of operators, research networks and backbones.

They come from TopoHub, which holds the Internet Topology Zoo (`topozoo`), SNDlib (`sndlib`),
routers of single operators as CAIDA measured them (`caida`), long-distance fibre (`backbone`) and
random Gabriel graphs (`gabriel`). Source: Jurkiewicz, "TopoHub: A repository of reference Gabriel
and real-world topologies for networking research", SoftwareX 24, 2023.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from types import ModuleType

import rustworkx as rx

from daitn.objects.errors import InvalidInput, NotFound

__all__ = ["RealLink", "RealNode", "from_topohub", "names"]

_KM_PER_S = 299_792.458 * 2 / 3
"""The speed of light in glass fibre of refractive index 1.5."""


@dataclass(frozen=True)
class RealNode:
    """A node of a real network."""

    name: str
    """Empty if the source has none."""
    longitude: float | None
    latitude: float | None


@dataclass(frozen=True)
class RealLink:
    """A link of a real network. `delay_s` is one way: the delay of light in fibre of that length,
    without overhead."""

    length_km: float
    delay_s: float


def names() -> tuple[str, ...]:
    """All available topologies, for instance `topozoo/Abilene`.

    Raises `InvalidInput` if TopoHub is not installed.
    """
    folder = importlib.resources.files(_topohub()) / "data"
    return tuple(sorted(_names_in(folder, "")))


def from_topohub(name: str) -> rx.PyGraph[RealNode, RealLink]:
    """Read a topology by its name.

    Raises `NotFound` for an unknown name, `InvalidInput` if TopoHub is not installed.
    """
    topohub = _topohub()
    if name not in names():
        raise NotFound(
            f"TopoHub has no topology {name!r}",
            field="name",
            fix="use a name that `names()` lists, for instance topozoo/Abilene",
        )
    described = topohub.get(name)
    graph: rx.PyGraph[RealNode, RealLink] = rx.PyGraph()
    index = {}
    for node in described["nodes"]:
        longitude, latitude = node.get("pos") or (None, None)
        index[node["id"]] = graph.add_node(RealNode(node.get("name") or "", longitude, latitude))
    for edge in described["edges"]:
        length_km = float(edge["dist"])
        link = RealLink(length_km=length_km, delay_s=length_km / _KM_PER_S)
        graph.add_edge(index[edge["source"]], index[edge["target"]], link)
    return graph


def _topohub() -> ModuleType:
    try:
        import topohub
    except ImportError:
        raise InvalidInput(
            "real topologies come with the package topohub, which is not installed",
            fix="pip install 'daitn[topologies]'",
        ) from None
    module: ModuleType = topohub
    return module


def _names_in(folder: Traversable, path: str) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _names_in(entry, f"{path}{entry.name}/")
        elif entry.name.endswith(".json"):
            yield path + entry.name.removesuffix(".json")
