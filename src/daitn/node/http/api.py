"""What both doors for queries, a gateway's and a facility's, know of OpenAI's HTTP API: its paths,
its error bodies, and how requests are taken in.

The HTTP status of an error decides which exception `openai` raises; `code` says what happened,
`param` names the field of the request that would have to change, and `daitn` tells the reasons.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec

from daitn.node.http import BodyTooLarge, Request, Response
from daitn.objects.deployments import Api
from daitn.objects.errors import DaitnError

__all__ = [
    "EVENTS",
    "JSON",
    "OURS",
    "PATHS",
    "UPSTREAM_REFUSED",
    "ApiError",
    "bad_request",
    "json_response",
    "of_error",
    "read_body",
    "refused",
]

JSON = "application/json"
EVENTS = "text/event-stream"
PATHS = {f"/v1{api.path}": api for api in Api}
OURS = frozenset({400, 413, 415, 422})
"""Statuses by which a server says that the request itself is at fault: no other would take it."""
UPSTREAM_REFUSED = "upstream_refused"
"""Code of a facility's error: the server behind it is there, and says that it failed."""


class ApiError(Exception):
    """A request that is not answered. `retry_after_s`: seconds, where time helps."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        daitn: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.daitn = daitn

    @property
    def body(self) -> bytes:
        """OpenAI's error object."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": _type(self.status),
            "param": self.param,
            "code": self.code,
        }
        if self.daitn is not None:
            error["daitn"] = self.daitn
        return msgspec.json.encode({"error": error})

    @property
    def headers(self) -> dict[str, str]:
        headers = {"content-type": JSON}
        if self.retry_after_s is not None:
            # Whole seconds are all that RFC 9110 knows; OpenAI's clients look at milliseconds.
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
            headers["retry-after-ms"] = str(max(1, math.ceil(self.retry_after_s * 1e3)))
        return headers


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def bad_request(problem: str, param: str, *, fix: str = "", status: int = 400) -> ApiError:
    """The request is malformed."""
    message = f"{param}: {problem}" + (f" ({fix})" if fix else "")
    return ApiError(status, "invalid_request", message, param=param)


def of_error(error: DaitnError, prefix: str = "") -> ApiError:
    """Bad input as found below the door; `prefix` goes before its field."""
    return bad_request(error.problem, f"{prefix}{error.field}", fix=error.fix)


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
