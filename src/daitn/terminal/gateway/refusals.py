"""What a gateway says when it does not answer: OpenAI's error bodies, read by its clients.

The HTTP status decides which exception `openai` raises; `code` says what happened, `param` names
the field of the request that would have to change, and `daitn` tells the reasons.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from daitn.control.queries.context import Refusal
from daitn.objects.errors import DaitnError
from daitn.objects.queries import QueryStatus

__all__ = [
    "ApiError",
    "bad_request",
    "deadline_passed",
    "internal",
    "not_feasible",
    "of_error",
    "overloaded",
    "status_of",
    "unavailable",
]

AGAIN_S = 1.0
"""When a query that was turned away because of load may come again: a second is several answers."""
_STATUS = {"model_not_found": 404, "infeasible": 400, "overloaded": 503, "unavailable": 503}
_TOLD_REJECTIONS = 20
"""Rejections in an error body; `daitn explain` has all."""


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
        headers = {"content-type": "application/json"}
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
    """Bad input as found below the gateway; `prefix` goes before its field."""
    return bad_request(error.problem, f"{prefix}{error.field}", fix=error.fix)


def overloaded(message: str, after_s: float | None = None) -> ApiError:
    """Turned away because of load; `after_s`: seconds until it may go better."""
    return ApiError(
        503, "overloaded", message, retry_after_s=AGAIN_S if after_s is None else after_s
    )


def internal() -> ApiError:
    """A defect of the gateway."""
    return ApiError(500, "internal", "the gateway failed; its log says why")


def unavailable(message: str) -> ApiError:
    """Nothing that may answer could."""
    return ApiError(503, "unavailable", message, retry_after_s=AGAIN_S)


def deadline_passed(deadline_s: float) -> ApiError:
    """The asker's own bound is over."""
    message = f"the answer was not there within {deadline_s:g} s"
    return ApiError(504, "deadline", message, param="daitn.deadline_s")


def not_feasible(refusal: Refusal) -> ApiError:
    """What Q-FAM says, with its reasons and the changes that would help."""
    return ApiError(
        _STATUS[refusal.code],
        refusal.code,
        refusal.reason,
        param=refusal.field or None,
        retry_after_s=refusal.retry_after_s,
        daitn={
            "reasons": [
                {"deployment": no.candidate, "filter": no.filter, "reason": no.reason}
                for no in refusal.decision.rejections[:_TOLD_REJECTIONS]
            ],
            "relaxations": list(refusal.relaxations),
        },
    )


def status_of(error: ApiError) -> QueryStatus:
    """How a query that met this error ended."""
    if error.code in ("overloaded", "rate_limited"):
        return QueryStatus.SHED
    return QueryStatus.FAILED if error.status >= 500 else QueryStatus.REFUSED
