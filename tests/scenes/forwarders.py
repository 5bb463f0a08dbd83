"""Sites that pass AI objects on, between a gate and facilities."""

from __future__ import annotations

from typing import Any

from tests.scenes.breast_cancer import free_port

__all__ = ["Mesh"]


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
