"""Real networks of real processes over real Zenoh sessions."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from daitn.cli.embedded import EmbeddedNetwork
from daitn.cli.logs import LogFormat
from daitn.objects.identifiers import CENTER_SITE
from tests.scenes.breast_cancer import write_network
from tests.scenes.command_line import Ended, daitn
from tests.scenes.ports import free_port
from tests.scenes.waiting import wait_until

__all__ = ["Network", "build", "running"]


@dataclass(frozen=True)
class Network:
    """A running network and the command line of someone who uses it."""

    folder: Path
    processes: EmbeddedNetwork

    def daitn(self, *arguments: str) -> Ended:
        """Run a command against the network's control centre."""
        return daitn(*arguments, DAITN_CENTER=self.processes.endpoint)

    def daitn_as(self, key: Path, *arguments: str) -> Ended:
        """The same, by whoever has this key."""
        return daitn(*arguments, DAITN_CENTER=self.processes.endpoint, DAITN_KEY=str(key))

    def mend(self) -> None:
        """Start what a test killed; returns when the control centre sees all sites."""
        since = self.launch_missing()
        wait_until(lambda: self.sees(since))

    def launch_missing(self) -> dict[str, float]:
        """Start what does not run; returns what that is, and when it was started."""
        missing = [n for n in (CENTER_SITE, *self._sites()) if not self.processes.started(n)]
        since = {}
        for name in missing:
            since[name] = time.time()
            self.processes.launch(name)
        return since

    def sees(self, since: dict[str, float]) -> bool:
        """Whether the control centre sees all sites; those of `since` as they were started then."""
        alive = self._alive()
        return all(alive.get(site, -1.0) >= since.get(site, 0.0) for site in self._sites())

    def _sites(self) -> list[str]:
        return sorted(node.site for node in self.processes.nodes)

    def _alive(self) -> dict[str, float]:
        """Sites that the control centre sees, and when they started: it may not have missed yet
        what was killed."""
        ended = self.daitn("get", "nodes", "--json")
        nodes = json.loads(ended.stdout) if ended.returncode == 0 else []
        described = [node["descriptor"] for node in nodes if node["alive"]]
        return {each["site"]: each["started_at_s"] for each in described}

    def json(self, *arguments: str) -> Any:
        """What a command prints with --json; it must succeed."""
        ended = self.daitn(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)


def started(folder: Path, **options: Any) -> Network:
    return running(folder, write_network(folder, **options))


def running(folder: Path, config: Path, logs: LogFormat = LogFormat.TEXT) -> Network:
    """Start the network of a file."""
    processes = EmbeddedNetwork(config, folder / "logs", logs)
    try:
        asyncio.run(processes.start(lambda site, done, of: None))
    except BaseException:
        processes.stop()
        raise
    return Network(folder, processes)


def build(folder: Path, nodes: list[dict[str, Any]]) -> Network:
    """Start a network of these nodes."""
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    plain = {
        "center": {"listen": [endpoint], "state": "state/center"},
        "defaults": {"center": [endpoint], "jurisdiction": "US", "threads": 1},
        "nodes": nodes,
    }
    path = folder / "network.yaml"
    path.write_text(yaml.safe_dump(plain))
    return running(folder, path)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network for tests that leave it as it is."""
    network = started(tmp_path_factory.mktemp("network"))
    yield network
    network.processes.stop()


@pytest.fixture(scope="module")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("network")
    network = started(folder, verifiers=("mpvu", "mpvu2"), save_every_s=0.2, hour_usd=36.0)
    yield network
    network.processes.stop()


@pytest.fixture
def own(breakable: Network) -> Network:
    """A whole network, which a test may break; two verifiers."""
    breakable.mend()
    return breakable
