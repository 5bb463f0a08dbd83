"""Errors of OpenAI's API.

The HTTP status of an error decides which exception the `openai` client raises; `code` names the
error, `param` the request field to change, and `daitn` lists the reasons.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from daitn.objects.errors import DaitnError
from daitn.openai.http import JSON

__all__ = [
    "BAD_REQUEST_STATUSES",
    "DECODE_ERRORS",
    "UPSTREAM_REFUSED",
    "ApiError",
    "Error",
    "bad_request",
    "error_of",
    "from_daitn_error",
    "from_decode_error",
    "read_error",
]

DECODE_ERRORS = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What decoding untrusted JSON may raise."""
BAD_REQUEST_STATUSES = frozenset({400, 413, 415, 422})
"""Statuses that blame the request itself: every other server would reject it too."""
UPSTREAM_REFUSED = "upstream_refused"
"""The server behind a facility is up, and reported an error."""


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


class _AnyBody(msgspec.Struct):
    """An error body in one of the forms in use."""

    error: Any = None
    object: Any = None
    type: Any = None
    message: Any = None
    detail: Any = None
    """Of FastAPI."""
    code: Any = None
    param: Any = None


_ANY_BODY = msgspec.json.Decoder(_AnyBody)
_ENCODER = msgspec.json.Encoder()


def read_error(body: bytes) -> Error | None:
    """Decode an error body; none if it says no error in any form that is known."""
    try:
        told = _ANY_BODY.decode(body)
    except DECODE_ERRORS:
        return None
    if told.error:
        return error_of(told.error)
    if told.detail:
        return error_of({"message": told.detail})
    if "error" in (told.object, told.type):
        return error_of(msgspec.structs.asdict(told))
    return None


def error_of(told: Any) -> Error:
    """An error as a server says it: OpenAI's object, or another, or a text."""
    if not isinstance(told, dict):
        return Error(_text(told))
    code, daitn = told.get("code"), told.get("daitn")
    return Error(
        message=_text(told.get("message")),
        type=_text(told.get("type")) or None,
        param=_text(told.get("param")) or None,
        code=code if isinstance(code, int) else _text(code) or None,
        daitn=daitn if isinstance(daitn, dict) else msgspec.UNSET,
    )


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return _ENCODER.encode(value).decode()


class ApiError(Exception):
    """An error response. `retry_after_s`: when a retry may succeed, in seconds."""

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
        """The error as JSON."""
        daitn = msgspec.UNSET if self.daitn is None else self.daitn
        error = Error(self.message, _error_type(self.status), self.param, self.code, daitn)
        return _ENCODER.encode(_Body(error))

    @property
    def headers(self) -> dict[str, str]:
        headers = {"content-type": JSON}
        if self.retry_after_s is not None:
            # RFC 9110 has whole seconds only; OpenAI's clients read the milliseconds.
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
            headers["retry-after-ms"] = str(max(1, math.ceil(self.retry_after_s * 1e3)))
        return headers


def _error_type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def bad_request(problem: str, param: str, *, fix: str = "", status: int = 400) -> ApiError:
    """A malformed request: `problem` of the field `param`, and how to fix it."""
    message = f"{param}: {problem}" + (f" ({fix})" if fix else "")
    return ApiError(status, "invalid_request", message, param=param)


def from_daitn_error(error: DaitnError, prefix: str = "") -> ApiError:
    """An input error from below the API; `prefix` goes before its field."""
    return bad_request(error.problem, f"{prefix}{error.field}", fix=error.fix)


def from_decode_error(error: Exception, within: str = "") -> ApiError:
    """msgspec's error as a 400 that names the field by its path below `within`."""
    problem, _, path = str(error).replace("key` in `", "").partition(" - at `")
    field = path.rstrip("`").removeprefix("$").removeprefix(".")
    if "unknown field" in problem or "missing required field" in problem:
        name = problem.rpartition("`")[0].rpartition("`")[2]
        field = f"{field}.{name}" if field else name
    param = ".".join(part for part in (within, field) if part) or "body"
    return bad_request(problem, param)
