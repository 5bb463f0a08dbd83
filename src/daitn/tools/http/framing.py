"""Header lines and input limits that the client and the server of HTTP/1.1 (RFC 9112) share.

llhttp does the parsing, through `httptools`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

__all__ = [
    "HIGH_WATER",
    "MAX_HEAD_BYTES",
    "OVERHEAD_PER_BODY_BYTE",
    "BadRequest",
    "check_head",
    "header_lines",
    "read_headers",
]

MAX_HEAD_BYTES = 1 << 16
"""A request here needs less than a tenth of it; nginx allows half."""
OVERHEAD_PER_BODY_BYTE = 9
"""Total bytes that may arrive per byte of a chunked body: a one-byte chunk, its size and two line
ends, with some slack. Any more is padding in extensions or trailers."""
HIGH_WATER = 1 << 18
"""Received bytes that a slow reader may leave; at this limit the sender is paused."""

_CHECKED = frozenset({b"host", b"transfer-encoding", b"expect"})
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]+)(:\d*)?", re.ASCII)
"""`uri-host [":" port]` of RFC 9110, 7.2, not empty. Text in brackets need not be an address."""


class BadRequest(ValueError):
    """A request that the server must not, or cannot, carry out. `status`: of the response."""

    def __init__(self, problem: str, status: int = 400) -> None:
        super().__init__(problem)
        self.status = status


def check_head(version: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Check what llhttp leaves to the server of HTTP `version`. Names are in lower case.

    Raises `BadRequest`.
    """
    if version not in ("1.1", "1.0"):
        raise BadRequest(f"HTTP/{version} is not supported")
    found = [line for line in headers if line[0] in _CHECKED]
    hosts = [value for name, value in found if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise BadRequest("a request has one header host")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise BadRequest("the header host names no host")
    if len(found) == len(hosts):
        return
    if codings := _members(found, b"transfer-encoding"):
        _check_codings(version, codings)
    # RFC 9110, 10.1.1: a client of HTTP/1.0 expects nothing.
    if version == "1.1" and {*_members(found, b"expect")} - {b"100-continue"}:
        raise BadRequest("only 100-continue can be expected", 417)


def _check_codings(version: str, codings: list[bytes]) -> None:
    """RFC 9112, 6.1 and 6.3."""
    if version == "1.0":
        raise BadRequest("HTTP/1.0 has no transfer-encoding")
    if codings[-1:] != [b"chunked"] or codings.count(b"chunked") > 1:
        raise BadRequest("a transfer-encoding ends with chunked, once")
    if len(codings) > 1:
        raise BadRequest("only the transfer-encoding chunked is supported", 501)


def _members(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> list[bytes]:
    """The members of a list header (RFC 9110, 5.6.1), in lower case."""
    value = b",".join([value for name, value in headers if name == wanted]).lower()
    return [member for part in value.split(b",") if (member := part.strip(b" \t"))]


def header_lines(headers: Mapping[str, str]) -> str:
    """Format headers as lines. Raises `ValueError` for a value that contains a line end."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header value contains a line end")
    return lines


def read_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name in lower case; the first of repeated headers counts."""
    headers: dict[str, str] = {}
    for name, value in raw:
        text = value.decode("utf-8", "surrogateescape")
        headers.setdefault(name.decode("latin-1").lower(), text)
    return headers
