"""Continues a stream at a replica: drops what the client already has, if it is identical."""

from __future__ import annotations

import zlib

from daitn.openai.events import AnswerBroken

__all__ = ["Continuation"]


class Continuation:
    """The part of a stream already sent to a client, over all answers that it came from."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        """Bytes sent so far; ends with an event."""
        self.resumed = False
        self._crc = 0
        self._skip_bytes = 0
        self._skipped_crc = 0

    def restart(self) -> None:
        """Expect the answer from its start."""
        self.resumed = True
        self._skip_bytes, self._skipped_crc = self.sent_bytes, 0

    def take(self, events: bytes) -> bytes:
        """Process the next events; returns those to send on. Raises `AnswerBroken`."""
        if self._skip_bytes:
            repeated, events = events[: self._skip_bytes], events[self._skip_bytes :]
            self._skip_bytes -= len(repeated)
            self._skipped_crc = zlib.crc32(repeated, self._skipped_crc)
            if not self._skip_bytes and self._skipped_crc != self._crc:
                raise AnswerBroken("a replica's answer differs")
        self.sent_bytes += len(events)
        self._crc = zlib.crc32(events, self._crc)
        return events

    def end(self) -> None:
        """The answer is complete. Raises `AnswerBroken` if it is shorter than the first."""
        if self._skip_bytes:
            raise AnswerBroken("a replica's answer is shorter")
