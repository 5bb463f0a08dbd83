"""A network over three regions, two of them behind NATs, as its operators would set it up.

Region `a` has a public address, with the control centre, a hub for packets, a gateway, a hospital
and a verifier. Nothing in `b` and `c` can be connected to from elsewhere. `b` has a hospital, a
gateway, and a facility, which talk to each other at their private addresses; `c` has a hospital,
and a facility that is a gateway, too, of which neither listens for others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from daitn.cli.embedded import EmbeddedNetwork
from daitn.cli.starting import LIFELINE
from daitn.objects.identifiers import CENTER_SITE
from tests.scenes.breast_cancer import write_network
from tests.scenes.clinic import facility
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.regions import CENTER, PRIVATE

__all__ = ["GATE", "REGION", "SAYS", "Answered", "SpreadNetwork", "ask", "run_in", "write_spread"]

REGION = {
    **dict.fromkeys((CENTER_SITE, "east", "mpvu", "hub", "gate"), "a"),
    **dict.fromkeys(("north", "ward", "desk"), "b"),
    **dict.fromkeys(("west", "booth"), "c"),
}
"""Where each process is."""
SAYS = {"ward": "from the ward", "booth": "from the booth"}
"""What each facility's model answers."""
GATE = f"https://{CENTER}:7480"
"""The gateway with a public address; the others listen at the default address, in their region."""
_OFTEN = {"states_every_s": 0.3}
_AT = {"listen": f"https://{PRIVATE}:7490", **_OFTEN}


class SpreadNetwork(EmbeddedNetwork):
    """Each process in the region where it is."""

    spaces: dict[str, str]
    """The namespace of each region."""

    def launch(self, name: str) -> None:
        command = [sys.executable, "-m", "daitn.cli.app", *self._command(name)]
        with (self._logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ["ip", "netns", "exec", self.spaces[REGION[name]], *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.PIPE,
                env={**os.environ, LIFELINE: "1"},
                start_new_session=True,
            )


def write_spread(folder: Path, servers: dict[str, OpenAiServer]) -> Path:
    """Write the network's file and its data. `servers`: those of the facilities."""
    path = write_network(folder, hour_usd=36.0)
    plain = yaml.safe_load(path.read_text())
    endpoint = f"tls/{CENTER}:7447"
    plain["center"]["listen"] = [endpoint]
    plain["defaults"]["center"] = [endpoint]
    plain["nodes"] += [*_packets(servers)]
    for port, node in enumerate(plain["nodes"], start=7510):
        node["listen"] = [f"tls/{CENTER}:{port}"] if REGION[node["site"]] == "a" else []
        if node["site"] in ("desk", "ward"):
            node["listen"] = [f"tls/{PRIVATE}:{port}"]
    path.write_text(yaml.safe_dump(plain))
    return path


def _packets(servers: dict[str, OpenAiServer]) -> list[dict[str, Any]]:
    """The forwarders: everybody else connects to the hub, and the desk to the ward beside it."""
    hub = {"hub": [f"tls/{CENTER}:7449"]}
    ward = {"ward": [f"tls/{PRIVATE}:7449"]}
    gate = {"listen": GATE, "autonomous": True, **_OFTEN}
    accepted: dict[str, list[str]] = {site: [] for site in ("gate", "ward", "desk", "booth")}
    nurse = facility("ward", _upstream("nurse", servers["ward"]), facility=_AT)
    porter = facility("booth", _upstream("porter", servers["booth"]), facility=_AT)
    porter |= {"roles": ["facility", "gateway"], "gateway": _OFTEN}
    return [
        _forwarder(accepted, CENTER, site="hub"),
        _forwarder(hub, site="gate", roles=["gateway"], gateway=gate),
        _forwarder(hub | ward, site="desk", roles=["gateway"], gateway=_OFTEN),
        _forwarder(hub | {"desk": []}, PRIVATE, **nurse),
        _forwarder(hub, **porter),
    ]


def _upstream(model: str, server: OpenAiServer) -> dict[str, Any]:
    return {
        "name": model,
        "url": server.url,
        "apis": ["chat"],
        "claimed": {"medicine": 0.9},
        "price_usd_per_1k_in": 1.0,
    }


def _forwarder(neighbours: dict[str, Any], host: str = "", *, site: str, **entry: Any) -> Any:
    """An entry; `host`: at which neighbours connect."""
    base = {"site": site, "owner": site, "roles": [], "state": f"state/{site}", **entry}
    listen = [f"tls/{host}:7449"] if host else []
    part = {"listen": listen, "neighbours": neighbours}
    return {**base, "roles": [*base["roles"], "forwarder"], "forwarder": part}


@dataclass(frozen=True)
class Answered:
    """How `daitn query` ended."""

    text: str
    """The answer; empty: there was none."""
    headers: dict[str, str]
    error: str


def run_in(space: str, *arguments: str, network: Path) -> subprocess.CompletedProcess[str]:
    """Run `daitn` in a namespace. `network`: the folder of the network, with its certificates."""
    return subprocess.run(
        ["ip", "netns", "exec", space, sys.executable, "-m", "daitn.cli.app", *arguments],
        env={
            **os.environ,
            "DAITN_NETWORK": str(network),
            "DAITN_CENTER": f"tls/{CENTER}:7447",
            "NO_COLOR": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def ask(space: str, model: str, *options: str, network: Path) -> Answered:
    """Ask a model with `daitn query` in a namespace, by default the gateway there."""
    asked = ("query", "where are you", "--model", model, "--json", *options)
    ended = run_in(space, *asked, network=network)
    if ended.returncode:
        return Answered("", {}, ended.stderr)
    told = json.loads(ended.stdout)
    said = told["answer"]["choices"][0]["message"]["content"]
    return Answered(said, told["daitn"], ended.stderr)
