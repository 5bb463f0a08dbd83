"""The table of failures of a query at a deployment, and the reactions to them.

A facility finds the row of what its server answers, and a gateway that of what a facility answers.
The reference prints the table.
"""

from __future__ import annotations

import enum
import re
from typing import Final, NamedTuple

from daitn.openai.context_excess import EXCEEDED, says_exceeded
from daitn.openai.errors import Error

__all__ = [
    "BROKEN",
    "CANNOT_REACH",
    "CLIENTS",
    "FAILED",
    "FAILURES",
    "FULL",
    "MISCONFIGURED",
    "NOT_ADMITTED",
    "NOT_ALLOWED",
    "TOO_LONG",
    "UNREADY",
    "UNSUITED",
    "Cause",
    "FailureKind",
    "of_facility",
    "of_server",
    "stated_status",
]


class Cause(enum.Enum):
    """What a failure says about a deployment, and thus whether its health suffers."""

    FULL = "full"
    """Nothing: it is full."""
    FAILED = "failed"
    """It is unhealthy."""
    REFUSED = "refused"
    """It may be unhealthy, at least for this query: that shows if another one answers the query."""
    UNSUITED = "unsuited"
    """Nothing: others may answer what it cannot."""
    UNREACHABLE = "unreachable"
    """There was no connection: another path may exist."""


class FailureKind(NamedTuple):
    """A row: when it happens, how a facility reports it, and what follows."""

    name: str
    when: str
    statuses: tuple[tuple[int, str], ...]
    """Status and `code` with which facilities and gateways report it; `None` means they do not."""
    cause: Cause | None
    """`None` means no other deployment is queried."""
    client: str
    """Response to the client if nobody answers."""
    permanent: bool
    """Whether retrying soon is useless; then there is no `Retry-After`."""

    @property
    def asks_other(self) -> bool:
        return self.cause is not None


CLIENTS: Final = FailureKind(
    "the client's",
    "The server blames the request: 400, 422 and the like, or llama.cpp's 500 for what it cannot "
    "read.",
    (),
    None,
    "the server's own error",
    permanent=True,
)
TOO_LONG: Final = FailureKind(
    "too long",
    "The prompt, or it and its answer, exceed the model's context, however the server says so.",
    ((400, EXCEEDED),),
    Cause.UNSUITED,
    f"400 `{EXCEEDED}`",
    permanent=True,
)
UNSUITED: Final = FailureKind(
    "unsuited",
    "This deployment cannot answer this query: its body is too large (413), or tools, images or "
    "another feature are unsupported (also 501).",
    ((400, "unsupported"), (400, "infeasible")),
    Cause.UNSUITED,
    "the server's own error",
    permanent=True,
)
NOT_ALLOWED: Final = FailureKind(
    "not allowed",
    "The model's owner does not admit this owner.",
    ((403, "not_allowed"),),
    Cause.UNSUITED,
    "403 `not_allowed`",
    permanent=True,
)
FULL: Final = FailureKind(
    "full",
    "The server answers 429, or the facility's queue is full.",
    ((429, "facility_full"), (503, "overloaded"), (429, "rate_limited")),
    Cause.FULL,
    "503 `overloaded`",
    permanent=False,
)
UNREADY: Final = FailureKind(
    "not ready",
    "The server is loading or down: 408, 409, 425, 502, 503, 504, 520 to 529. Or the facility has "
    "the model no more.",
    ((503, "unavailable"), (502, "upstream_failed"), (404, "model_not_found"), (504, "deadline")),
    Cause.FAILED,
    "503 `unavailable`",
    permanent=False,
)
BROKEN: Final = FailureKind(
    "broken",
    "No answer, an empty, incomplete or unreadable one, one over its bound, or silence.",
    ((502, "broken_off"), (502, "model_failed"), (500, "internal_error"), (500, "internal")),
    Cause.FAILED,
    "503 `unavailable`; in a stream that has begun 502 `broken_off`",
    permanent=False,
)
FAILED: Final = FailureKind(
    "failed",
    "The server answers 500 or any other status, or an error within a 200.",
    ((502, "upstream_refused"),),
    Cause.REFUSED,
    "503 `unavailable`",
    permanent=False,
)
MISCONFIGURED: Final = FailureKind(
    "misconfigured",
    "The server needs its operator: 401, 402, 403, 404, 405, 410, a redirect, or a used-up quota. "
    "The facility's log says so.",
    ((502, "upstream_misconfigured"), (502, "misconfigured")),
    Cause.REFUSED,
    "502 `misconfigured`",
    permanent=True,
)
NOT_ADMITTED: Final = FailureKind(
    "not admitted",
    "The facility does not accept the gateway's pass, for instance because their clocks differ; "
    "the error says why.",
    ((401, "not_admitted"), (401, "invalid_pass")),
    Cause.REFUSED,
    "502 `misconfigured`",
    permanent=True,
)
CANNOT_REACH: Final = FailureKind(
    "cannot be reached",
    "There is no connection to the facility; a path through another gateway is tried first.",
    (),
    Cause.UNREACHABLE,
    "503 `unavailable`",
    permanent=False,
)
FAILURES: Final = (
    CLIENTS,
    TOO_LONG,
    UNSUITED,
    NOT_ALLOWED,
    FULL,
    UNREADY,
    BROKEN,
    FAILED,
    MISCONFIGURED,
    NOT_ADMITTED,
    CANNOT_REACH,
)
_BY_STATUS: Final = {pair: failure for failure in FAILURES for pair in failure.statuses}

_CLIENTS = frozenset({400, 406, 412, 414, 416, 417, 422, 428, 431})
_UNSUITED = frozenset({413, 415, 501})
_MAY_BE_TOO_LONG = _CLIENTS | {413, 500}
_UNREADY = frozenset({408, 409, 425, 502, 503, 504, *range(520, 530)})
_MISCONFIGURED = frozenset({*range(300, 400), 401, 402, 403, 404, 405, 407, 410, 411, 421, 426})
_UNSUITED_CODES = re.compile(
    r"context_length|exceed_context|string_above_max_length|too_large|unsupported|not_supported"
    r"|not_implemented",
)
_UNSUITED_WORDS = re.compile(
    r"context (length|size|window)|max_model_len|maximum (model|input|prompt|sequence|token)"
    r"|too many (input |prompt )?tokens|token limit|tokens?`? must (be|have)|must have less than"
    r"|(prompt|input|request|message|sequence|query)s? (is|are)? ?too (long|large)|too long for"
    r"|exceeds? the (model|available|maximum|context|limit)|greater than max allowed"
    r"|not support|n't support|unsupported|not implemented|not (a )?multi-?modal|at most 0 "
    r"|only one completion|requires? --|is not enabled"
    r"|(can ?not|can't|does not) (call|read|answer|see|use) "
)
"""Messages of vLLM, llama.cpp, Ollama, TGI, SGLang and public APIs on a query that this model or
server cannot answer, although another may."""
_UNREADABLE = re.compile(r"failed to parse (tools|messages)|unknown reasoning format")
"""llama.cpp answers 500 to what it cannot read."""
_QUOTA = re.compile(
    r"insufficient.?(quota|balance|credit|funds)|billing|credit balance|current quota"
)
_MODERATION = re.compile(r"moderation|content.?(policy|filter)|flagged")
_CLIENTS_TYPES = re.compile(r"invalid.?request|bad.?request|validation", re.IGNORECASE)


def of_server(status: int, error: Error | None, retry_after_s: float | None = None) -> FailureKind:
    """The row for a server's answer. `retry_after_s`: its hint. A quota that is renewed soon counts
    as load."""
    if status == 429 or status == 402:
        used_up = status == 402 or (retry_after_s is None and _says(error, _QUOTA, _QUOTA))
        return MISCONFIGURED if used_up else FULL
    if status in _MAY_BE_TOO_LONG and error is not None and says_exceeded(error):
        return TOO_LONG
    if status in _UNSUITED:
        return UNSUITED
    if status == 500 and _says(error, _UNREADABLE, _UNREADABLE):
        return CLIENTS
    if status in _CLIENTS:
        return UNSUITED if _says(error, _UNSUITED_CODES, _UNSUITED_WORDS) else CLIENTS
    if status == 403 and _says(error, _MODERATION, _MODERATION):
        return CLIENTS
    if status in _MISCONFIGURED:
        return MISCONFIGURED
    if status in _UNREADY:
        return UNREADY
    return UNSUITED if 400 <= status < 500 else FAILED


def of_facility(
    status: int, error: Error | None, retry_after_s: float | None = None
) -> FailureKind:
    """The row for the answer of a facility, or of a relaying gateway: by its code, or as for the
    server whose error it passes on."""
    code = error.code if error is not None else None
    stated = _BY_STATUS.get((status, code)) if isinstance(code, str) else None
    return stated or of_server(status, error, retry_after_s)


def stated_status(error: Error) -> int:
    """The status of an error within a 200."""
    if isinstance(error.code, int) and 300 <= error.code < 600:
        return error.code
    if isinstance(error.code, str) and error.code.isdecimal() and len(error.code) == 3:
        return int(error.code)
    text = f"{error.type} {error.code}"
    if says_exceeded(error) or _CLIENTS_TYPES.search(text) or _UNSUITED_CODES.search(text.lower()):
        return 400
    if "rate_limit" in text or _QUOTA.search(text.lower()):
        return 429
    return 503 if "overloaded" in text else 500


def _says(error: Error | None, codes: re.Pattern[str], words: re.Pattern[str]) -> bool:
    if error is None:
        return False
    named = f"{error.code} {error.type}".lower()
    return bool(codes.search(named) or words.search(error.message.lower()))
