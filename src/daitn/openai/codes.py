"""Every error code of gateways and facilities.

A test compares this list with the code that raises them; the reference prints it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["CODES", "ErrorCode"]


class ErrorCode(NamedTuple):
    """A kind of error: its HTTP status, its `code` in the body, and when it occurs."""

    status: int
    code: str
    when: str


CODES: Final = (
    ErrorCode(400, "invalid_request", "The request is malformed; `param` names the field."),
    ErrorCode(
        400,
        "context_length_exceeded",
        "The prompt, alone or with its answer, has more tokens than the context of the model, or "
        "of any eligible model; `param` names what to shorten.",
    ),
    ErrorCode(
        400,
        "unsupported",
        "From a facility: this model cannot answer such a query, though another may; `param` names "
        "the field.",
    ),
    ErrorCode(
        400,
        "previous_response_not_found",
        "No facility has that response for you; send the whole conversation.",
    ),
    ErrorCode(400, "infeasible", "No deployment meets the constraints."),
    ErrorCode(
        401, "invalid_api_key", "The key is missing or unknown, or the token is not valid here."
    ),
    ErrorCode(401, "invalid_pass", "The pass of a relaying gateway is invalid."),
    ErrorCode(
        401,
        "not_admitted",
        "From a facility: the pass is missing or invalid, or the gateway may not act in that name.",
    ),
    ErrorCode(
        402,
        "insufficient_quota",
        "The key has spent its daily, monthly or total budget; or this gateway's part of it, while "
        "no control centre reports what it spent elsewhere.",
    ),
    ErrorCode(403, "model_not_allowed", "The key is not for this model."),
    ErrorCode(403, "not_allowed", "From a facility: the model's owner does not admit this owner."),
    ErrorCode(404, "model_not_found", "The model does not exist."),
    ErrorCode(404, "not_found", "The path, or the response, does not exist."),
    ErrorCode(405, "method_not_allowed", "The path needs another method."),
    ErrorCode(408, "request_timeout", "The request body did not arrive in time."),
    ErrorCode(409, "invalid_request", "From a facility: another response has this id."),
    ErrorCode(413, "invalid_request", "The body exceeds `max_body_bytes`."),
    ErrorCode(415, "invalid_request", "The body has an unsupported encoding."),
    ErrorCode(
        429, "rate_limited", "The key's rate of queries or tokens is used up; see `Retry-After`."
    ),
    ErrorCode(429, "facility_full", "From a facility: its queue is full; see `Retry-After`."),
    ErrorCode(500, "internal", "The gateway failed; see its log."),
    ErrorCode(500, "internal_error", "The facility failed; see its log."),
    ErrorCode(502, "broken_off", "The answer broke off in mid-stream."),
    ErrorCode(502, "model_failed", "From a facility: the model failed while answering."),
    ErrorCode(502, "upstream_failed", "From a facility: the upstream server did not answer."),
    ErrorCode(502, "upstream_refused", "From a facility: the upstream server reported an error."),
    ErrorCode(
        502,
        "upstream_misconfigured",
        "From a facility: the upstream server needs its operator, for instance for a key.",
    ),
    ErrorCode(
        502,
        "misconfigured",
        "Every eligible deployment needs its operator first; retrying is useless.",
    ),
    ErrorCode(
        503,
        "overloaded",
        "The gateway, or every eligible deployment, is full; see `Retry-After`.",
    ),
    ErrorCode(
        503,
        "unavailable",
        "No eligible deployment is available, or every attempt failed; see `Retry-After`.",
    ),
    ErrorCode(504, "deadline", "The answer took longer than `deadline_s`."),
)
