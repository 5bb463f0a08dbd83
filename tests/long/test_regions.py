"""Three regions, two of them behind NATs: models visit all, facilities behind NATs answer, and a
region that is cut goes on by itself. Needs root, for network namespaces."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from daitn.cli.network import own_network
from daitn.node.audit import entries
from tests.scenes.breast_cancer import write_intent
from tests.scenes.held_training import HeldTraining
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.regions import cut, mend, regions
from tests.scenes.spread import (
    GATE,
    REGION,
    SAYS,
    Answered,
    SpreadNetwork,
    ask,
    run_in,
    write_spread,
)
from tests.scenes.waiting import wait_until
from tests.system.conftest import Network
from tests.system.test_dynamics import OUT_OF_REACH, check_books

pytestmark = [pytest.mark.processes, pytest.mark.long, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Region:
    """What is behind a NAT."""

    name: str
    hospital: str
    door: str
    """Its gateway."""
    facility: str
    model: str

    @property
    def sites(self) -> set[str]:
        return {site for site, region in REGION.items() if region == self.name}


LINK = re.compile(r"^(\S+ \S+) UTC INFO \S+ the link to (\S+) is (up|down)", re.MULTILINE)
"""What a forwarder logs of a link: when, to whom, and what happened."""
DEAD_S = 21.0
"""After so long, all connections over a cut have been given up: Zenoh gives them up after 10 s, and
closing them may take as long."""
APART_S = 5.0
"""Neighbours on a busy machine lose each other for moments."""
B = Region("b", hospital="north", door="desk", facility="ward", model="nurse")
C = Region("c", hospital="west", door="booth", facility="booth", model="porter")


@dataclass
class Scene:
    network: Network
    spaces: dict[str, str]
    held: HeldTraining
    asked: dict[str, int] = field(default_factory=lambda: {"gate": 0, "desk": 0, "booth": 0})
    """How many answers each gateway has given."""

    @property
    def folder(self) -> Path:
        """Of the network, with its certificates."""
        return own_network(self.network.processes.center)

    def gate(self, model: str, *options: str) -> Answered:
        """Ask the gateway with the public address."""
        return self._ask("gate", "a", model, "--gateway", GATE, *options)

    def within(self, region: Region, model: str, *options: str) -> Answered:
        """Ask the gateway of a region in that region."""
        return self._ask(region.door, region.name, model, *options)

    def _ask(self, door: str, region: str, model: str, *options: str) -> Answered:
        answered = ask(self.spaces[region], model, *options, network=self.folder)
        self.asked[door] += bool(answered.text)
        return answered

    def alive(self) -> dict[str, float]:
        """The sites that the control centre shows as alive, and when each has started."""
        nodes = self.network.json("get", "nodes")
        shown = [node["descriptor"] for node in nodes if node["alive"]]
        return {each["site"]: each["started_at_s"] for each in shown}

    def answers(self) -> dict[str, int]:
        """The answers of each gateway in the ledger."""
        listed = self.network.json("account", "list")["accounts"]
        found = {one["account"]: one["quantities"].get("answers", 0) for one in listed}
        return {door: found.get(f"gateway/{door}", 0) for door in self.asked}


def answered(ask_: Callable[..., Answered], *arguments: Any) -> Answered:
    """What is answered, now or soon: while a link seems down, as on a busy machine, nobody is."""

    def found() -> Answered | None:
        given = ask_(*arguments)
        return given if given.text else None

    return wait_until(found)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("spread")
    held = HeldTraining(folder / "hook")
    with ExitStack() as stack:
        spaces = stack.enter_context(regions())
        servers = {
            site: stack.enter_context(OpenAiServer(within=spaces[REGION[site]], text=text))
            for site, text in SAYS.items()
        }
        stack.enter_context(held.taken_over())
        processes = SpreadNetwork(write_spread(folder, servers), folder / "logs")
        processes.spaces = spaces
        stack.callback(processes.stop)
        asyncio.run(processes.start(lambda site, done, of: None))
        scene = Scene(Network(folder, processes), spaces, held)
        for region in (B, C):
            answered(scene.gate, region.model)
            answered(scene.within, region, region.model)
        yield scene


def apart_s(scene: Scene, region: Region, since_s: float) -> float:
    """The longest time since then for which the two forwarders of a region had lost each other."""
    log = (scene.network.folder / "logs" / f"{region.door}.log").read_text()
    told = [(logged_s(at), way) for at, site, way in LINK.findall(log) if site == region.facility]
    later = [(at_s, way) for at_s, way in told if at_s > since_s]
    spells = pairwise([*later, (time.time(), "now")])
    return max((until_s - at_s for (at_s, way), (until_s, _) in spells if way == "down"), default=0)


def logged_s(at: str) -> float:
    return datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").replace(tzinfo=UTC).timestamp()


def ways(scene: Scene) -> dict[str, Any]:
    """What doctor says in region `a` of the ways between sites."""
    ended = run_in(scene.spaces["a"], "doctor", "--all", "--json", network=scene.folder)
    found = [f for f in json.loads(ended.stdout) if f["check"] == "way"]
    return {finding["subject"]: finding for finding in found}


def test_a_model_visits_sites_behind_nats_and_doctor_finds_nobody_cut_off(scene: Scene) -> None:
    route = [{"site": site, "examples": 100} for site in ("north", "west", "east")]
    intent = write_intent(scene.network.folder, route=route)
    ended = scene.network.daitn("train", "-f", str(intent), "--insist", "--watch")
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    job = scene.network.json("describe", "job", "tumour-1")
    assert [visit["site"] for visit in job["route"]] == ["north", "west", "east"][
        : len(job["route"])
    ]
    assert len({visit["site"] for visit in job["route"]} & {"north", "west"}) == 2
    assert not [site for site, way in ways(scene).items() if way["level"] == "problem"]


def test_facilities_that_can_only_dial_out_answer_packets(scene: Scene) -> None:
    """Also from behind one NAT to behind another; a gateway that is told to connect cannot."""
    for region in (B, C):
        relayed = answered(scene.gate, region.model)
        assert relayed.text == SAYS[region.facility]
        assert relayed.headers["path"] == f"gate,hub,{region.facility}"
        routed = scene.gate(region.model, "--routed")
        assert not routed.text
        assert "fix" in routed.error
    for region, other in ((B, C), (C, B)):
        across = answered(scene.within, region, other.model, "--autonomous")
        assert across.text == SAYS[other.facility]
        assert across.headers["path"] == f"{region.door},hub,{other.facility}"
        beside = answered(scene.within, region, region.model)
        assert beside.text == SAYS[region.facility]
        assert beside.headers["path"] == ",".join(dict.fromkeys((region.door, region.facility)))


@pytest.mark.parametrize(("region", "other"), [(B, C), (C, B)], ids=["b", "c"])
def test_a_region_that_is_cut_goes_on_and_merges_again(
    scene: Scene, region: Region, other: Region, record_property: Callable[[str, object], None]
) -> None:
    before = scene.alive()
    assert region.sites < {*before}
    audit = scene.network.folder / "state" / region.hospital / "audit"
    sites = ["east", region.hospital, other.hospital]
    name, route = f"cut-{region.name}", [{"site": site, "examples": 100} for site in sites]
    intent = write_intent(
        scene.network.folder, name=name, objectives=OUT_OF_REACH, route=route, budget={}
    )

    def job() -> Any:
        return scene.network.json("describe", "job", f"{name}-1")

    def did() -> list[str]:
        return [entry.event for entry in entries(audit) if entry.job == f"{name}-1"]

    with scene.held.at(region.hospital):
        scene.network.json("train", "-f", str(intent), "--insist")
        scene.held.first()
        cut(region.name)
        cut_s, cut_at_s = time.monotonic(), time.time()
        try:
            wait_until(lambda: {*scene.alive()} == {*before} - region.sites)
            lost_s = time.monotonic() - cut_s
            # What was accepted is done, and queries of the region are answered in it.
            scene.held.let(region.hospital)
            wait_until(lambda: did() == ["begun", "visited"])
            for how in ("--routed", "--autonomous") * 3:
                said = answered(scene.within, region, region.model, how)
                assert said.text == SAYS[region.facility]
            # The others go on, too, and nobody pretends to reach what is out of reach.
            assert answered(scene.gate, other.model).text == SAYS[other.facility]
            assert not scene.gate(region.model).text
            assert not scene.within(region, other.model, "--autonomous").text
            waiting = job()
            assert [visit["site"] for visit in waiting["route"]] == ["east"]
            assert waiting["ended_at_s"] is None
            # Connections over the cut that are given up hold up none within the region.
            time.sleep(max(0.0, cut_s + DEAD_S - time.monotonic()))
            assert apart_s(scene, region, cut_at_s) < APART_S
        finally:
            mend(region.name)
        mended_s = time.monotonic()
        wait_until(lambda: scene.alive() == before)  # None of them has started anew.
        whole_s = time.monotonic() - mended_s
        wait_until(lambda: len(job()["route"]) > 1)
    wait_until(lambda: job()["ended_at_s"] is not None)
    assert [visit["site"] for visit in job()["route"]] == sites
    assert did() == ["begun", "visited"]
    check_books(scene.network, job())
    answered(scene.gate, region.model)
    answered(scene.within, region, other.model, "--autonomous")
    wait_until(lambda: scene.answers() == scene.asked)
    assert scene.network.json("account", "check")["problems"] == []
    record_property("lost_s", round(lost_s, 1))
    record_property("whole_s", round(whole_s, 1))
    print(f"shown as lost after {lost_s:.1f} s; whole {whole_s:.1f} s after the cut ended")
