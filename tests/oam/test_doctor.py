"""`daitn doctor`: what is wrong is found and said with its fix; what is right is let alone."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
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
from daitn.oam.doctor.network import (
    check_clocks,
    check_endpoints,
    check_paths,
    check_served,
    check_sites,
)
from daitn.objects.cordons import Cordon, CordonReport
from daitn.objects.descriptors import LeftOut
from daitn.objects.errors import ClocksDiffer, Unreachable
from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading, Reading
from daitn.tools import clock
from daitn.topology.export import export
from daitn.topology.qrrt.served import served_models
from daitn.topology.snapshot import Drrt, SiteState
from tests.scenes.breast_cancer import write_network
from tests.scenes.command_line import daitn
from tests.scenes.ports import free_port
from tests.topology.medicine import NOW_S, data_site, dataset, drrt
from tests.topology.qrrt import world
from tests.topology.qrrt.world import deployment, facility, state_of

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


def test_files_for_signing_in_are_read(network: Path) -> None:
    plain = yaml.safe_load(network.read_text())
    plain["center"]["api"] = {
        "oidc": {
            "issuer": "https://accounts.example.org",
            "client_id": "daitn",
            "client_secret": "secret",
            "people": {"ann@example.org": "ann.token"},
        }
    }
    network.write_text(yaml.safe_dump(plain))
    network.with_name("ann.token").write_text("a token")
    found = examined(network, exits=1)["file", "control centre center"]
    assert found["what"].startswith(f"api.oidc.client_secret: {network.with_name('secret')}")
    network.with_name("secret").write_text("s3cret")
    network.with_name("ann.token").write_text("")
    found = examined(network, exits=1)["file", "control centre center"]
    assert "api.oidc.people[ann@example.org]" in found["what"]
    assert "is empty" in found["what"]


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


@pytest.mark.parametrize(
    ("process", "field", "scheme"),
    [
        ("center", "listen", "tls/"),
        ("center", "api.listen", "https://"),
        ("center", "metrics.listen", ""),
        ("east", "listen", "tls/"),
        ("east", "metrics.listen", "https://"),
        ("east", "gateway.listen", ""),
        ("east", "forwarder.listen", "tls/"),
    ],
)
def test_a_port_in_use_is_told(network: Path, process: str, field: str, scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        value: Any = f"{scheme}127.0.0.1:{port}"
        for name in reversed(field.split(".")):
            several = name == "listen" and scheme == "tls/"
            value = {name: [value] if several else value}

        def change(plain: dict[str, Any]) -> None:
            nodes = {node["site"]: node for node in plain["nodes"]}
            part = plain["center"] if process == "center" else nodes[process]
            part.update(value)
            part.get("roles", []).extend({"gateway", "forwarder"} & {*value})

        changed(network, change)
        subject = "control centre center" if process == "center" else f"site {process}"
        found = examined(network, exits=1)["port", subject]
    assert found["what"].startswith(f"{field}: cannot listen at")
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


NO_ADDRESS = ("127.0.0.1:99999", "localhost", "127.0.0.1:-1", "127.0.0.1:0.0.0.0:1", ":1", "a b:1")


def stated(process: str, field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """States a field of the control centre's entry, or of a node's, with the role that it needs."""

    def change(plain: dict[str, Any]) -> None:
        nodes = {node["site"]: node for node in plain["nodes"]}
        part = plain["center"] if process == "center" else nodes[process]
        *parents, name = field.split(".")
        part.get("roles", []).extend({"gateway", "facility", "forwarder"} & {*parents})
        for parent in parents:
            part = part.setdefault(parent, {})
        part[name] = value

    return change


@pytest.mark.parametrize("value", NO_ADDRESS)
@pytest.mark.parametrize(
    ("process", "field"),
    [
        ("east", "facility.listen"),
        ("east", "gateway.listen"),
        ("east", "metrics.listen"),
        ("center", "api.listen"),
        ("center", "metrics.listen"),
    ],
)
def test_what_no_server_could_listen_at_is_told(
    network: Path, process: str, field: str, value: str
) -> None:
    path = changed(network, stated(process, field, value))
    (finding,) = examined(path, exits=1).values()
    assert f"{field}: {value!r} is not an address" in finding["what"]


@pytest.mark.parametrize(
    ("process", "field", "value"),
    [
        ("east", "facility.listen", ""),
        ("east", "gateway.listen", ""),
        ("east", "gateway.advertise", "ai.example.org"),
        ("east", "facility.advertise", "http://ai.example.org:99999"),
        ("center", "listen", ["tls/127.0.0.1:99999"]),
        ("center", "listen", ["127.0.0.1:7447"]),
        ("center", "root", ["tls/root.example.org"]),
        ("east", "listen", ["tls/127.0.0.1"]),
        ("east", "center", ["tls/127.0.0.1:0"]),
        ("east", "forwarder.listen", ["udp/127.0.0.1:0"]),
        ("east", "forwarder.listen", []),
        ("east", "forwarder.scout", "10.0.0.1:7448"),
        ("east", "forwarder.neighbours", {"west": ["west:7449"]}),
    ],
)
def test_what_no_session_could_use_is_told_by_its_field(
    network: Path, process: str, field: str, value: Any
) -> None:
    path = changed(network, stated(process, field, value))
    (finding,) = examined(path, exits=1).values()
    assert f"{field}" in finding["what"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("listen", ["tls/127.0.0.1:0"]),
        ("center", ["tls/127.0.0.1:7447"]),
        ("facility.listen", "https://127.0.0.1:0"),
    ],
)
def test_who_is_without_a_roster_has_no_certificate(network: Path, field: str, value: Any) -> None:
    def alone(plain: dict[str, Any]) -> None:
        plain["center"]["insecure"] = True
        stated("east", field, value)(plain)

    (finding,) = examined(changed(network, alone), exits=1).values()
    assert f"{field}: there is no certificate for" in finding["what"]


def test_what_others_could_not_use_is_told(network: Path) -> None:
    changed(network, stated("east", "gateway.listen", "https://0.0.0.0:0"))
    found = examined(network, exits=1)["file", "site east"]
    assert found["what"] == "gateway.advertise: others cannot connect to 0.0.0.0"


def test_an_address_of_another_machine_is_told_even_for_a_free_port(network: Path) -> None:
    changed(network, stated("east", "gateway.listen", "https://192.0.2.1:0"))
    found = examined(network, exits=1)["port", "site east"]
    assert found["what"].startswith("gateway.listen: cannot listen at https://192.0.2.1:0: ")
    assert "an address of this machine" in found["fix"]


def test_addresses_that_need_a_missing_certificate_are_told(network: Path) -> None:
    shutil.rmtree(network.parent / "state" / "east" / "tls")
    for field, value in (
        ("listen", "tls/127.0.0.1:0"),
        ("center", "tls/127.0.0.1:7447"),
        ("metrics.listen", "https://127.0.0.1:0"),
    ):
        path = network.with_name("changed.yaml")
        path.write_text(network.read_text())
        changed(path, stated("east", "listen", ["tcp/127.0.0.1:0"]))
        assert examined(path)["certificate", "site east"]["level"] == "warning"
        changed(path, stated("east", field, value if "." in field else [value]))
        found = examined(path, exits=1)["certificate", "site east"]
        assert f"as {value}" in found["what"]


def test_a_key_that_this_user_cannot_read_is_told(network: Path) -> None:
    key = network.parent / "state" / "east" / "key"
    key.unlink()
    key.mkdir()
    found = examined(network, exits=1)["member", "site east"]
    assert f"{key} cannot be read" in found["what"]


def test_rosters_of_two_networks_in_one_site_are_told(network: Path, tmp_path: Path) -> None:
    assert daitn("network", "init", str(tmp_path / "n"), "--name", "n").returncode == 0
    shutil.copy(tmp_path / "n" / "roster.json", network.parent / "state" / "east")
    assert "different networks" in examined(network, exits=1)["roster", "site east"]["what"]


def commands(fix: str) -> list[list[str]]:
    """The commands in what to do."""
    return [shlex.split(command) for command in re.findall(r"`daitn ([^`]*)`", fix)]


def test_what_to_do_about_a_membership_that_ends_runs_as_written(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {"DAITN_NETWORK": str(network.parent / "state" / "center" / "network")}
    now_s = clock.wall_s()
    monkeypatch.setattr(clock, "wall_s", lambda: now_s + 350 * 86400.0)
    for subject in ("site east", "control centre center"):
        found = examined(network, exits=1)["member", subject]
        assert (found["level"], "ends in" in found["what"]) == ("warning", True)
        (command,) = commands(found["fix"])
        ended = daitn(*command, **folder)
        assert ended.returncode == 0, ended.stderr
        assert examined(network, exits=1)["member", subject]["level"] == "ok"


def test_what_to_do_about_lacking_rights_runs_as_written(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(network.parent)
    folder = {"DAITN_NETWORK": str(network.parent / "state" / "center" / "network")}
    changed(network, stated("east", "gateway.listen", "127.0.0.1:0"))
    admit, invite, join, request = commands(
        examined(network, exits=1)["member", "site east"]["fix"]
    )
    assert daitn(*invite, **folder).returncode == 0
    for command in (join, ["network", "admit", "east.request"]):
        command = [word.replace("INVITATION", "east.invitation") for word in command]
        ended = daitn(*command, **folder)
        assert ended.returncode == 0, ended.stderr
    assert request == ["network", "admit", "REQUEST"]
    assert examined(network)["member", "site east"]["level"] == "ok"
    assert admit == ["network", "admit", str(network)]
    assert daitn(*admit, **folder).returncode == 0


def test_what_to_do_about_a_process_without_a_roster_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "center.yaml"
    path.write_text("insecure: true")
    fix = examined(path)["roster", "control centre center"]["fix"]
    assert "take `insecure` out" in fix
    path.write_text("{}")
    again = examined(path, exits=1)["roster", "control centre center"]["fix"]
    for command in (*commands(fix), *(c for c in commands(again) if "join" not in c)):
        words = {"FOLDER": str(tmp_path / "net"), "NAME": "net", "REQUEST": str(path)}
        command = [words.get(word, word) for word in command]
        ended = daitn(*command, DAITN_NETWORK=str(tmp_path / "net"))
        assert ended.returncode == 0, ended.stderr


def test_roles_that_the_roster_does_not_grant_are_told(network: Path) -> None:
    def more(plain: dict[str, Any]) -> None:
        plain["nodes"][0]["roles"].append("gateway")
        plain["nodes"][0]["gateway"] = {"listen": "127.0.0.1:0"}

    found = examined(changed(network, more), exits=1)
    assert "does not grant it gateway" in found["member", "site east"]["what"]


def test_a_damaged_database_is_told(network: Path) -> None:
    (network.parent / "state" / "center" / "jobs.db").write_bytes(b"no database" * 1000)
    assert "damaged" in examined(network, exits=1)["database", "control centre center"]["what"]


def test_the_centre_of_the_file_counts_unless_the_command_line_names_one(network: Path) -> None:
    stated = yaml.safe_load(network.read_text())["center"]["listen"][0]
    named = f"tcp/127.0.0.1:{free_port()}"
    for options, expected in (((), stated), (("--center", named), named)):
        ended = daitn("doctor", "-c", str(network), "--json", *options, DAITN_CENTER="tcp/[::1]:7")
        (finding,) = [f for f in json.loads(ended.stdout) if f["check"] == "center"]
        assert finding["subject"] == expected


def test_without_a_network_it_says_so(network: Path) -> None:
    ended = daitn("doctor", "-c", str(network), "--json")
    assert ended.returncode == 1
    (finding,) = [f for f in json.loads(ended.stdout) if f["check"] == "center"]
    assert "cannot reach the control centre" in finding["what"]


def test_one_problem_is_one_problem(tmp_path: Path) -> None:
    ended = daitn("doctor", "-c", str(tmp_path / "none.yaml"), "--offline")
    assert "1 problem, 0 warnings, 0 checks in order" in ended.stdout


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
            raise ClocksDiffer("d is 300 s late")
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
    (found,) = check_paths(msgspec.structs.replace(view, at_s=NOW_S + 200.0))
    assert (found.level, found.subject) == (Level.PROBLEM, "site a")
    assert "b, c" in found.what
    assert "listen: []" in found.fix
    fine = export(drrt([data_site("a"), data_site("b")]))
    (found,) = check_paths(msgspec.structs.replace(fine, at_s=NOW_S + 200.0))
    assert found.level is Level.OK


def test_what_verifiers_say_of_deployments_is_told() -> None:
    def said(name: str, verifier: str, value: float = 0.9, **more: Any) -> Any:
        return world.finding(name, "mdf", "medicine", value, verifier=SiteId(verifier), **more)

    names = ("fine", "quack", "sick", "shy", "slandered")
    told = [said(name, unit) for name in names for unit in ("a", "b")]
    told += [said("quack", "c", two_faced=True, degraded=True), said("shy", "c", unanswered=True)]
    told += [said("quack", "d", two_faced=True, degraded=True, at_s=NOW_S)]
    told += [said("sick", unit, 0.3, degraded=True) for unit in ("c", "d", "e")]
    told += [said("slandered", "liar", 0.0, degraded=True)]
    state = state_of([facility("mdf", *map(deployment, names))], *told)
    state.absorb_finding(said("quack", "e", two_faced=True, degraded=True), NOW_S)
    found = list(check_served(served_models(state.snapshot()).models))
    told_of = {(one.subject.split()[0], one.what.split(",")[0]): one.level for one in found}
    assert told_of == {
        ("quack", "it answers examinations better than single questions"): Level.PROBLEM,
        ("sick", "it answers significantly worse than before"): Level.PROBLEM,
        ("sick", "most verifiers contradict the accuracy by a"): Level.WARNING,
        ("shy", "it answers examinations"): Level.WARNING,
        ("slandered", "it answers significantly worse than before"): Level.WARNING,
        ("slandered", "most verifiers contradict the accuracy by liar"): Level.WARNING,
    }
    assert all(one.fix for one in found)
    (quack,) = (one for one in found if "quack" in one.subject)
    assert "c, d, e, 3 of 5 verifiers" in quack.what
    assert "daitn network revoke site mdf" in quack.fix
    (fine,) = check_served(
        served_models(state_of([facility("mdf", deployment("new"))]).snapshot()).models
    )
    assert fine.level is Level.OK


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
