"""A network that lets in nobody without a certificate of its authority."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.scenes.breast_cancer import free_port, write_intent, write_network

from .conftest import Network, running
from .test_forwarders import wait_until

pytestmark = pytest.mark.processes


def certificate(folder: Path, name: str, authority: str = "authority") -> str:
    """Make one; returns its folder."""
    made = folder / "tls" / name
    command = ["certificate", str(made), "--host", "127.0.0.1", "--authority"]
    subprocess.run(
        [sys.executable, "-m", "daitn.cli.app", *command, str(folder / authority)],
        check=True,
        capture_output=True,
    )
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
        ended = subprocess.run(
            [sys.executable, "-m", "daitn.cli.app", "get", "nodes"],
            env={"DAITN_CENTER": "tls/127.0.0.1:7447", "DAITN_TLS": tls, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 2
        return " ".join(ended.stderr.split())

    assert "DAITN_TLS" in asked("")
    assert "authority.pem is missing" in asked(str(tmp_path))
