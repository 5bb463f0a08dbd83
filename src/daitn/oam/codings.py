"""Which content codings a client accepts (RFC 9110, 12.5.3)."""

from __future__ import annotations

__all__ = ["takes"]


def takes(accepts: str, coding: str) -> bool:
    """Whether a header `accept-encoding` names a coding, and does not exclude it."""
    for part in accepts.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() == coding:
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
