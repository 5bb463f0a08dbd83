"""Header lines and input limits that the client and the server of HTTP/1.1 (RFC 9112) share.

llhttp does the parsing, through `httptools`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["HIGH_WATER", "MAX_HEAD_BYTES", "OVERHEAD_PER_BODY_BYTE", "header_lines", "read_headers"]

MAX_HEAD_BYTES = 1 << 16
"""A request here needs less than a tenth of it; nginx allows half."""
OVERHEAD_PER_BODY_BYTE = 9
"""Bytes that may arrive in all per byte of a chunked body: a one-byte chunk, its size and two line
ends, with some slack. Any more is padding in extensions or trailers."""
HIGH_WATER = 1 << 18
"""Received bytes that a slow reader may leave; at this limit the sender is paused."""


def header_lines(headers: Mapping[str, str]) -> str:
    """Format headers as lines. Raises `ValueError` for a value that contains a line end."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header value contains a line end")
    return lines


def read_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name in lower case; of repeated headers the first one counts."""
    headers: dict[str, str] = {}
    for name, value in raw:
        text = value.decode("utf-8", "surrogateescape")
        headers.setdefault(name.decode("latin-1").lower(), text)
    return headers
