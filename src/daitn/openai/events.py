"""Reads a streamed answer, cut into server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import zlib

from daitn.openai.responses import NotJson, Usage, read_usage

__all__ = ["AnswerBroken", "EventReader"]

_MAX_EVENT_BYTES = 1 << 22
_USAGE_FIELD = b'"completion_tokens"'


class AnswerBroken(Exception):
    """An answer is incomplete."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EventReader:
    """Cuts a stream into whole events, and counts what they report.

    When an answer breaks off and a replica starts it anew, the reader drops the events that were
    already sent, after checking that they are the same.
    """

    def __init__(self) -> None:
        self.sent_bytes = 0
        """Bytes sent on so far; ends with an event."""
        self.event_count = 0
        self.usage: Usage | None = None
        self.resumed = False
        self._crc = 0
        self._buffer = b""
        self._skip_bytes = 0
        self._skipped_crc = 0

    def restart(self) -> None:
        """Expect the answer from its start."""
        self.resumed = True
        self._buffer = b""
        self._skip_bytes, self._skipped_crc = self.sent_bytes, 0

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes in; return the whole events to send on. Raises `AnswerBroken`."""
        data = self._buffer + piece
        end = max(_end(data, b"\n\n"), _end(data, b"\r\n\r\n"))
        self._buffer = data[end:]
        if len(self._buffer) > _MAX_EVENT_BYTES:
            raise AnswerBroken(f"one of its events is longer than {_MAX_EVENT_BYTES} bytes")
        return self._advance(data[:end])

    def finish(self) -> bytes:
        """Return what follows the last whole event, at a clean end. Raises `AnswerBroken`."""
        data, self._buffer = self._buffer, b""
        new = self._advance(data)
        if self._skip_bytes:
            raise AnswerBroken("a replica's answer is shorter")
        return new

    def _advance(self, data: bytes) -> bytes:
        if self._skip_bytes:
            repeated, data = data[: self._skip_bytes], data[self._skip_bytes :]
            self._skip_bytes -= len(repeated)
            self._skipped_crc = zlib.crc32(repeated, self._skipped_crc)
            if not self._skip_bytes and self._skipped_crc != self._crc:
                raise AnswerBroken("a replica's answer differs")
        if data:
            try:
                data.decode()
            except UnicodeDecodeError:
                raise AnswerBroken("its answer is not UTF-8") from None
            self.sent_bytes += len(data)
            self._crc = zlib.crc32(data, self._crc)
            self.event_count += data.count(b"data:")
            if _USAGE_FIELD in data:
                self.usage = _usage(data) or self.usage
        return data


def _end(data: bytes, mark: bytes) -> int:
    at = data.rfind(mark)
    return at + len(mark) if at >= 0 else 0


def _usage(data: bytes) -> Usage | None:
    for line in reversed(data.splitlines()):
        if line.startswith(b"data:") and _USAGE_FIELD in line:
            try:
                return read_usage(line[len(b"data:") :].strip())
            except NotJson:
                return None
    return None
