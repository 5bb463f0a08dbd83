"""Server-sent events (WHATWG HTML, section 9.2) of a streamed answer, cut where events end."""

from __future__ import annotations

import zlib

from daitn.openai.responses import NotJson, Usage, read_usage

__all__ = ["AnswerBroken", "EventReader"]

_LONGEST_EVENT = 1 << 22
_COUNTED = b'"completion_tokens"'


class AnswerBroken(Exception):
    """An answer did not come to its end."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EventReader:
    """The events that an asker got, and those that come next.

    Where an answer breaks off and a replica begins it again, the events that were given before
    are left out, and checked to be the same.
    """

    def __init__(self) -> None:
        self.given = 0
        """Bytes that were given out, at the end of an event."""
        self.count = 0
        self.usage: Usage | None = None
        self.resumed = False
        self._crc = 0
        self._rest = b""
        self._to_skip = 0
        self._skipped_crc = 0

    def again(self) -> None:
        """The answer begins again."""
        self.resumed = True
        self._rest = b""
        self._to_skip, self._skipped_crc = self.given, 0

    def take(self, piece: bytes) -> bytes:
        """Whole events that may be given out now. Raises `AnswerBroken`."""
        data = self._rest + piece
        end = max(_end(data, b"\n\n"), _end(data, b"\r\n\r\n"))
        self._rest = data[end:]
        if len(self._rest) > _LONGEST_EVENT:
            raise AnswerBroken(f"an event of it is longer than {_LONGEST_EVENT} bytes")
        return self._give(data[:end])

    def rest(self) -> bytes:
        """What came after the last whole event, at a clean end. Raises `AnswerBroken`."""
        data, self._rest = self._rest, b""
        given = self._give(data)
        if self._to_skip:
            raise AnswerBroken("a replica gave a shorter answer")
        return given

    def _give(self, data: bytes) -> bytes:
        if self._to_skip:
            known, data = data[: self._to_skip], data[self._to_skip :]
            self._to_skip -= len(known)
            self._skipped_crc = zlib.crc32(known, self._skipped_crc)
            if not self._to_skip and self._skipped_crc != self._crc:
                raise AnswerBroken("a replica gave another answer")
        if data:
            self.given += len(data)
            self._crc = zlib.crc32(data, self._crc)
            self.count += data.count(b"data:")
            if _COUNTED in data:
                self.usage = _usage(data) or self.usage
        return data


def _end(data: bytes, mark: bytes) -> int:
    at = data.rfind(mark)
    return at + len(mark) if at >= 0 else 0


def _usage(data: bytes) -> Usage | None:
    for line in reversed(data.splitlines()):
        if line.startswith(b"data:") and _COUNTED in line:
            try:
                return read_usage(line[len(b"data:") :].strip())
            except NotJson:
                return None
    return None
