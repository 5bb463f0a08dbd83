"""What listens by default on one machine."""

from __future__ import annotations

from daitn.objects.default_addresses import API, CENTER, GATEWAY, MCP_PORT, METRICS


def test_no_two_parts_have_the_same_default_port() -> None:
    """The later one would take another port without a word."""
    ports = [int(at.rpartition(":")[2]) for at in (CENTER, API, *METRICS.values(), GATEWAY)]
    ports.append(MCP_PORT)
    assert len(set(ports)) == len(ports)
