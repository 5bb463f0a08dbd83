"""Real processes under a roster: strangers, wrong roles, revocations, old and expired rosters."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from daitn.cli.network import own_network
from daitn.cli.session import ExitCode
from daitn.identity.network import NetworkFolder
from daitn.identity.roster import ROSTER
from daitn.objects.identifiers import CENTER_SITE
from daitn.objects.moments import DAY_S
from daitn.tools import clock
from tests.scenes.command_line import daitn
from tests.scenes.ports import free_port
from tests.scenes.waiting import wait_until

from .conftest import Network, running

pytestmark = [pytest.mark.processes, pytest.mark.slow]

SITES = {"north", "south"}


def forwarder(site: str, **changes: Any) -> dict[str, Any]:
    return {
        "site": site,
        "owner": "me",
        "jurisdiction": "CA",
        "roles": ["forwarder"],
        "forwarder": {},
        "state": f"state/{site}",
        **changes,
    }


class Scene:
    """Two forwarders, and whoever else comes.

    Without TLS, so that signatures alone keep strangers out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.center = f"tcp/127.0.0.1:{free_port()}"
        self.shared = {"center": [self.center], "listen": ["tcp/127.0.0.1:0"]}
        plain = {
            "center": {"listen": [self.center], "state": "state/center"},
            "defaults": self.shared,
            "nodes": [
                forwarder(site, forwarder={"listen": ["tcp/127.0.0.1:0"]}) for site in sorted(SITES)
            ],
        }
        path = folder / "network.yaml"
        path.write_text(yaml.safe_dump(plain))
        self.network: Network = running(folder, path)
        self.roster = NetworkFolder(own_network(self.network.processes.center))
        self._others: list[subprocess.Popen[bytes]] = []

    def known(self) -> set[str]:
        """All sites that the control centre knows, connected or not; none if nobody is a member."""
        ended = self.network.daitn("get", "nodes", "--json")
        if ended.returncode == ExitCode.UNREACHABLE and "not a member" in ended.stderr:
            return set()
        assert ended.returncode == 0, ended.stderr
        return {node["descriptor"]["site"] for node in json.loads(ended.stdout)}

    def log(self, name: str) -> str:
        return (self.folder / "logs" / f"{name}.log").read_text()

    def start(self, entry: dict[str, Any]) -> None:
        """Run one more node, with the network's current roster."""
        state = self.folder / entry["state"]
        state.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.roster.path / ROSTER, state)
        path = self.folder / f"{entry['site']}.yaml"
        path.write_text(yaml.safe_dump({**self.shared, **entry}))
        with (self.folder / "logs" / f"{entry['site']}.log").open("wb") as log:
            command = [sys.executable, "-m", "daitn.cli.app", "node", "-c", str(path)]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self._others.append(process)

    def end(self) -> None:
        for process in self._others:
            process.kill()
            process.wait()
        self.network.processes.stop()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.end()


def test_a_stranger_is_no_member_and_a_member_has_its_roles_only(scene: Scene) -> None:
    part = {"listen": ["tcp/127.0.0.1:0"]}
    scene.start(forwarder("stranger", forwarder=part))
    wait_until(lambda: "stranger is not admitted: it is not in the roster" in scene.log("center"))
    assert "nobody listens to it until the operator admits it" in scene.log("stranger")
    scene.start({**forwarder("north", forwarder=part), "state": "state/impostor"})
    wait_until(lambda: "in the roster with another key" in scene.log("center"))

    # The roster grants what the file said when it was admitted.
    branch = forwarder("branch", forwarder=part)
    path = scene.folder / "branch.yaml"
    path.write_text(yaml.safe_dump({**scene.shared, **branch}))
    ended = daitn("network", "admit", str(path), "--network", str(scene.roster.path))
    assert ended.returncode == 0, ended.stderr
    more = {"roles": ["forwarder", "gateway"], "owner": "bank"}
    scene.start({**branch, **more, "gateway": {"listen": "127.0.0.1:0"}})
    lacks = "the roster does not grant it the role gateway, the owner 'bank'"
    wait_until(lambda: lacks in scene.log("center"))
    assert scene.known() == SITES


def test_a_revoked_site_is_gone_and_an_older_roster_does_not_bring_it_back(scene: Scene) -> None:
    source = scene.roster.path / ROSTER
    before = scene.folder / "before.json"
    shutil.copy(source, before)
    network = ["--network", str(scene.roster.path)]
    ended = daitn("network", "revoke", "site", "south", "--tell", scene.center, *network)
    assert ended.returncode == 0, ended.stderr
    wait_until(lambda: scene.known() == {"north"})
    version = scene.roster.roster().version
    taken = f"roster {version} of local"
    wait_until(lambda: taken in scene.log("north"))

    after = scene.folder / "after.json"
    shutil.copy(source, after)
    shutil.copy(before, source)
    scene.network.processes.kill(CENTER_SITE)
    scene.network.processes.launch(CENTER_SITE)
    wait_until(lambda: f"which is older than {version}" in scene.log("center"))
    wait_until(lambda: daitn("get", "nodes", DAITN_CENTER=scene.center).returncode == 0)
    wait_until(lambda: scene.known() == {"north"})
    # A process that lost all that it knew hears of the newer one from the others.
    scene.network.processes.kill(CENTER_SITE)
    (scene.roster.path.parent / ROSTER).unlink()
    shutil.copy(before, source)  # Commands keep the newest roster there, as processes do in theirs.
    heard = scene.log("center").count(taken)
    scene.network.processes.launch(CENTER_SITE)
    wait_until(lambda: scene.log("center").count(taken) > heard)
    wait_until(lambda: daitn("get", "nodes", DAITN_CENTER=scene.center).returncode == 0)
    wait_until(lambda: scene.known() == {"north"})


def test_an_expired_roster_has_no_members_until_it_is_renewed(scene: Scene) -> None:
    short = scene.roster.renew(clock.wall_s(), roster_days=20.0 / DAY_S)
    wait_until(lambda: f"roster {short.version} of local" in scene.log("center"))
    wait_until(lambda: scene.known() == set())
    wait_until(lambda: "has expired; nobody is a member" in scene.log("center"))
    scene.roster.renew(clock.wall_s(), roster_days=30)
    wait_until(lambda: scene.known() == SITES)
