"""Minutes without any control centre: what gateways, sites and travelling models do meanwhile."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scenes.breast_cancer import write_intent
from tests.scenes.ports import free_port
from tests.scenes.waiting import wait_until
from tests.system.conftest import running
from tests.system.test_dynamics import SLOW_MODEL
from tests.system.test_inference import SAYS, built
from tests.system.test_travelling import check_accounts, written

pytestmark = [pytest.mark.processes, pytest.mark.long, pytest.mark.timeout(1200)]

AWAY_S = 200.0
"""Longer than anything is kept that sites say again and again."""


def test_a_gateway_answers_from_what_it_knows(tmp_path: Path) -> None:
    with built(tmp_path) as scene:
        scene.network.processes.kill("center")
        end_s, asked = time.monotonic() + AWAY_S, 0
        while time.monotonic() < end_s:
            assert scene.ask("doctor")[0] in (SAYS["east"], SAYS["west"])
            assert scene.ask("nurse")[0] == SAYS["home"]
            asked += 2
            time.sleep(1.0)
        assert asked > 50
        # It also finds its way around a facility that is lost meanwhile.
        scene.network.processes.kill("east")
        wait_until(lambda: scene.facility_of() == "west")
        assert all(scene.ask("doctor")[0] == SAYS["west"] for _ in range(20))
        scene.network.mend()


def test_a_visit_is_reported_and_a_travelling_model_accounted_for_once_there_is_one_again(
    tmp_path: Path,
) -> None:
    path, _ = written(tmp_path)
    plain = yaml.safe_load(path.read_text())
    (home,) = [node for node in plain["nodes"] if node["site"] == "home"]
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    home["listen"] = [endpoint]
    path.write_text(yaml.safe_dump(plain))
    network = running(tmp_path, path)
    try:
        route = [{"site": "east", "examples": 100}, {"site": "north", "examples": 400}]
        never = [{"name": "tumours", "topic": "oncology/breast", "at_least": 1.0}]
        intent = write_intent(
            tmp_path,
            name="central",
            model=SLOW_MODEL,
            objectives=never,
            route=route,
            budget={"duration_s": 3600},
        )
        submitted = network.json("train", "-f", str(intent), "--insist")

        def central() -> Any:
            return network.json("describe", "job", submitted["job"])

        wait_until(lambda: "north" in central()["working"])
        network.processes.kill("center")
        began_s = time.monotonic()
        at = ("--site", "home", "--center", endpoint)
        ping = ("ping", *at, "-n", "1", "--data", "oncology/breast")
        wait_until(lambda: network.daitn(*ping).returncode == 0)
        modest = [{"name": "tumours", "topic": "oncology/breast", "at_least": 0.8}]
        alone = write_intent(tmp_path, name="alone", objectives=modest, budget={"duration_s": 600})
        ended = network.daitn("train", "-f", str(alone), "--autonomous", *at, "--watch", "--json")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        travelled = json.loads(ended.stdout)
        assert travelled["state"] == "reached"
        time.sleep(max(0.0, began_s + AWAY_S - time.monotonic()))
        network.mend()
        wait_until(lambda: central()["ended_at_s"] is not None)
        assert [visit["site"] for visit in central()["route"]] == ["east", "north"]
        assert network.json("account", "check")["problems"] == []
        check_accounts(network, travelled)
    finally:
        network.processes.stop()
