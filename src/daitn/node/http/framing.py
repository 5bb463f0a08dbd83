"""What both ends of HTTP/1.1 (RFC 9112) share: lines of a head, and bounds on what comes.

llhttp, by way of `httptools`, does the parsing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["BODY_PAYS", "HIGH_WATER", "MOST_HEAD", "header_lines", "read_headers"]

MOST_HEAD = 1 << 16
"""Bytes of a head. Nothing here needs a tenth of it; nginx allows half."""
BODY_PAYS = 9
"""Per byte of a body that is sent in chunks, as many may come altogether: the chunk of one byte,
its size and two line ends, with room. More is padding by extensions or trailers."""
HIGH_WATER = 1 << 18
"""Bytes that came and that nobody has taken; then the other side has to wait."""


def header_lines(headers: Mapping[str, str]) -> str:
    """The lines of these headers. Raises `ValueError` where one would add lines of its own."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header's value has a line end in it")
    return lines


def read_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name in lower case; of several of a name the first counts."""
    headers: dict[str, str] = {}
    for name, value in raw:
        said = value.decode("utf-8", "surrogateescape")
        headers.setdefault(name.decode("latin-1").lower(), said)
    return headers
