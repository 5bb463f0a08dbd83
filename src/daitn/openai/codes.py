"""Every error that a gateway or a facility answers with, in one place.

A test holds this list against the code that raises them; the reference prints it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["CODES", "ErrorCode"]


class ErrorCode(NamedTuple):
    """A kind of error: its HTTP status, its name in the body, and when it is given."""

    status: int
    code: str
    when: str


CODES: Final = (
    ErrorCode(400, "invalid_request", "The request is malformed; `param` names the field."),
    ErrorCode(400, "infeasible", "No deployment meets the constraints."),
    ErrorCode(401, "invalid_api_key", "The API key is missing or not known."),
    ErrorCode(401, "invalid_pass", "The pass of a gateway is missing or not good."),
    ErrorCode(401, "not_admitted", "Of a facility: the pass is missing or not good."),
    ErrorCode(403, "not_allowed", "Of a facility: the model's owner does not let this owner ask."),
    ErrorCode(404, "model_not_found", "There is no such model."),
    ErrorCode(404, "not_found", "There is no such path."),
    ErrorCode(405, "method_not_allowed", "The path takes another method."),
    ErrorCode(408, "request_timeout", "The body of the request does not arrive."),
    ErrorCode(413, "invalid_request", "The body has more than `max_body_bytes`."),
    ErrorCode(429, "rate_limited", "The key allows fewer queries; see `Retry-After`."),
    ErrorCode(429, "facility_full", "Of a facility: its queue is full; see `Retry-After`."),
    ErrorCode(500, "internal", "The gateway has a defect; its log says more."),
    ErrorCode(500, "internal_error", "The facility has a defect; its log says more."),
    ErrorCode(502, "broken_off", "The answer broke off in the middle of a stream."),
    ErrorCode(502, "model_failed", "Of a facility: the model failed while it answered."),
    ErrorCode(502, "upstream_failed", "Of a facility: the upstream server did not answer."),
    ErrorCode(502, "upstream_refused", "Of a facility: the upstream server says that it failed."),
    ErrorCode(503, "overloaded", "Who may answer is full, or the gateway is; see `Retry-After`."),
    ErrorCode(
        503,
        "unavailable",
        "Who may answer is not there now, or every one that was tried failed; see `Retry-After`.",
    ),
    ErrorCode(504, "deadline", "The answer is not there within `deadline_s`."),
)
