"""What listens by default on one machine."""

from __future__ import annotations

import pytest

from daitn.center.config import API_ADDRESS
from daitn.tools.monitoring.config import USUAL as USUAL_METRICS


def test_no_two_parts_have_the_same_default_port() -> None:
    """The later one would take another port without a word."""
    serving = pytest.importorskip("daitn.cli.mcp.serving")
    ports = [int(at.rpartition(":")[2]) for at in (*USUAL_METRICS.values(), API_ADDRESS)]
    ports += [serving.USUAL_PORT, 7447, 7480]
    assert len(set(ports)) == len(ports)
