"""A root control centre and a domain's in one network: one roster, a fabric for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from daitn.identity.roster import read_roster
from daitn.objects.roster import Kind
from tests.scenes.breast_cancer import write_intent, write_network
from tests.scenes.command_line import daitn
from tests.scenes.forwarders import Mesh
from tests.scenes.waiting import wait_until

from .conftest import Network, build, running

pytestmark = pytest.mark.processes


@dataclass(frozen=True)
class Two:
    root: Network
    domain: Network
    roster: Path


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """The domain trains; the root's only site is a forwarder."""
    folder, within = (tmp_path_factory.mktemp(name) for name in ("root", "domain"))
    root = build(folder, [Mesh().node("hub", {})])
    roster = folder / "state" / "center" / "network" / "roster.json"
    path = write_network(within)
    plain = yaml.safe_load(path.read_text())
    plain["center"] |= {
        "name": "west-center",
        "root": [root.processes.endpoint],
        "roster": str(roster),
    }
    plain["nodes"].append(Mesh().node("relay", {}))
    path.write_text(yaml.safe_dump(plain))
    admitted = daitn("network", "admit", str(path), "--network", str(roster.parent))
    try:
        assert admitted.returncode == 0, admitted.stderr
        domain = running(within, path)
        yield Two(root, domain, roster)
        domain.processes.stop()
    finally:
        root.processes.stop()


def test_both_are_members_under_their_own_names(two: Two) -> None:
    members = read_roster(two.roster).opened().members
    centers = {member.name: member.public_key for member in members if member.kind is Kind.CENTER}
    assert set(centers) == {"center", "west-center"}
    assert len(set(centers.values())) == 2


def test_a_domains_centre_follows_the_roots_advice(two: Two) -> None:
    def told() -> Any:
        return two.domain.json("steer", "--site", "relay")

    wait_until(lambda: told()["advised"])
    two.root.json("steer", "hierarchical", "--prefer", "latency=5")
    wait_until(lambda: told()["mode"] == "hierarchical" and told()["prefer"] == {"latency": 5.0})


def test_each_sees_its_own_sites_and_its_sites_take_its_orders(two: Two, tmp_path: Path) -> None:
    seen = [
        {node["descriptor"]["site"] for node in network.json("get", "nodes")}
        for network in (two.root, two.domain)
    ]
    assert seen[0] == {"hub"}
    assert seen[1] >= {"north", "mpvu", "relay"}
    path = write_intent(tmp_path, name="inside", route=[{"site": "north", "examples": 3000}])
    ended = two.domain.daitn("train", "-f", str(path), "--watch", "--json")
    job = json.loads(ended.stdout)
    assert [visit["site"] for visit in job["route"]] == ["north"], ended.stderr


def test_a_revoked_centre_is_obeyed_no_more(two: Two) -> None:
    """The other one goes on. Last, as it ends the domain."""
    revoked = daitn(
        "network", "revoke", "center", "west-center", "--network", str(two.roster.parent)
    )
    assert revoked.returncode == 0, revoked.stderr
    wait_until(lambda: two.domain.daitn("get", "nodes").returncode != 0)
    assert two.root.json("get", "nodes")
