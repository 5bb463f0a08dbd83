"""Replaces the upstream server's own model name in its answers by the name that was queried."""

from __future__ import annotations

import re

import msgspec

__all__ = ["ModelRenamer"]

_FIELD = re.compile(rb'"model"\s*:\s*"(?:[^"\\]|\\.)*"')
"""Quotes within JSON strings are escaped, so text from the model cannot match the field."""


class ModelRenamer:
    """Puts `name` into the `model` fields of a byte stream.

    Bytes after the last line end are held back: they may contain half a field.
    """

    def __init__(self, name: str) -> None:
        self._replacement = b'"model":' + msgspec.json.encode(name)
        self._held = bytearray()

    def __call__(self, data: bytes) -> bytes:
        """Take the next bytes in; return those that are ready."""
        end = data.rfind(b"\n") + 1
        if not end:
            self._held += data
            return b""
        whole = bytes(self._held) + data[:end]
        self._held[:] = data[end:]
        return self._rename(whole)

    def finish(self) -> bytes:
        """Return the rest, at the end of the answer."""
        held = bytes(self._held)
        self._held.clear()
        return self._rename(held)

    def _rename(self, data: bytes) -> bytes:
        return _FIELD.sub(lambda _: self._replacement, data)
