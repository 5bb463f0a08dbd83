"""What HTTP servers and clients of this network agree on beyond messages."""

from __future__ import annotations

from typing import Final

__all__ = ["JSON", "OCTETS", "PREFIX"]

PREFIX: Final = "/api/v1"
"""Of all paths of a control centre."""
JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
"""Content type of sealed requests and answers."""
