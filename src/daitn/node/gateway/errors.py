"""What a gateway says when it does not answer."""

from __future__ import annotations

from daitn.control.queries.context import QueryRefusal
from daitn.objects.queries import QueryStatus
from daitn.openai.errors import ApiError

__all__ = [
    "deadline_passed",
    "internal",
    "not_feasible",
    "overloaded",
    "status_of",
    "unavailable",
]

AGAIN_S = 1.0
"""When a query that was turned away because of load may come again: a second is several answers."""
_STATUS = {"model_not_found": 404, "infeasible": 400, "overloaded": 503, "unavailable": 503}
_TOLD_REJECTIONS = 20
"""Rejections in an error body; `daitn explain` has all."""


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


def not_feasible(refusal: QueryRefusal) -> ApiError:
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
