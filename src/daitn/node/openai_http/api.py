"""Request and response handling shared by gateways and facilities."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence

import msgspec

from daitn.openai.errors import ApiError, bad_request
from daitn.openai.http import JSON
from daitn.tools.http import BodyTooLarge, Request, Response
from daitn.tools.http.content_coding import CODINGS, BadCoding, Decoder

__all__ = [
    "CLOSED_S",
    "error_response",
    "health_response",
    "json_response",
    "plain_path",
    "read_body",
    "wrong_method",
]

CLOSED_S = 60.0
"""When to retry a query at a site that is out of service."""
_SLASHES = re.compile("/+")


def plain_path(request: Request) -> str:
    """The path without the doubled and trailing slashes that result from joining it to a base
    URL."""
    path = request.path
    if "//" in path or path.endswith("/"):
        return _SLASHES.sub("/", path).removesuffix("/") or "/"
    return path


def wrong_method(request: Request, *methods: str) -> ApiError:
    """The response if the path does not support the method."""
    request.add_header("allow", ", ".join(methods))  # RFC 9110, 15.5.6.
    return ApiError(405, "method_not_allowed", f"{plain_path(request)} needs {methods[0]}")


def health_response(problems: Sequence[str], figures: Mapping[str, object]) -> Response:
    """A server's health: 503 if it has `problems`. `figures` are included."""
    status = "failing" if problems else "ok"
    response = json_response({"status": status, "problems": problems, **figures})
    response.status = 503 if problems else 200
    return response


_PIECE_BYTES = 1 << 14


def error_response(error: ApiError) -> Response:
    """`error` as an HTTP response."""
    return Response(error.body, error.status, error.headers)


def json_response(value: object) -> Response:
    """`value` as a JSON response."""
    return Response(msgspec.json.encode(value), headers={"content-type": JSON})


async def read_body(request: Request, max_bytes: int, timeout_s: float | None = None) -> bytes:
    """Read the whole body, and decode it if it is compressed.

    Raises `ApiError` for a body of more than `max_bytes` (413), one that does not arrive within
    `timeout_s` (408) or is coded as nobody here can read (415), and `ConnectionError`.
    """
    try:
        if request.complete:  # Most bodies arrive with the head; they need no timer.
            body = await request.body(max_bytes)
        else:
            async with asyncio.timeout(timeout_s):
                body = await request.body(max_bytes)
        coding = request.headers.get("content-encoding")
        return body if coding is None else _decoded(body, coding, max_bytes)
    except BodyTooLarge:
        raise bad_request(f"has more than {max_bytes} bytes", "body", status=413) from None
    except TimeoutError:
        message = f"the request body did not arrive within {timeout_s:g} s"
        raise ApiError(408, "request_timeout", message) from None


def _decoded(body: bytes, coding: str, max_bytes: int) -> bytes:
    """Raises `ApiError` and `BodyTooLarge`."""
    try:
        decoder = Decoder(coding)
        parts, size = [], 0
        # Small pieces, so that a bomb is noticed before it has grown.
        for start in range(0, len(body), _PIECE_BYTES):
            parts.append(decoder.feed(body[start : start + _PIECE_BYTES]))
            size += len(parts[-1])
            if size > max_bytes:
                raise BodyTooLarge
        decoder.finish()
    except BadCoding as bad:
        fix = f"send it plain, or as {' or '.join(CODINGS)}"
        if bad.unknown:
            raise bad_request(str(bad), "content-encoding", fix=fix, status=415) from None
        raise bad_request(str(bad), "content-encoding", fix=fix) from None
    return b"".join(parts)
