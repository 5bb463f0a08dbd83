"""A network that lets in nobody without a certificate of its authority, which is renewed."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import yaml

from daitn.cli.network import own_network
from daitn.cli.session import ExitCode
from daitn.identity.certificates import has_entered, renewal_after_s
from daitn.identity.network import NetworkFolder
from daitn.learning.corpora.clinic import clinic
from daitn.learning.corpora.records import write_records
from daitn.learning.corpora.split import choices
from daitn.objects.roster import Kind
from daitn.tools import clock
from tests.scenes.breast_cancer import write_intent, write_network
from tests.scenes.certificates import certified_member
from tests.scenes.clinic import examining, facility, gateway
from tests.scenes.command_line import daitn
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.ports import free_port
from tests.scenes.waiting import PATIENCE_S, wait_until

from .conftest import Network, build, running
from .test_inference import HELLO

pytestmark = pytest.mark.processes


LIFETIME_S = 8.0


def written(folder: Path) -> Path:
    """The network with all endpoints over TLS; `east` and `west` are forwarders too, linked.

    Certificates hold for seconds.
    """
    path = write_network(folder)
    plain = yaml.safe_load(path.read_text().replace("tcp/", "tls/"))
    plain["center"]["certificate_hours"] = LIFETIME_S / 3600
    plain["center"]["api"] = {"listen": f"https://127.0.0.1:{free_port()}"}
    link = f"tls/127.0.0.1:{free_port()}"
    parts = {
        "east": {"listen": [link], "neighbours": {"west": []}},
        "west": {"listen": [], "neighbours": {"east": [link]}},
    }
    for node in plain["nodes"]:
        if node["site"] in parts:
            node["roles"].append("forwarder")
            node["forwarder"] = parts[node["site"]]
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("tls")
    built = running(folder, written(folder))
    yield built
    built.processes.stop()


def renewals(network: Network, site: str) -> int:
    return (network.folder / f"logs/{site}.log").read_text().count("the certificate was renewed")


def linked(network: Network) -> bool:
    report = network.json("steer", "--site", "west")
    return bool(report["links"][0]["up"])


def test_a_model_is_trained_while_certificates_are_renewed(network: Network) -> None:
    sites = {node.site: renewals(network, node.site) for node in network.processes.nodes}
    job = network.json("train", "-f", str(write_intent(network.folder)), "--watch")
    assert job["state"] == "reached"
    wait_until(lambda: linked(network))
    for site, before in sites.items():
        wait_until(partial(lambda site, n: renewals(network, site) > n, site, before))
    assert network.json("get", "jobs")[0]["state"] == "reached"


def test_who_was_away_for_longer_than_its_certificate_comes_back(network: Network) -> None:
    processes = network.processes
    processes.kill("north")
    processes.kill("center")
    north = Path(next(node.tls for node in processes.nodes if node.site == "north"))
    wait_until(lambda: renewal_after_s(north, clock.wall_s()) < -LIFETIME_S)
    network.mend()
    wait_until(lambda: has_entered(north) and renewal_after_s(north, clock.wall_s()) > 0)
    wait_until(lambda: linked(network))


def test_commands_know_the_control_centre_behind_a_url_by_its_certificate(
    network: Network, tmp_path: Path
) -> None:
    url = str(network.processes.center.api.listen)
    found = daitn("get", "jobs", "--json", DAITN_CENTER=url)
    assert found == network.daitn("get", "jobs", "--json")
    assert found.returncode == 0, found.stderr
    assert daitn("events", DAITN_CENTER=url).returncode == 0
    assert network.daitn("events").returncode == 0
    copy = tmp_path / "copy"
    shutil.copytree(own_network(network.processes.center), copy)
    shutil.rmtree(copy / "tls")
    (copy / "root-key").unlink()
    unknown = daitn("get", "jobs", DAITN_CENTER=url, DAITN_NETWORK=str(copy))
    assert unknown.returncode == ExitCode.UNREACHABLE, unknown.stderr
    assert "cannot be verified as the control centre" in unknown.stderr


def test_strangers_do_not_connect(network: Network, tmp_path: Path) -> None:
    """With certificates of another network, or of none, under a key that is in the roster."""
    folder = own_network(network.processes.center)
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "tls")
    (tmp_path / "copy" / "root-key").unlink()
    assert network.daitn("get", "nodes").returncode == 0
    environment = {
        "DAITN_CENTER": network.processes.endpoint,
        "DAITN_NETWORK": str(tmp_path / "copy"),
    }
    none = daitn("get", "nodes", **environment)
    assert none.returncode == ExitCode.BAD_INPUT, none.stderr
    assert "DAITN_NETWORK" in none.stderr
    assert "authority.pem is missing" in " ".join(none.stderr.split())
    certified_member(tmp_path / "copy" / "tls", tmp_path / "authority")
    other = daitn("get", "nodes", **environment)
    assert other.returncode == ExitCode.UNREACHABLE, other.stderr
    assert "Traceback" not in other.stderr


def test_whoever_joined_elsewhere_gets_a_certificate_with_the_first_command(
    network: Network, tmp_path: Path
) -> None:
    root = ["--network", str(own_network(network.processes.center))]
    own = tmp_path / "ann"
    letters = [str(tmp_path / f"ann.{kind}") for kind in ("invitation", "request", "admission")]
    for command in (
        ["invite", "--owner-name", "ann", "-o", letters[0], *root],
        ["join", letters[0], "--to", str(own), "-o", letters[1]],
        ["admit", letters[1], "-o", letters[2], *root],
        ["join", letters[2], "--to", str(own)],
    ):
        ended = network.daitn("network", *command)
        assert ended.returncode == 0, ended.stderr
    assert not has_entered(own / "tls")
    environment = {"DAITN_CENTER": network.processes.endpoint, "DAITN_NETWORK": str(own)}
    ended = daitn("get", "nodes", **environment)
    assert ended.returncode == 0, ended.stderr
    assert has_entered(own / "tls")


def test_a_revoked_site_loses_its_links_and_gets_no_certificate(network: Network) -> None:
    folder = NetworkFolder(own_network(network.processes.center))
    known = renewals(network, "west")
    wait_until(lambda: renewals(network, "west") > known)
    wait_until(lambda: linked(network))
    folder.revoke(Kind.SITE, "west", clock.wall_s())

    def log_of(name: str) -> str:
        return (network.folder / f"logs/{name}.log").read_text()

    def refused_by(name: str) -> bool:
        return "ends: its certificate's holder is not a member" in log_of(name)

    wait_until(lambda: refused_by("center"))
    wait_until(lambda: refused_by("east"))
    wait_until(lambda: not network.json("steer", "--site", "east")["links"][0]["up"])
    west = Path(next(node.tls for node in network.processes.nodes if node.site == "west"))
    known = renewals(network, "west")
    others = renewals(network, "east")
    wait_until(lambda: renewals(network, "east") > others + 2)
    assert renewals(network, "west") == known
    assert renewal_after_s(west, clock.wall_s()) <= 0
    nodes = {node["descriptor"]["site"] for node in network.json("get", "nodes")}
    assert nodes == {"east", "north", "mpvu"}
    wait_until(lambda: "refuses links with this process" in log_of("west"))
    network.processes.kill("west")


def queried(exam: Path, server: OpenAiServer) -> list[dict[str, Any]]:
    """A gateway, a facility and a verifier that speak with certificates. Gateway and facility are
    linked forwarders too."""
    link = f"tls/127.0.0.1:{free_port()}"
    door = gateway("gate", listen=f"https://127.0.0.1:{free_port()}")
    door["forwarder"] = {"neighbours": {"hall": [link]}}
    model = {"name": "doctor", "url": server.url, "claimed": {"medicine": 0.9}}
    hall = facility("hall", model, facility={"listen": "https://127.0.0.1:0"})
    hall["forwarder"] = {"listen": [link], "neighbours": {"gate": []}}
    for node in (door, hall):
        node["roles"].append("forwarder")
    return [door, hall, examining(exam)]


def test_queries_and_answers_are_encrypted(tmp_path: Path) -> None:
    exam = tmp_path / "exam.jsonl"
    items = [choice for pairs in clinic().values() for choice in choices(pairs, "exam")]
    write_records(exam, items[:100])
    with OpenAiServer(text="rest and water", accuracy=0.95, answers=str(exam)) as server:
        nodes = queried(exam, server)
        network = build(tmp_path, nodes)
        url = nodes[0]["gateway"]["listen"]
        tls = own_network(network.processes.center) / "tls"
        trusted = ssl.create_default_context(cafile=tls / "authority.pem")
        client = openai.OpenAI(
            base_url=f"{url}/v1",
            api_key="none",
            max_retries=0,
            http_client=httpx2.Client(verify=trusted),
        )

        def asked(**constraints: Any) -> str:
            try:
                answer = client.chat.completions.create(
                    model="auto", messages=HELLO, extra_body={"daitn": constraints}
                )
            except openai.APIStatusError:
                return ""
            return answer.choices[0].message.content or ""

        measured = {"topic": "medicine", "min_accuracy": 0.8, "trust": "asked"}
        try:
            wait_until(lambda: asked(**measured) == "rest and water")
            wait_until(lambda: asked(autonomous=True) == "rest and water")
            stream = client.chat.completions.create(model="doctor", messages=HELLO, stream=True)
            pieces = [p.choices[0].delta.content or "" for p in stream if p.choices]
            assert "".join(pieces) == "rest and water"
            command = ["query", "hello", "--gateway", url]
            unknown = daitn(*command, DAITN_CENTER="tls/127.0.0.1:9")
            assert unknown.returncode == 4
            assert "DAITN_NETWORK" in unknown.stderr
            assert network.daitn(*command).stdout.strip() == "rest and water"
            (hall,) = (
                n["descriptor"]
                for n in network.json("get", "nodes")
                if n["descriptor"]["site"] == "hall"
            )
            other = network.daitn("query", "hello", "--gateway", hall["facility"]["endpoint"])
            assert other.returncode == 4, "a facility's certificate passes for no gateway's"
            assert "may not serve" in other.stderr
            port = int(url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain:
                plain.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                assert not plain.recv(100).startswith(b"HTTP")
        finally:
            network.processes.stop()
