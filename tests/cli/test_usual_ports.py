"""What listens by default on one machine."""

from __future__ import annotations

from daitn.center.config import API_ADDRESS
from daitn.cli.mcp.serving import USUAL_PORT as USUAL_MCP
from daitn.tools.monitoring.config import USUAL as USUAL_METRICS


def test_no_two_parts_have_the_same_default_port() -> None:
    """The later one would take another port without a word."""
    ports = [int(at.rpartition(":")[2]) for at in (*USUAL_METRICS.values(), API_ADDRESS)]
    ports += [USUAL_MCP, 7447, 7480]
    assert len(set(ports)) == len(ports)
