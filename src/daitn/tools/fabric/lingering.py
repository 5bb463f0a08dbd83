"""Lets the connections of a session close at once.

Zenoh makes the system wait up to 10 s in `close` for what the other end has not acknowledged
(`SO_LINGER`), and closes connections on the threads that receive for all links of the process: two,
unless one is told otherwise. Measured with 1.10: once two connections to hosts that were cut off
had expired, nothing was received on any link for 10 s. Zenoh has no setting for it, so this undoes
it. What was sent before a connection is closed is delivered as before, by the system.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from typing import Final

import zenoh

from daitn.tools.fabric.delivery import call_on

__all__ = ["NoLinger"]

_AFTER_S: Final = 2.0
"""How soon after a connection was made; none expires as soon. One pass is for all that were made
meanwhile, as it looks at all descriptors: measured, 15 ms for 1,000 on a busy machine, in a thread
of its own."""
_DESCRIPTORS: Final = "/dev/fd"
_OPTION: Final = struct.Struct("ii")
"""Whether `close` waits, and for how many seconds."""


class NoLinger:
    """Undoes it for each connection that a session makes or accepts, as long as this is held.

    Call on the event loop.
    """

    def __init__(self, session: zenoh.Session) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = False
        self._events = session.info.declare_link_events_listener(self._happened)
        self._made()  # Of those that the session had before it was listened to.

    def _happened(self, event: zenoh.LinkEvent) -> None:
        """Called on one of Zenoh's threads."""
        if event.kind == zenoh.SampleKind.PUT:
            call_on(self._loop, self._made)

    def _made(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_later(_AFTER_S, self._pass)

    def _pass(self) -> None:
        self._due = False
        with contextlib.suppress(RuntimeError):  # The loop is about to end.
            self._loop.run_in_executor(None, _undo_all)


def _undo_all() -> None:
    for name in os.listdir(_DESCRIPTORS):
        with contextlib.suppress(OSError):  # It is no socket, or was closed meanwhile.
            _undo(int(name))


def _undo(descriptor: int) -> None:
    found = socket.socket(fileno=descriptor)
    try:
        option = found.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _OPTION.size)
        if all(_OPTION.unpack(option)):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _OPTION.pack(0, 0))
    finally:
        found.detach()  # The descriptor is Zenoh's.
