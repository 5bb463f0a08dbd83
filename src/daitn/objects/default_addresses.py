"""Where the processes of one machine listen, and look for each other, unless told otherwise."""

from __future__ import annotations

from typing import Final

__all__ = ["API", "CENTER", "GATEWAY", "MCP_PORT", "METRICS"]

CENTER: Final = "tls/127.0.0.1:7447"
"""The control centre's endpoint on the fabric."""
API: Final = "127.0.0.1:7448"
"""Its HTTP API, with the dashboard."""
METRICS: Final = {"center": "127.0.0.1:7449", "node": "127.0.0.1:7489"}
"""Prometheus metrics, by kind of process."""
MCP_PORT: Final = 7450
GATEWAY: Final = "127.0.0.1:7480"
"""A gateway's HTTP API for query owners."""
