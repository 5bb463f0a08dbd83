"""Three regions, two of them behind NATs: a model visits sites of all."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from daitn.cli.embedded import EmbeddedNetwork
from daitn.cli.starting import LIFELINE
from daitn.objects.identifiers import CENTER_SITE
from tests.scenes.breast_cancer import write_intent, write_network
from tests.scenes.regions import CENTER, regions
from tests.system.conftest import Network

pytestmark = [pytest.mark.processes, pytest.mark.long, pytest.mark.timeout(1200)]

REGION = {CENTER_SITE: "a", "east": "a", "mpvu": "a", "north": "b", "west": "c"}


class Spread(EmbeddedNetwork):
    """Each process in the region where it is."""

    spaces: dict[str, str]

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


def written(folder: Path) -> Path:
    path = write_network(folder)
    plain = yaml.safe_load(path.read_text())
    endpoint = f"tls/{CENTER}:7447"
    plain["center"]["listen"] = [endpoint]
    plain["defaults"]["center"] = [endpoint]
    for port, node in enumerate(plain["nodes"], start=7450):
        node["listen"] = [f"tls/{CENTER}:{port}"] if REGION[node["site"]] == "a" else []
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.fixture
def spread(tmp_path: Path) -> Iterator[Network]:
    with regions() as spaces:
        processes = Spread(written(tmp_path), tmp_path / "logs")
        processes.spaces = spaces
        try:
            asyncio.run(processes.start(lambda site, done, of: None))
            yield Network(tmp_path, processes)
        finally:
            processes.stop()


def ways(network: Network) -> dict[str, Any]:
    """What doctor says of the ways between sites."""
    ended = network.daitn("doctor", "--all", "--json")
    found = [f for f in json.loads(ended.stdout) if f["check"] == "way"]
    return {finding["subject"]: finding for finding in found}


def test_a_model_visits_sites_behind_nats_and_doctor_finds_nobody_cut_off(spread: Network) -> None:
    route = [{"site": site, "examples": 100} for site in ("north", "west", "east")]
    intent = write_intent(spread.folder, route=route)
    ended = spread.daitn("train", "-f", str(intent), "--insist", "--watch")
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    job = spread.json("describe", "job", "tumour-1")
    assert [visit["site"] for visit in job["route"]] == ["north", "west", "east"][
        : len(job["route"])
    ]
    assert len({visit["site"] for visit in job["route"]} & {"north", "west"}) == 2
    assert not [site for site, way in ways(spread).items() if way["level"] == "problem"]
