"""The error responses of a gateway."""

from __future__ import annotations

from daitn.control.queries.context import QueryRefusal, TooLong
from daitn.objects.deployments import Api
from daitn.objects.queries import QueryStatus
from daitn.openai.context_excess import EXCEEDED
from daitn.openai.errors import ApiError

__all__ = [
    "deadline_passed",
    "infeasible",
    "internal",
    "misconfigured",
    "overloaded",
    "status_of",
    "stopping",
    "unavailable",
]

RETRY_AFTER_S = 1.0
"""Default `Retry-After` of a shed query: several answers complete within a second."""
_STATUS = {"model_not_found": 404, "infeasible": 400, "overloaded": 503, "unavailable": 503}
_PROMPTS = {Api.CHAT: "messages", Api.COMPLETIONS: "prompt"}
_MAX_REJECTIONS = 20
"""Rejections per error body; `daitn explain` lists all."""


def overloaded(message: str, after_s: float | None = None) -> ApiError:
    """A query shed because of load; `after_s`: when a retry may succeed, in seconds."""
    return ApiError(
        503, "overloaded", message, retry_after_s=RETRY_AFTER_S if after_s is None else after_s
    )


def internal() -> ApiError:
    """A defect of the gateway."""
    return ApiError(500, "internal", "the gateway failed; see its log")


def unavailable(message: str, after_s: float | None = None) -> ApiError:
    """Every deployment that may answer failed or is unreachable; `after_s`: when a retry may
    succeed, in seconds."""
    return ApiError(
        503, "unavailable", message, retry_after_s=RETRY_AFTER_S if after_s is None else after_s
    )


def misconfigured(message: str) -> ApiError:
    """Every deployment that may answer must be fixed by its operator first."""
    return ApiError(502, "misconfigured", message, permanent=True)


def stopping() -> ApiError:
    """The gateway is stopping: it takes no more queries, or gives one up."""
    return unavailable("this gateway is stopping")


def deadline_passed(deadline_s: float) -> ApiError:
    """The query's own deadline has passed."""
    message = f"the answer took longer than {deadline_s:g} s"
    return ApiError(504, "deadline", message, param="daitn.deadline_s")


def infeasible(refusal: QueryRefusal, api: Api) -> ApiError:
    """Q-FAM's refusal of a query of this API, with its reasons and the relaxations that would
    help."""
    code, reason, field = refusal.code, refusal.reason, refusal.field
    if refusal.too_long is not None:
        code, reason = EXCEEDED, _too_long(refusal.too_long)
        if refusal.too_long.tokens_in >= refusal.too_long.most:
            field = _PROMPTS.get(api, "input")
    return ApiError(
        _STATUS[refusal.code],
        code,
        reason,
        param=field or None,
        retry_after_s=refusal.retry_after_s,
        daitn={
            "reasons": [
                {
                    "deployment": rejection.candidate,
                    "filter": rejection.filter,
                    "reason": rejection.reason,
                }
                for rejection in refusal.decision.rejections[:_MAX_REJECTIONS]
            ],
            "relaxations": list(refusal.relaxations),
        },
    )


def _too_long(excess: TooLong) -> str:
    if excess.tokens_in >= excess.most:
        return (
            f"the prompt has about {excess.tokens_in} tokens, and the context length of the models "
            f"that may answer is {excess.most} at most"
        )
    return (
        f"a prompt of about {excess.tokens_in} tokens and an answer of up to {excess.tokens_out} "
        f"exceed the context length of every model that may answer: the longest holds {excess.most}"
    )


def status_of(error: ApiError) -> QueryStatus:
    """The status that an error gives its query."""
    if error.code in ("overloaded", "rate_limited"):
        return QueryStatus.SHED
    return QueryStatus.FAILED if error.status >= 500 else QueryStatus.REFUSED
