"""Packets find their way, through real processes, links that are cut, and without a centre."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.scenes.clinic import facility, gateway
from tests.scenes.forwarders import Mesh
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.relay import Relay
from tests.scenes.waiting import wait_until

from .conftest import Network, build

pytestmark = pytest.mark.processes


def serving(site: str, server: OpenAiServer) -> dict[str, Any]:
    upstream = {"name": "doctor", "url": server.url, "apis": ["chat"], "claimed": {"medicine": 0.9}}
    return facility(site, upstream)


class Square:
    """gate - north - east and gate - south - east; the model is at east. The link from gate to
    north, which is the shorter way, goes through a relay."""

    def __init__(self, folder: Path, server: OpenAiServer, relay: Relay) -> None:
        self.relay, self.mesh, self.server = relay, Mesh(), server
        mesh = self.mesh
        relay.target = mesh.port("north")
        door = gateway("gate")
        self.url = f"http://{door['gateway']['listen']}"
        nodes = [
            mesh.node("gate", {"north": relay.port, "south": mesh.port("south")}, entry=door),
            mesh.node("north", {"east": mesh.port("east")}, "gate"),
            mesh.node("south", {"east": mesh.port("east")}, "gate"),
            mesh.node("east", {}, "north", "south", entry=serving("east", server)),
        ]
        self.network: Network = build(folder, nodes)

    def ping(self, *arguments: str) -> list[Any]:
        ended = self.network.daitn("ping", "--site", "gate", "-n", "1", *arguments, "--json")
        return json.loads(ended.stdout) if ended.stdout else []

    def knows_both_ways(self) -> bool:
        """Whether the gate has links to both, and they to the model."""
        return all(self._linked(site) for site in ("gate", "north", "south")) and bool(self.path())

    def _linked(self, site: str) -> bool:
        ended = self.network.daitn("steer", "--site", site, "--json")
        links = json.loads(ended.stdout)["links"] if ended.returncode == 0 else []
        return len(links) == 2 and all(link["up"] for link in links)

    def path(self) -> list[str]:
        """By which a probe goes now; empty where it does not arrive."""
        return [hop["site"] for probe in self.arrived() for hop in probe["hops"]]

    def arrived(self, *arguments: str) -> list[Any]:
        """A probe for the model that arrived; none where it does not."""
        probes = self.ping("--topic", "medicine", *arguments)
        return [probe for probe in probes if not probe["refused"]]

    def traced(self, object_: str, door: str, path: list[str]) -> list[Any]:
        """What each forwarder on its path says of an object, once all of them say it."""

        def told() -> list[Any]:
            traced = self.network.json("trace", object_, "--site", "gate", "--center", door)
            whole = [entry["site"] for entry in traced["pending"]] == path
            return list(traced["pending"]) if whole else []

        return wait_until(told)


@pytest.fixture(scope="module")
def breakable_square(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Square]:
    with OpenAiServer(text="from east") as server, Relay() as relay:
        built = Square(tmp_path_factory.mktemp("square"), server, relay)
        yield built
        built.network.processes.stop()


@pytest.fixture
def square(breakable_square: Square) -> Square:
    """Whole, and both ways are known: a test may break it."""
    breakable_square.relay.mend()
    breakable_square.network.mend()
    breakable_square.network.json("steer", "--reset", "--site", "gate")
    wait_until(breakable_square.knows_both_ways)
    return breakable_square


def test_a_packet_finds_its_way_and_another_when_a_link_is_cut(square: Square) -> None:
    path = wait_until(square.path)
    assert (path[0], path[-1]) == ("gate", "east")
    square.relay.delay_s = 0.05
    wait_until(lambda: square.path() == ["gate", "south", "east"])
    square.relay.mend()
    wait_until(lambda: square.path())
    square.relay.cut()
    wait_until(lambda: square.path() == ["gate", "south", "east"])
    square.network.processes.kill("south")
    wait_until(lambda: "NO_WAY" in str(square.ping("--topic", "medicine")))
    square.relay.mend()
    wait_until(lambda: square.path() == ["gate", "north", "east"])


def test_what_is_cordoned_is_passed_by_and_why_is_told(square: Square) -> None:
    daitn = square.network.daitn
    ended = daitn("cordon", "north", "--reason", "new disks")
    assert ended.returncode == 0, ended.stderr
    wait_until(lambda: square.path() == ["gate", "south", "east"])

    def told() -> Any:
        """What the centre has heard of it: it may come later than the packets' other way."""
        nodes = [node["descriptor"] for node in square.network.json("get", "nodes")]
        (north,) = [node for node in nodes if node["site"] == "north"]
        return north.get("cordon")

    assert wait_until(told)["reason"] == "new disks"
    assert "alive, cordoned" in daitn("get", "nodes").stdout
    square.network.processes.kill("north")
    square.network.mend()
    wait_until(lambda: square.path() == ["gate", "south", "east"])  # It outlives a restart.
    wait_until(lambda: daitn("uncordon", "north").returncode == 0)
    assert daitn("cordon", "south").returncode == 0
    wait_until(lambda: square.path() == ["gate", "north", "east"])
    assert daitn("uncordon", "south").returncode == 0


def test_a_cordoned_facility_and_gateway_take_no_queries(square: Square) -> None:
    daitn = square.network.daitn
    client = openai.OpenAI(base_url=f"{square.url}/v1", api_key="none", max_retries=0)
    hello: list[Any] = [{"role": "user", "content": "hello"}]

    def ask() -> str:
        try:
            client.chat.completions.create(model="doctor", messages=hello)
        except openai.APIStatusError as error:
            return error.message
        return ""

    wait_until(lambda: ask() == "")
    assert daitn("cordon", "east", "--reason", "new disks").returncode == 0
    wait_until(lambda: "is cordoned" in ask() and "new disks" in ask())
    wait_until(lambda: "cordoned" in daitn("get", "models").stdout)
    assert daitn("uncordon", "east").returncode == 0
    wait_until(lambda: ask() == "")
    drained = daitn("drain", "gate", "--timeout", "60", "--reason", "moves house")
    assert drained.returncode == 0, drained.stdout + drained.stderr
    assert "gate is empty and safe to stop" in drained.stdout
    assert "moves house" in ask()
    assert daitn("uncordon", "gate").returncode == 0
    wait_until(lambda: ask() == "")


def test_who_drains_a_site_hears_that_it_was_returned_to_service(square: Square) -> None:
    """And is not told that it is safe to stop. A mere cordon takes no drain back."""
    daitn = square.network.daitn
    client = openai.AsyncOpenAI(base_url=f"{square.url}/v1", api_key="none", max_retries=0)
    hello: list[Any] = [{"role": "user", "content": "hello"}]

    async def drained() -> tuple[int, str]:
        asking = asyncio.create_task(client.chat.completions.create(model="doctor", messages=hello))
        await asyncio.to_thread(wait_until, lambda: square.server.control()["in_flight"] == 1)
        drain = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "daitn.cli.app", "drain", "east", "--reason", "new disks"),
            *("--timeout", "300", "--center", square.network.processes.endpoint),
            stdout=subprocess.PIPE,
        )
        assert drain.stdout is not None
        first = await drain.stdout.readline()
        assert b"1 query left" in first
        changed = await asyncio.to_thread(daitn, "cordon", "east")
        assert "is drained by operator: new disks" in changed.stdout
        assert (await asyncio.to_thread(daitn, "uncordon", "east")).returncode == 0
        said, _ = await drain.communicate()
        square.server.control(slots=1)
        assert (await asking).choices[0].message.content == "from east"
        return drain.returncode or 0, said.decode()

    square.server.control(slots=0)
    code, said = asyncio.run(drained())
    square.server.control(slots=1000)
    assert code == 1
    assert "returned to service" in said
    assert "empty" not in said


def test_a_query_finds_its_own_way_through_a_gateway(square: Square) -> None:
    square.network.processes.kill("center")
    client = openai.OpenAI(base_url=f"{square.url}/v1", api_key="none", max_retries=0)

    def ask(model: str = "doctor", **constraints: Any) -> tuple[str, dict[str, str]]:
        answer = client.chat.completions.with_raw_response.create(
            model=model,
            messages=[{"role": "user", "content": "hello"}],
            extra_body={"daitn": {"autonomous": True, **constraints}},
        )
        said = answer.parse().choices[0].message.content
        return said or "", dict(answer.headers)

    said, headers = ask()
    assert said == "from east"
    assert headers["daitn-facility"] == "east"
    path = headers["daitn-path"].split(",")
    assert (path[0], path[-1], len(path)) == ("gate", "east", 3)
    door = square.mesh.doors["gate"]
    square.traced(headers["daitn-object"], door, path)
    spoken = square.network.json(
        "query", "hello", "--model", "doctor", "--autonomous", "--gateway", square.url
    )
    assert spoken["daitn"]["strategy"] == "packet"
    asked = square.network.daitn("explain", headers["daitn-decision"], "--center", door)
    assert f"daitn trace {headers['daitn-object']} --site gate" in " ".join(asked.stdout.split())
    square.relay.cut()
    said, headers = ask("auto:medicine", trust="claimed")
    assert (said, headers["daitn-path"]) == ("from east", "gate,south,east")
    streamed = client.chat.completions.create(
        model="doctor",
        messages=[{"role": "user", "content": "hello"}],
        stream=True,
        extra_body={"daitn": {"autonomous": True}},
    )
    assert "".join(c.choices[0].delta.content or "" for c in streamed if c.choices) == "from east"
    with pytest.raises(openai.NotFoundError, match="NO_WAY"):
        ask("nurse")
    with pytest.raises(openai.BadRequestError, match="site"):
        ask("doctor@east")
    with pytest.raises(openai.NotFoundError, match="NO_WAY"):
        ask("auto:medicine", min_accuracy=0.5)


def test_forwarders_go_on_alone_and_say_what_they_know(square: Square) -> None:
    square.network.processes.kill("center")
    door = square.mesh.doors["gate"]
    (probe,) = wait_until(lambda: square.arrived("--center", door))
    assert probe["hops"][-1]["site"] == "east"
    pending = square.traced(probe["object"], door, [hop["site"] for hop in probe["hops"]])
    chosen = [step["decision"]["chosen"] for c in pending for step in c["steps"]]
    assert chosen[-1] == "east here"
    hops = square.network.json(
        "traceroute", "--site", "gate", "--topic", "medicine", "--center", door
    )["hops"]
    # Both ways around the square are as long: what was measured last decides between them.
    ways = (["gate", "north", "east"], ["gate", "south", "east"])
    assert [hop["site"] for hop in hops] in ways
    assert [hop["site"] for hop in probe["hops"]] in ways
    assert all(hop["round_trip_s"] > 0 for hop in hops)
    text = square.network.daitn("trace", probe["object"], "--site", "gate", "--center", door)
    assert "delivered here" in text.stdout


def test_who_has_a_say_is_changed_while_they_run(square: Square) -> None:
    def told(site: str = "gate") -> Any:
        return square.network.json("steer", "--site", site)

    wait_until(lambda: told()["advised"])
    advised = square.network.json("steer", "hierarchical", "--prefer", "latency=5")
    assert advised["mode"] == "hierarchical"
    wait_until(lambda: told()["mode"] == "hierarchical" and told()["prefer"] == {"latency": 5.0})
    alone = square.network.json("steer", "standalone", "--site", "gate")
    assert alone["mode"] == "standalone"
    assert not alone["advised"]
    wait_until(lambda: told("north")["mode"] == "hierarchical")
    taken_back = square.network.json("steer", "--reset")
    assert (taken_back["mode"], taken_back["prefer"]) == (None, {})
    wait_until(lambda: told("north")["mode"] == "non-standalone")
    wrong = square.network.daitn("steer", "--prefer", "beauty=1")
    assert wrong.returncode == 2
    assert "beauty" in wrong.stderr


def test_a_frozen_forwarder_is_gone_around(square: Square) -> None:
    at = square.path()[1]
    frozen = square.network.processes.pid(at)
    os.kill(frozen, signal.SIGSTOP)
    try:
        other = {"north": "south", "south": "north"}[at]
        wait_until(lambda: square.path() == ["gate", other, "east"])
    finally:
        os.kill(frozen, signal.SIGCONT)
    wait_until(lambda: square.path())


def test_a_query_crosses_three_domains_that_hide_their_sites(tmp_path: Path) -> None:
    """a1 - a2 | b1 - b2 | c1 - c2: two sites a domain, the model at the far end."""
    mesh = Mesh()
    chain = ["a1", "a2", "b1", "b2", "c1", "c2"]
    with OpenAiServer(text="from afar") as server:
        nodes = []
        for at, site in enumerate(chain):
            connects = {chain[at + 1]: mesh.port(chain[at + 1])} if at + 1 < len(chain) else {}
            accepts = chain[at - 1 : at] if at else []
            entry = serving(site, server) if site == "c2" else None
            nodes.append(mesh.node(site, connects, *accepts, entry=entry, domain=site[0]))
        network = build(tmp_path, nodes)
        try:

            def origins() -> set[str]:
                told = network.json("steer", "--site", "a1")
                return {origin["origin"] for origin in told["origins"]}

            def arrives() -> bool:
                ended = network.daitn(
                    "ping", "--site", "a1", "-n", "1", "--topic", "medicine", "--json"
                )
                probes: list[Any] = json.loads(ended.stdout) if ended.stdout else []
                hops = [hop["site"] for probe in probes for hop in probe["hops"]]
                return ended.returncode == 0 and hops == chain

            wait_until(arrives)
            wait_until(lambda: origins() >= set(chain))
            network.json("steer", "hierarchical")
            wait_until(lambda: not origins() & {"b1", "b2", "c1", "c2"})
            wait_until(arrives)
            wait_until(lambda: any(one.startswith("domain:c@c1/") for one in origins()))
            network.json("steer", "standalone")
            wait_until(lambda: origins() >= set(chain))
            wait_until(arrives)
        finally:
            network.processes.stop()
