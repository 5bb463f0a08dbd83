"""What both ends for queries, a gateway's and a facility's, do alike: take requests in, and give
answers and errors as HTTP responses."""

from __future__ import annotations

import asyncio

import msgspec

from daitn.node.http import BodyTooLarge, Request, Response
from daitn.openai.errors import ApiError, bad_request
from daitn.openai.http import JSON

__all__ = ["json_response", "read_body", "refused"]


def refused(error: ApiError) -> Response:
    """The error as an HTTP response."""
    return Response(error.body, error.status, error.headers)


def json_response(value: object) -> Response:
    """`value` as JSON, in one."""
    return Response(msgspec.json.encode(value), headers={"content-type": JSON})


async def read_body(request: Request, most: int, within_s: float | None = None) -> bytes:
    """The whole body, of at most `most` bytes. Raises `ApiError` for one that is larger (413), or
    is not there within `within_s` (408), and `ConnectionError`."""
    try:
        if request.whole:  # It came together with the head, as most do: no clock is needed.
            return await request.body(most)
        async with asyncio.timeout(within_s):
            return await request.body(most)
    except BodyTooLarge:
        raise bad_request(f"has more than {most} bytes", "body", status=413) from None
    except TimeoutError:
        message = f"the request's body was not there within {within_s:g} s"
        raise ApiError(408, "request_timeout", message) from None
