"""Errors of OpenAI's API.

The HTTP status of an error decides which exception `openai` raises; `code` says what happened,
`param` names the field of the request that would have to change, and `daitn` tells the reasons.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from daitn.objects.errors import DaitnError
from daitn.openai.http import JSON

__all__ = [
    "NOT_READ",
    "OURS",
    "UPSTREAM_REFUSED",
    "ApiError",
    "Error",
    "bad_request",
    "fault",
    "of_error",
    "read_error",
]

NOT_READ = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What decoding a stranger's JSON raises."""
OURS = frozenset({400, 413, 415, 422})
"""Statuses by which a server says that the request itself is at fault: no other would take it."""
UPSTREAM_REFUSED = "upstream_refused"
"""Code of a facility's error: the server behind it is there, and says that it failed."""


class Error(msgspec.Struct):
    """OpenAI's error object."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None
    """llama.cpp and vLLM repeat the status here."""
    daitn: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET


class _Body(msgspec.Struct):
    error: Error


_BODY = msgspec.json.Decoder(_Body)
_ENCODER = msgspec.json.Encoder()


def read_error(body: bytes) -> Error | None:
    """None where the body is no error of OpenAI's API."""
    try:
        return _BODY.decode(body).error
    except NOT_READ:
        return None


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
        """As JSON."""
        daitn = msgspec.UNSET if self.daitn is None else self.daitn
        error = Error(self.message, _type(self.status), self.param, self.code, daitn)
        return _ENCODER.encode(_Body(error))

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
    """Bad input as found below the API; `prefix` goes before its field."""
    return bad_request(error.problem, f"{prefix}{error.field}", fix=error.fix)


def fault(error: Exception, within: str = "") -> ApiError:
    """msgspec's complaint as a 400 that names the field by its path."""
    problem, _, path = str(error).replace("key` in `", "").partition(" - at `")
    field = path.rstrip("`").removeprefix("$").removeprefix(".")
    if "unknown field" in problem or "missing required field" in problem:
        named = problem.rpartition("`")[0].rpartition("`")[2]
        field = f"{field}.{named}" if field else named
    param = ".".join(part for part in (within, field) if part) or "body"
    return bad_request(problem, param)
