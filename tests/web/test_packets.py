"""Forwarders, and the ways of objects, in a real browser over real forwarders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenes.browser import User, browser
from tests.scenes.clinic import facility
from tests.scenes.forwarders import Mesh
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.waiting import wait_until
from tests.system.conftest import Network, build

pytestmark = [pytest.mark.processes, pytest.mark.slow]


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Network]:
    """west - middle - east, which has a model."""
    mesh = Mesh()
    with OpenAiServer(text="from east") as server:
        model = {"name": "doctor", "url": server.url, "apis": ["chat"]}
        nodes = [
            mesh.node("west", {"middle": mesh.port("middle")}),
            mesh.node("middle", {"east": mesh.port("east")}, "west"),
            mesh.node(
                "east",
                {},
                "middle",
                entry=facility("east", {**model, "claimed": {"medicine": 0.9}}),
            ),
        ]
        network = build(tmp_path, nodes)
        yield network
        network.processes.stop()


def test_the_way_of_a_packet_is_shown_with_what_each_forwarder_knew(chain: Network) -> None:
    # A process of its own: the browser's driver has an event loop on this thread.
    ping = ("ping", "--site", "west", "-n", "1", "--topic", "medicine", "--json")
    command = [sys.executable, "-m", "daitn.cli.app", *ping]
    asker = {**os.environ, "DAITN_CENTER": chain.processes.endpoint}
    probes: list[Any] = []

    def arrived() -> bool:
        ended = subprocess.run(command, env=asker, capture_output=True, text=True, check=False)
        probes[:] = json.loads(ended.stdout) if ended.stdout else []
        return any(not probe["refused"] for probe in probes)

    signed_in = chain.daitn("dashboard").stdout.strip()
    with browser() as running:
        user = User(running.new_page(), signed_in.partition("/#")[0])
        user.page.goto(signed_in)
        user.click("Packets")
        user.page.get_by_label("forwarder").select_option("west")
        user.sees("What it can reach")
        wait_until(arrived)
        user.page.get_by_label("id of an object").fill(probes[0]["object"])
        user.click("Follow its path", role="button")
        user.sees("1. west", "2. middle", "3. east", "on to middle", "delivered here")
        assert user.page.url.endswith(f"site=west&object={probes[0]['object']}")
        assert user.violations() == []
        assert not user.errors
