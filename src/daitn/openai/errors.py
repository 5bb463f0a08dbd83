"""Errors of OpenAI's API.

The HTTP status of an error decides which exception the `openai` client raises; `code` names the
error, `param` the request field to change, and `daitn` lists the reasons.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec

from daitn.objects.errors import DaitnError
from daitn.objects.text import typed
from daitn.openai.http import BOM, JSON

__all__ = [
    "DECODE_ERRORS",
    "HALF_PAIR",
    "MOST_QUOTED",
    "ApiError",
    "Error",
    "ErrorFields",
    "bad_request",
    "error_of",
    "from_daitn_error",
    "from_decode_error",
    "read_error",
    "unsupported",
]

DECODE_ERRORS = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""Errors from decoding untrusted JSON."""

HALF_PAIR = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which is not a character, although JSON can express it."""


MOST_QUOTED, _MAX_NAME = 200, 50
"""Maximum characters quoted from an error's message, and from each of its names."""


class Error(msgspec.Struct):
    """OpenAI's error object."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None
    """llama.cpp and vLLM repeat the status here."""
    daitn: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def words(self) -> str:
        """The error as quoted to clients and in logs: on one line, and short."""
        named = ", ".join(str(name)[:_MAX_NAME] for name in (self.type, self.code) if name)
        text = " ".join(self.message.split())
        if len(text) > MOST_QUOTED:
            text = f"{text[:MOST_QUOTED]}…"
        words = f"{text} ({named})" if text and named else text or named
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in words)


class _Body(msgspec.Struct):
    error: Error


class ErrorFields(msgspec.Struct):
    """Fields by which an answer may report an error, in the known forms. Any may be anything."""

    error: Any = None
    object: Any = None
    type: Any = None
    message: Any = None
    code: Any = None
    param: Any = None

    def stated_error(self, *, named: bool = False) -> Error | None:
        """The error; none if there is none. `named`: the context of the fields shows that it is
        one."""
        if self.error:
            return error_of(self.error)
        if named or "error" in (self.object, self.type):
            fields = {"message": self.message, "type": self.type}
            return error_of({**fields, "code": self.code, "param": self.param})
        return None


class _AnyBody(ErrorFields):
    detail: Any = None
    """As in errors of FastAPI."""
    choices: msgspec.Raw | None = None


_ANY_BODY = msgspec.json.Decoder(_AnyBody)
_ENCODER = msgspec.json.Encoder()


def read_error(body: bytes) -> Error | None:
    """Decode an error body; none if it contains no error in any known form."""
    try:
        body_fields = _ANY_BODY.decode(body)
    except DECODE_ERRORS:
        return None
    error = body_fields.stated_error()
    if error is None and body_fields.detail and body_fields.choices is None:
        return error_of({"message": body_fields.detail})
    return error


def error_of(fields: Any) -> Error:
    """An error from a server: OpenAI's object, another object, or a text."""
    if not isinstance(fields, dict):
        return Error(_text(fields))
    code, daitn = fields.get("code"), fields.get("daitn")
    return Error(
        message=_text(fields.get("message")),
        type=_text(fields.get("type")) or None,
        param=_text(fields.get("param")) or None,
        code=code if isinstance(code, int) else _text(code) or None,
        daitn=daitn if isinstance(daitn, dict) else msgspec.UNSET,
    )


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return _ENCODER.encode(value).decode()


class ApiError(Exception):
    """An error response. `retry_after_s`: when a retry may succeed, in seconds; `permanent`: it
    will not soon, although the status lets clients retry; `type_`: OpenAI's `type`, if it is not
    that of the status."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        daitn: dict[str, Any] | None = None,
        permanent: bool = False,
        type_: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.daitn = daitn
        self.permanent = permanent
        self.type = type_ or _error_type(status)

    @property
    def body(self) -> bytes:
        """The error as JSON."""
        daitn = msgspec.UNSET if self.daitn is None else self.daitn
        error = Error(self.message, self.type, self.param, self.code, daitn)
        return _ENCODER.encode(_Body(error))

    @property
    def headers(self) -> dict[str, str]:
        headers = {"content-type": JSON}
        if self.retry_after_s is not None:
            # RFC 9110 only allows whole seconds; OpenAI's clients read the milliseconds.
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
            headers["retry-after-ms"] = str(max(1, math.ceil(self.retry_after_s * 1e3)))
        if self.permanent:  # OpenAI's clients heed it.
            headers["x-should-retry"] = "false"
        return headers


def _error_type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def bad_request(problem: str, param: str, *, fix: str = "", status: int = 400) -> ApiError:
    """A malformed request: `problem` of the field `param`, and how to fix it."""
    message = f"{param}: {problem}" + (f" ({fix})" if fix else "")
    return ApiError(status, "invalid_request", message, param=param)


def unsupported(problem: str, param: str, *, fix: str = "") -> ApiError:
    """A request that this deployment does not support, although another may."""
    message = f"{param}: {problem}" + (f" ({fix})" if fix else "")
    return ApiError(400, "unsupported", message, param=param)


def from_daitn_error(error: DaitnError, prefix: str = "") -> ApiError:
    """An input error from below the API; `prefix` goes before its field."""
    return bad_request(error.problem, f"{prefix}{error.field}", fix=error.fix)


def from_decode_error(error: Exception, within: str = "", body: bytes | None = None) -> ApiError:
    """msgspec's error as a 400 that names the field by its path below `within`. With the `body`,
    the message explains what is wrong with its JSON."""
    if body is not None and (found := _json_problem(body)) is not None:
        return bad_request(*found)
    problem, _, path = str(error).replace("key` in `", "").partition(" - at `")
    field = path.rstrip("`").removeprefix("$").removeprefix(".")
    if "unknown field" in problem or "missing required field" in problem:
        name = problem.rpartition("`")[0].rpartition("`")[2]
        field = f"{field}.{name}" if field else name
    param = ".".join(part for part in (within, field) if part) or "body"
    return bad_request(typed(problem), param)


def _json_problem(body: bytes) -> tuple[str, str] | None:
    """What is wrong with a body as JSON, and where; none if it is JSON."""
    if not body.removeprefix(BOM).strip():
        return "is empty", "body"
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        return f"is not UTF-8 at byte {error.start}", "body"
    except RecursionError:
        return "is nested too deeply", "body"
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        return f"is not valid JSON: {_lower(error.msg)} at {place}", "body"
    except ValueError as error:
        return f"is not valid JSON: {error}", "body"
    path = _half_pair(value)
    if path is None:
        return None
    return "has half of a surrogate pair, which is not a character", path.removeprefix(
        "."
    ) or "body"


def _no_constant(name: str) -> None:
    raise ValueError(f"it has no {name}")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _half_pair(value: object) -> str | None:
    """The path to the first text with half a surrogate pair; `None` means all are complete."""
    todo = [("", value)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, str) and HALF_PAIR.search(value):
            return path
        if isinstance(value, list):
            todo += [(f"{path}[{at}]", entry) for at, entry in reversed([*enumerate(value)])]
        elif isinstance(value, dict):
            if any(HALF_PAIR.search(name) for name in value):
                return path
            todo += [(f"{path}.{name}", entry) for name, entry in reversed(value.items())]
    return None
