"""A control centre whose journal is in PostgreSQL, and what it does when either is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.scenes.breast_cancer import write_intent, write_network
from tests.scenes.postgres import PostgresServer, postgres_server
from tests.scenes.waiting import wait_until

from .conftest import Network, running

pytestmark = [pytest.mark.processes, pytest.mark.slow]

NEVER = [{"name": "tumours", "topic": "oncology/breast", "at_least": 1.0}]
ROUTE = [{"site": site, "examples": 100} for site in ("east", "north", "west") * 2]


@dataclass(frozen=True)
class Stored:
    """A network, and where its control centre keeps jobs."""

    network: Network
    server: PostgresServer

    def visits(self, job: str) -> int:
        """How many the control centre knows of."""
        ended = self.network.daitn("describe", "job", job, "--json")
        return len(json.loads(ended.stdout)["route"]) if ended.returncode == 0 else 0


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    config = write_network(tmp_path)
    plain = yaml.safe_load(config.read_text())
    with postgres_server() as server:
        plain["center"]["database"] = server.database()
        config.write_text(yaml.safe_dump(plain))
        network = running(tmp_path, config)
        try:
            yield Stored(network, server)
        finally:
            network.processes.stop()


def test_a_job_goes_on_through_the_loss_of_its_centre_and_of_its_database(
    stored: Stored, tmp_path: Path
) -> None:
    network = stored.network
    intent = write_intent(tmp_path, route=ROUTE, objectives=NEVER, budget={"duration_s": 3600})
    asked = network.daitn("train", "-f", str(intent), "--insist", "--json")
    assert asked.returncode == 0, asked.stderr
    job = json.loads(asked.stdout)["job"]
    wait_until(lambda: stored.visits(job) >= 1)
    network.processes.kill("center")
    network.mend()
    wait_until(lambda: stored.visits(job) >= 2)
    stored.server.kill()
    down = network.daitn("train", "-f", str(write_intent(tmp_path, name="other")), "--insist")
    assert down.returncode != 0
    stored.server.start()
    ended = network.daitn("watch", job, "--json")
    view = json.loads(ended.stdout)
    assert [visit["site"] for visit in view["route"]] == [stop["site"] for stop in ROUTE]
    again = network.daitn("train", "-f", str(tmp_path / "other.yaml"), "--insist", "--watch")
    assert again.returncode == 0, again.stdout + again.stderr
