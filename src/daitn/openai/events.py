"""Cuts a stream into server-sent events and reads them (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re
from typing import NamedTuple

from daitn.openai.http import BOM

__all__ = ["AnswerBroken", "Event", "EventCutter", "looks_like_events", "read_event"]

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")


class AnswerBroken(Exception):
    """An answer is incomplete or missing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Event(NamedTuple):
    """The content of an event. `others`: its lines without data, as they arrived."""

    name: bytes
    data: bytes
    others: tuple[bytes, ...]


class EventCutter:
    """Cuts bytes into whole events, each with the blank line that ends it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._after_cr = False
        """Whether the last event ended with a CR, which an LF may follow."""
        self._first = True

    @property
    def held_bytes(self) -> int:
        """Bytes of an event that has not ended yet."""
        return len(self._buffer)

    def feed(self, piece: bytes) -> list[bytes]:
        """Process the next bytes; returns the events that end with them."""
        if self._after_cr:
            piece, self._after_cr = piece.removeprefix(b"\n"), not piece
        if not self._buffer and _is_one_event(piece):
            return self._cleaned([piece])
        self._buffer += piece
        start = max(0, self._searched - 3)
        ends = _ends(self._buffer, start)
        self._searched = len(self._buffer)
        if not ends:
            return []
        blocks = [bytes(self._buffer[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
        del self._buffer[: ends[-1]]
        self._searched = len(self._buffer)
        self._after_cr = not self._buffer and blocks[-1].endswith(b"\r")
        return self._cleaned(blocks)

    def finish(self) -> bytes:
        """The rest after the last blank line, at the end."""
        rest = bytes(self._buffer).lstrip(b"\r\n")
        self._buffer.clear()
        return rest.removeprefix(BOM) if self._first else rest

    def _cleaned(self, blocks: list[bytes]) -> list[bytes]:
        """Without empty lines before an event, and without a byte order mark."""
        if self._first and blocks:
            self._first = False
            blocks[0] = blocks[0].removeprefix(BOM)
        return [block.lstrip(b"\r\n") for block in blocks if block.strip(b"\r\n")]


def _ends(data: bytearray, start: int) -> list[int]:
    """Where events end, from `start` on."""
    if data.find(b"\r", start) >= 0:
        return [match.end() for match in _BLANK_LINE.finditer(data, start)]
    ends = []
    while (at := data.find(b"\n\n", start)) >= 0:  # Much faster than the general case.
        start = at + 2
        ends.append(start)
    return ends


def read_event(block: bytes) -> Event | None:
    """Read an event; none for one without data, such as a comment. llama.cpp reports errors in its
    own field `error`."""
    if block.startswith(b"data: {") and block.find(b"\n") == len(block) - 2 and b"\r" not in block:
        return Event(b"", block[len(b"data: ") : -2], ())
    name, data, others = b"", list[bytes](), list[bytes]()
    for line in _LINE_END.split(block):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"error":
            name = b"error"
            data.append(value)
        elif line:
            name = value if field == b"event" else name
            others.append(line)
    return Event(name, b"\n".join(data), tuple(others)) if data else None


def _is_one_event(piece: bytes) -> bool:
    """Whether a piece is exactly one event with plain line ends, as most are."""
    return piece.endswith(b"\n\n") and piece.find(b"\n\n") == len(piece) - 2 and b"\r" not in piece


def looks_like_events(head: bytes) -> bool | None:
    """Whether a body with this beginning is a stream of events, whatever its content type; `None`
    means more of it is needed."""
    text = head.removeprefix(BOM).lstrip()
    if text[:1] in (b"{", b"["):
        return False
    if not text or BOM.startswith(head):
        return None
    starts = (b":", b"data", b"event", b"id", b"retry", b"error")
    if any(text.startswith(start) for start in starts):
        return True
    return None if any(start.startswith(text) for start in starts) else False
