"""Measures that show how these topologies differ from simple cycles (paper, section III)."""

from daitn.topology.analysis.report import Analysis, LayerSize, analyse, analyse_graph
from daitn.topology.analysis.routes import RouteCount, count_routes
from daitn.topology.analysis.shape import DegreeSpread, Shape, shape_of
from daitn.topology.analysis.treewidth import treewidth_at_most

__all__ = [
    "Analysis",
    "DegreeSpread",
    "LayerSize",
    "RouteCount",
    "Shape",
    "analyse",
    "analyse_graph",
    "count_routes",
    "shape_of",
    "treewidth_at_most",
]
