"""A network that lets in nobody without a certificate of its authority."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import yaml

from daitn.learning.corpora.clinic import clinic
from daitn.learning.corpora.records import write_records
from daitn.learning.corpora.split import choices
from tests.scenes.breast_cancer import write_intent, write_network
from tests.scenes.clinic import examining, facility, gateway
from tests.scenes.command_line import daitn
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.ports import free_port
from tests.scenes.waiting import wait_until

from .conftest import Network, build, running
from .test_inference import HELLO

pytestmark = pytest.mark.processes


def certificate(folder: Path, name: str, authority: str = "authority") -> str:
    """Make one; returns its folder."""
    made = folder / "tls" / name
    options = ["--host", "127.0.0.1", "--authority", str(folder / authority)]
    assert daitn("certificate", str(made), *options).returncode == 0
    return str(made)


def written(folder: Path) -> Path:
    """The network with all endpoints over TLS; `east` and `west` are forwarders too, linked."""
    path = write_network(folder)
    plain = yaml.safe_load(path.read_text().replace("tcp/", "tls/"))
    plain["center"]["tls"] = certificate(folder, "center")
    plain["defaults"]["tls"] = certificate(folder, "site")
    plain["defaults"]["listen"] = ["tls/127.0.0.1:0"]
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


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    path = written(tmp_path)
    monkeypatch.setenv("DAITN_TLS", certificate(tmp_path, "operator"))
    built = running(tmp_path, path)
    yield built
    built.processes.stop()


def test_a_model_is_trained_among_those_with_certificates(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    intent = write_intent(network.folder)
    job = network.json("train", "-f", str(intent), "--watch")
    assert job["state"] == "reached"

    def linked() -> bool:
        report = network.json("steer", "--site", "west")
        return bool(report["links"][0]["up"])

    wait_until(linked)
    strangers = certificate(network.folder, "stranger", "other-authority")
    for folder in ("", strangers):
        monkeypatch.setenv("DAITN_TLS", folder)
        refused = network.daitn("get", "nodes")
        assert refused.returncode == (4 if folder else 2), refused.stderr
        assert "error" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    def asked(tls: str) -> str:
        ended = daitn("get", "nodes", DAITN_CENTER="tls/127.0.0.1:7447", DAITN_TLS=tls)
        assert ended.returncode == 2
        return " ".join(ended.stderr.split())

    assert "DAITN_TLS" in asked("")
    assert "authority.pem is missing" in asked(str(tmp_path))


def queried(folder: Path, exam: Path, server: OpenAiServer, tls: str) -> list[dict[str, Any]]:
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
    return [{**node, "tls": tls} for node in (door, hall, examining(exam))]


def test_queries_and_answers_are_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exam = tmp_path / "exam.jsonl"
    items = [choice for pairs in clinic().values() for choice in choices(pairs, "exam")]
    write_records(exam, items[:100])
    tls = certificate(tmp_path, "site")
    with OpenAiServer(text="rest and water", accuracy=0.95, answers=str(exam)) as server:
        nodes = queried(tmp_path, exam, server, tls)
        network = build(tmp_path, nodes)
        url = nodes[0]["gateway"]["listen"]
        trusted = ssl.create_default_context(cafile=Path(tls, "authority.pem"))
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
            unknown = network.daitn(*command)
            assert unknown.returncode == 4
            assert "DAITN_TLS" in unknown.stderr
            monkeypatch.setenv("DAITN_TLS", tls)
            assert network.daitn(*command).stdout.strip() == "rest and water"
            port = int(url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
                plain.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                assert not plain.recv(100).startswith(b"HTTP")
        finally:
            network.processes.stop()
