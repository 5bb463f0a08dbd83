"""Sites that pass AI objects on, between a gate and facilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.scenes.ports import free_port

__all__ = ["Mesh", "travelling"]


class Mesh:
    """Entries of forwarders, each with a port for its neighbours and one for operators."""

    def __init__(self) -> None:
        self._ports: dict[str, int] = {}
        self.doors: dict[str, str] = {}
        """Where operators reach each node itself."""

    def port(self, site: str) -> int:
        """At which neighbours of the site connect."""
        return self._ports.setdefault(site, free_port())

    def node(
        self,
        site: str,
        connects: dict[str, int],
        *accepts: str,
        entry: dict[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """A node's entry. `connects`: neighbours to ports; `accepts`: neighbours that connect."""
        door = self.doors[site] = f"tcp/127.0.0.1:{free_port()}"
        neighbours = {name: [f"tcp/127.0.0.1:{port}"] for name, port in connects.items()}
        part = {
            "listen": [f"tcp/127.0.0.1:{self.port(site)}"],
            "neighbours": {**neighbours, **{name: [] for name in accepts}},
            **changes,
        }
        base = entry or {"site": site, "owner": site, "roles": [], "state": f"state/{site}"}
        return {
            **base,
            "listen": [door],
            "roles": [*base["roles"], "forwarder"],
            "forwarder": part,
        }


def travelling(path: Path) -> Mesh:
    """Make all data sites and verifiers of a network file forwarders, half of them at one hub and
    half at another, and add a home; without control centre. Other nodes are left out."""
    plain = yaml.safe_load(path.read_text())
    learn = [n for n in plain["nodes"] if {"data", "verifier"} & set(n["roles"])]
    mesh = Mesh()
    halves = {"hub-west": learn[::2], "hub-east": learn[1::2]}
    alone: dict[str, Any] = {"mode": "standalone"}
    nodes = [
        mesh.node(node["site"], {hub: mesh.port(hub)}, entry=node, **alone)
        for hub, half in halves.items()
        for node in half
    ]
    nodes.append(mesh.node("home", {"hub-west": mesh.port("hub-west")}, **alone))
    west, east = ([node["site"] for node in half] for half in halves.values())
    nodes.append(mesh.node("hub-west", {"hub-east": mesh.port("hub-east")}, "home", *west, **alone))
    nodes.append(mesh.node("hub-east", {}, "hub-west", *east, **alone))
    plain["nodes"] = nodes
    path.write_text(yaml.safe_dump(plain))
    return mesh
