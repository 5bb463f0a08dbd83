"""Ports of this machine for what tests start."""

from __future__ import annotations

import random
import socket

__all__ = ["free_port"]

_HELD: list[socket.socket] = []
"""One for each port given out. Nobody else can take it, but for who says that he reuses addresses,
as servers do: so no two tests have one port, in whatever process they run."""


def free_port() -> int:
    """A port that nobody listens on, that no other test is given as long as this process lives,
    and that no connection takes for its own end."""
    while True:
        # Below those that Linux gives to connections, 32768 to 60999.
        port = random.randrange(12_000, 32_000)
        held = socket.socket()
        try:
            held.bind(("127.0.0.1", port))
        except OSError:
            held.close()
            continue
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _HELD.append(held)
        return port
