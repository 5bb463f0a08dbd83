"""Content codings of HTTP (RFC 9110, section 8.4), for unrequested compression.

We ask for `identity`. Some servers compress all the same, and some clients compress requests.
"""

from __future__ import annotations

import zlib

__all__ = ["CODINGS", "BadCoding", "Decoder"]

CODINGS = ("gzip", "deflate")
"""The codings that can be decoded."""
_SYNONYMS = {"x-gzip": "gzip"}
_MOST_CODINGS = 4
_MOST_EXPANDED_BYTES = 1 << 24
"""Maximum expansion of one piece: 64 KiB by more than 250 is not text, but an attack."""
_GZIP, _ZLIB, _RAW = 31, 15, -15
"""`wbits` of zlib's formats."""


class BadCoding(Exception):
    """A body is not in the coding that its head names, or in an unknown one. `unknown`: the
    latter."""

    def __init__(self, reason: str, *, unknown: bool = False) -> None:
        super().__init__(reason)
        self.unknown = unknown


class Decoder:
    """Decodes one body, piece by piece."""

    def __init__(self, header: str) -> None:
        """`header`: the value of `content-encoding`. Raises `BadCoding`."""
        named = [name.strip().lower() for name in header.split(",")]
        codings = [_SYNONYMS.get(name, name) for name in named if name not in ("", "identity")]
        for coding in codings:
            if coding not in CODINGS:
                raise BadCoding(f"it is coded as {coding[:20]!a}, which is unknown", unknown=True)
        if len(codings) > _MOST_CODINGS:
            raise BadCoding("it is coded too often", unknown=True)
        self._layers = [_Layer(coding) for coding in reversed(codings)]

    def __bool__(self) -> bool:
        """Whether there is anything to decode."""
        return bool(self._layers)

    def feed(self, data: bytes, max_bytes: int = _MOST_EXPANDED_BYTES) -> bytes:
        """The next bytes, decoded. Raises `BadCoding`, also for more than `max_bytes`."""
        for layer in self._layers:
            data = layer.feed(data, max_bytes)
        return data

    def finish(self) -> None:
        """The body has ended. Raises `BadCoding` if it is incomplete."""
        if not all(layer.complete for layer in self._layers):
            raise BadCoding("its coding ends too early")


class _Layer:
    """One coding. Several gzip members may follow each other."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._zlib: zlib._Decompress | None = None
        self._head = b""

    @property
    def complete(self) -> bool:
        """An empty body is complete, too."""
        return not self._head and (self._zlib is None or self._zlib.eof)

    def feed(self, data: bytes, max_bytes: int) -> bytes:
        out = b""
        try:
            while data:
                if self._zlib is None or self._zlib.eof:
                    data = self._head + data
                    self._head = b"" if len(data) > 1 else data
                    if self._head:
                        break
                    self._zlib = zlib.decompressobj(self._wbits(data))
                out += self._zlib.decompress(data, max_bytes - len(out) + 1)
                if len(out) > max_bytes:
                    raise BadCoding(f"a piece of it expands to more than {max_bytes} bytes")
                data = self._zlib.unused_data
        except zlib.error:
            raise BadCoding(f"it is not in the coding {self._coding} that it names") from None
        return out

    def _wbits(self, data: bytes) -> int:
        """There are two kinds of `deflate`: in the zlib format (RFC 9110), and raw as some send
        it."""
        if self._coding == "gzip":
            return _GZIP
        wrapped = data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
        return _ZLIB if wrapped else _RAW
