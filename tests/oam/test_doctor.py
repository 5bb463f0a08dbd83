"""`daitn doctor`: what is wrong is found and said with its fix; what is right is let alone."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from daitn.cli.founding import found_network
from daitn.cli.network import read_network
from daitn.oam.doctor.diagnoses import Diagnosis, Level
from daitn.oam.doctor.network import check_clocks, check_endpoints, check_sites, check_ways
from daitn.objects.cordons import Cordon, CordonReport
from daitn.objects.descriptors import LeftOut
from daitn.objects.errors import Unreachable
from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading, Reading
from daitn.tools import clock
from daitn.topology.export import export
from daitn.topology.snapshot import Drrt, SiteState
from tests.scenes.breast_cancer import write_network
from tests.scenes.command_line import daitn
from tests.topology.medicine import NOW_S, data_site, dataset, drrt
from tests.topology.qrrt.world import facility

Examined = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = write_network(tmp_path)
    found_network(*read_network(path))
    return path


def examined(path: Path, *arguments: str, exits: int = 0) -> Examined:
    """The findings, by check and subject; of several the worst."""
    ended = daitn("doctor", "-c", str(path), "--offline", "--json", *arguments)
    assert ended.returncode == exits, ended.stdout + ended.stderr
    found: Examined = {}
    for finding in json.loads(ended.stdout):
        found.setdefault((finding["check"], finding["subject"]), finding)
        assert bool(finding["fix"]) == (finding["level"] != "ok")
    return found


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    plain = yaml.safe_load(path.read_text())
    change(plain)
    path.write_text(yaml.safe_dump(plain))
    return path


def test_a_good_file_has_no_problem(network: Path) -> None:
    found = examined(network)
    assert {f["level"] for f in found.values()} <= {"ok", "warning"}
    assert found["member", "site east"]["level"] == "ok"
    assert found["certificate", "site east"]["level"] == "ok"
    assert found["port", "control centre center"]["level"] == "ok"
    table = daitn("doctor", "-c", str(network), "--offline")
    assert "0 problems" in table.stdout


def test_a_file_that_cannot_be_read_names_its_field(network: Path) -> None:
    changed(network, lambda plain: plain["nodes"][0].update(thread=1))
    (finding,) = examined(network, exits=1).values()
    assert "thread" in finding["what"]


def test_data_that_cannot_be_read_is_told(network: Path) -> None:
    changed(network, lambda plain: plain["nodes"][0]["datasets"][0].update(path="nothing.csv"))
    found = examined(network, "--site", "east", exits=1)
    assert "nothing.csv" in found["data", "site east"]["what"]


def test_a_port_in_use_is_told_unless_the_process_has_it(network: Path) -> None:
    center, _ = read_network(network)
    host, _, port = center.listen[0].partition("/")[2].rpartition(":")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, int(port)))
        taken.listen()
        found = examined(network, exits=1)["port", "control centre center"]
    assert f"sport = :{port}" in found["fix"]


def test_membership_that_ends_or_is_of_another_key_is_told(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = clock.wall_s()
    monkeypatch.setattr(clock, "wall_s", lambda: now_s + 80 * 86400.0)
    found = examined(network, exits=1)  # A day's certificate is long over by then.
    assert "ended" in found["certificate", "site east"]["what"]
    monkeypatch.setattr(clock, "wall_s", lambda: now_s + 3650 * 86400.0)
    assert examined(network, exits=1)["member", "site east"]["level"] == "problem"
    monkeypatch.undo()
    (network.parent / "state" / "east" / "key").unlink()
    (network.parent / "state" / "west" / "key").replace(network.parent / "state" / "east" / "key")
    assert "another key" in examined(network, exits=1)["member", "site east"]["what"]


def test_roles_that_the_roster_does_not_grant_are_told(network: Path) -> None:
    def more(plain: dict[str, Any]) -> None:
        plain["nodes"][0]["roles"].append("gateway")
        plain["nodes"][0]["gateway"] = {"listen": "127.0.0.1:0"}

    found = examined(changed(network, more), exits=1)
    assert "does not grant it gateway" in found["member", "site east"]["what"]


def test_a_damaged_database_is_told(network: Path) -> None:
    (network.parent / "state" / "center" / "jobs.db").write_bytes(b"no database" * 1000)
    assert "damaged" in examined(network, exits=1)["database", "control centre center"]["what"]


def test_without_a_network_it_says_so(network: Path) -> None:
    ended = daitn("doctor", "-c", str(network), "--json")
    assert ended.returncode == 1
    (finding,) = [f for f in json.loads(ended.stdout) if f["check"] == "center"]
    assert "cannot reach the control centre" in finding["what"]


def levels(findings: list[Diagnosis]) -> dict[tuple[str, str], Level]:
    return {(f.check, f.subject): f.level for f in findings}


def state(site: str, alive: bool = True, **changes: Any) -> SiteState:
    node = data_site(site, dataset(site, "medicine"), **{"software": "daitn 1", **changes})
    return SiteState(descriptor=node, alive=alive, changed_at_s=0.0)


def test_lost_old_lacking_and_cordoned_sites_are_told() -> None:
    lacking = (LeftOut(field="datasets[0]", name="a", reason="no file"),)
    found = check_sites(
        [
            state("a"),
            state("b", alive=False),
            state("c", software="daitn 0"),
            state("d", left_out=lacking),
            state("e", cordon=Cordon(by="ops", since_s=0.0)),
        ],
        "1",
    )
    assert levels(list(found)) == {
        ("alive", "site b"): Level.PROBLEM,
        ("version", "c"): Level.WARNING,
        ("left-out", "site d"): Level.PROBLEM,
        ("cordon", "site e"): Level.WARNING,
    }


async def test_clocks_are_compared_by_what_sites_answer() -> None:
    off_s = {"a": 0.5, "b": -10.0, "c": 500.0}

    async def ask(site: SiteId) -> CordonReport:
        if site == "d":
            raise Unreachable("the clock of d is 300 s behind, by its message", field="clock")
        if site == "e":
            raise Unreachable("nobody serves it")
        return CordonReport(site=site, cordon=None, clock_s=1000.0 + off_s[site])

    sites = [SiteId(name) for name in "abcde"]
    found = await check_clocks(sites, ask, lambda: 1000.0)
    assert levels(found) == {
        ("clock", "site b"): Level.WARNING,
        ("clock", "site c"): Level.PROBLEM,
        ("clock", "site d"): Level.PROBLEM,
    }
    (agree,) = await check_clocks(sites[:1], ask, lambda: 1000.0)
    assert agree.level is Level.OK


def cut_off(site: str, *others: str) -> Drrt:
    """Nobody reaches a site, nor does it reach anybody, as both measured."""
    links = [
        LinkReading(
            source=SiteId(source),
            target=SiteId(target),
            loss=Reading(value=1.0, at_s=NOW_S, origin=SiteId(source)),
        )
        for other in others
        for source, target in ((site, other), (other, site))
    ]
    return drrt([data_site(name, dataset(name, "medicine")) for name in (site, *others)], links)


def test_the_site_behind_a_nat_is_named_and_not_those_it_cannot_reach() -> None:
    view = export(cut_off("a", "b", "c"))
    (found,) = check_ways(msgspec.structs.replace(view, at_s=NOW_S + 200.0))
    assert (found.level, found.subject) == (Level.PROBLEM, "site a")
    assert "b, c" in found.what
    assert "listen: []" in found.fix
    fine = export(drrt([data_site("a"), data_site("b")]))
    (found,) = check_ways(msgspec.structs.replace(fine, at_s=NOW_S + 200.0))
    assert found.level is Level.OK


async def test_endpoints_that_nobody_serves_are_told() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nodes = []
        for name, at in (("good", port), ("bad", closed.getsockname()[1])):
            node = facility(name)
            assert node.facility
            there = msgspec.structs.replace(node.facility, endpoint=f"http://127.0.0.1:{at}")
            nodes.append(msgspec.structs.replace(node, facility=there))
        found = levels(await check_endpoints(nodes))
    server.close()
    assert found == {
        ("endpoint", "facility at good"): Level.OK,
        ("endpoint", "facility at bad"): Level.PROBLEM,
    }
