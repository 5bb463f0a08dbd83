"""Answers of an upstream server under the name that was asked for; the server's own stays here."""

from __future__ import annotations

import re

import msgspec

__all__ = ["ModelRenamer"]

_FIELD = re.compile(rb'"model"\s*:\s*"(?:[^"\\]|\\.)*"')
"""Within JSON's texts quotes are escaped: nothing that a model says is taken for the field."""


class ModelRenamer:
    """Puts `name` where an answer names its model, as its bytes pass.

    What may be half of the field waits for the next bytes: everything after the last line end.
    """

    def __init__(self, name: str) -> None:
        self._named = b'"model":' + msgspec.json.encode(name)
        self._rest = bytearray()

    def __call__(self, data: bytes) -> bytes:
        """What may go out now."""
        end = data.rfind(b"\n") + 1
        if not end:
            self._rest += data
            return b""
        whole = bytes(self._rest) + data[:end]
        self._rest[:] = data[end:]
        return self._renamed(whole)

    def rest(self) -> bytes:
        """The end of the answer."""
        rest = bytes(self._rest)
        self._rest.clear()
        return self._renamed(rest)

    def _renamed(self, data: bytes) -> bytes:
        return _FIELD.sub(lambda _: self._named, data)
