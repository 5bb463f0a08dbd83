"""The line that says what protects a network."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from daitn.cli.founding import found_network
from daitn.cli.network import read_network
from daitn.cli.protection import _line
from daitn.learning.sandbox.policy import Available, Mechanism

ALL = Available(mechanisms=tuple(Mechanism), landlock=7)
FILE = """
center: {listen: [tls/127.0.0.1:7551], state: state/center}
defaults: {center: [tls/127.0.0.1:7551], listen: [tls/127.0.0.1:0], owner: lab, jurisdiction: CA}
nodes:
  - {site: here, state: state/here, roles: [compute], recipes: [classifier]}
"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    file = tmp_path / "network.yaml"
    file.write_text(FILE)
    return file


def test_what_is_on_is_said_to_be_on(network: Path) -> None:
    center, nodes = read_network(network)
    found_network(center, nodes)
    line = _line(center, nodes, ALL)
    assert "roster (3 members) and capabilities (signed orders) on; mTLS on; sandbox on" in line
    assert "NO" not in line
    assert "without" not in line


def test_the_protection_line_names_what_is_off(network: Path) -> None:
    center, nodes = read_network(network)
    center = msgspec.structs.replace(center, insecure=True, listen=("tcp/127.0.0.1:7551",))
    line = _line(center, nodes, Available(mechanisms=(Mechanism.LIMITS,)))
    assert "NO roster and NO capabilities" in line
    assert "mTLS NOT on at tcp/127.0.0.1:7551" in line
    assert "sandbox on (limits, without namespaces, landlock, seccomp)" in line
