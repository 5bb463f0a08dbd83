"""Messages on a connection to a template: one message per packet, with its files."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

__all__ = [
    "NOTICES",
    "REQUESTS",
    "SUPPORTED",
    "Exited",
    "Join",
    "Notice",
    "Request",
    "Spawn",
    "Spawned",
    "receive",
    "send",
]

T = TypeVar("T")

SUPPORTED: Final = hasattr(socket, "SOCK_SEQPACKET") and hasattr(socket, "send_fds")
"""Whether this machine supports templates: Linux."""
_MOST_BYTES = 1 << 18
_MOST_FILES = 8


class Spawn(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Start a process that calls the function `main` of a module. The attached files are its
    standard input, output and errors, and further files."""

    number: int
    """Chosen by the sender."""
    title: str
    """Its title in process lists."""
    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    folder: str
    """Its working directory."""
    ends: bool
    """Whether it is killed, with its process group, when the connection ends."""


class Join(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The attached file is a further connection."""


class Spawned(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A process has started, the leader of a session of its own."""

    number: int
    pid: int


class Exited(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A process has ended."""

    pid: int
    code: int
    """Exit code, or the negative number of the signal that ended it."""


Request = Spawn | Join
Notice = Spawned | Exited

REQUESTS: Final[msgspec.msgpack.Decoder[Request]] = msgspec.msgpack.Decoder(Request)
NOTICES: Final[msgspec.msgpack.Decoder[Notice]] = msgspec.msgpack.Decoder(Notice)
_encode = msgspec.msgpack.Encoder().encode


def send(connection: socket.socket, message: Request | Notice, files: Sequence[int] = ()) -> None:
    """Raises `OSError` if nobody is at the other end."""
    socket.send_fds(connection, [_encode(message)], files)


def receive(
    connection: socket.socket, decoder: msgspec.msgpack.Decoder[T]
) -> tuple[T, list[int]] | None:
    """The next message, and its attached files; none at the end."""
    try:
        data, files, _, _ = socket.recv_fds(connection, _MOST_BYTES, _MOST_FILES)
    except ConnectionError:
        return None
    return (decoder.decode(data), files) if data else None
