"""The network file: a control centre and its nodes in one file, for embedded mode and tests.

A node's entry overrides `defaults`. A file without `nodes` describes a single node.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from daitn.center.config import CenterConfig, check_center_config
from daitn.files.state_folder import CenterState
from daitn.files.yaml_file import read_yaml
from daitn.identity.roster import ROSTER
from daitn.node.config import NodeConfig, check_node_config
from daitn.objects.errors import DaitnError, InvalidInput, NotFound
from daitn.objects.wire import checked

__all__ = ["NetworkFile", "own_network", "read_center", "read_network", "read_node"]


class NetworkFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Plain data of a whole network."""

    center: dict[str, Any] = {}
    """Fields as in the control centre's file."""
    defaults: dict[str, Any] = {}
    """Default fields for all nodes."""
    nodes: list[dict[str, Any]]
    """Fields as in node files; a node's own field overrides the default."""


def read_network(path: Path) -> tuple[CenterConfig, tuple[NodeConfig, ...]]:
    """Read and check everything.

    Raises `InvalidInput` naming the field, for instance `nodes[2].datasets[0].path`.
    """
    network = checked(read_yaml(path, "network file"), NetworkFile, "network")
    center = _center(network, path)
    nodes = [_node(network, position, path) for position in range(len(network.nodes))]
    names = [node.site for node in nodes]
    for position, name in enumerate(names):
        if name in names[:position]:
            raise InvalidInput(
                f"the site {name} occurs twice",
                field=f"nodes[{position}].site",
                fix="give each node a name of its own",
            )
    return center, tuple(nodes)


def read_node(path: Path, site: str) -> NodeConfig:
    """The node of a node file, or the one called `site` in a network file."""
    plain = read_yaml(path, "node file")
    if not (isinstance(plain, dict) and "nodes" in plain):
        return check_node_config(plain, path.parent)
    network = checked(plain, NetworkFile, "network")
    for position, node in enumerate(network.nodes):
        if node.get("site") == site:
            return _node(network, position, path)
    known = ", ".join(str(node.get("site")) for node in network.nodes)
    raise NotFound(
        f"there is no site {site!r} in {path}", field="--site", fix=f"use one of: {known}"
    )


def read_center(path: Path | None) -> CenterConfig:
    """The control centre of a centre's or a network's file; defaults without a file."""
    if path is None:
        return check_center_config({}, Path.cwd())
    plain = read_yaml(path, "centre file")
    if isinstance(plain, dict) and "nodes" in plain:
        return _center(checked(plain, NetworkFile, "network"), path)
    return check_center_config(plain, path.parent)


def own_network(center: CenterConfig) -> Path:
    """The folder of the network that a network file makes for itself."""
    return Path(center.state) / CenterState.NETWORK


def _center(network: NetworkFile, path: Path) -> CenterConfig:
    center = check_center_config(network.center, path.parent)
    if center.roster or center.insecure:
        return center
    return msgspec.structs.replace(center, roster=str(own_network(center) / ROSTER))


def _node(network: NetworkFile, position: int, path: Path) -> NodeConfig:
    """A node names its own roster, or else uses the control centre's."""
    center = _center(network, path)
    plain = {**network.defaults, **network.nodes[position]}
    plain = {"roster": center.roster, "insecure": center.insecure, **plain}
    try:
        return check_node_config(plain, path.parent)
    except DaitnError as error:
        field = f"nodes[{position}].{error.field}" if error.field else f"nodes[{position}]"
        raise type(error)(error.problem, field=field, fix=error.fix) from None
