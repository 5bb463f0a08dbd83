"""The table of failures, and hints in all forms."""

from __future__ import annotations

import pytest

from daitn.openai.errors import Error
from daitn.openai.failures import (
    CLIENTS,
    FAILED,
    FULL,
    MISCONFIGURED,
    UNREADY,
    UNSUITED,
    Failure,
    of_facility,
    of_server,
    status_said,
)
from daitn.openai.hints import retry_after_s

TOO_LONG = "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ((400, "your messages are odd"), CLIENTS),
        ((422, "no such field"), CLIENTS),
        ((400, TOO_LONG), UNSUITED),
        ((403, "content flagged by moderation"), CLIENTS),
        ((403, "no"), MISCONFIGURED),
        ((429, "exceeded your current quota"), MISCONFIGURED),
        ((429, "slow down"), FULL),
        ((408, ""), UNREADY),
        ((409, ""), UNREADY),
        ((425, ""), UNREADY),
        ((502, ""), UNREADY),
        ((504, ""), UNREADY),
        ((507, ""), FAILED),
        ((529, ""), UNREADY),
        ((500, ""), FAILED),
        ((201, ""), FAILED),
        ((421, ""), MISCONFIGURED),
    ],
)
def test_each_status_has_its_row(said: tuple[int, str], told: Failure) -> None:
    assert of_server(said[0], Error(said[1])) is told
    assert of_facility(said[0], Error(said[1])) is told


def test_a_quota_that_comes_back_is_load() -> None:
    assert of_server(429, Error("exceeded your current quota"), 30.0) is FULL


def test_a_facilitys_code_counts_more_than_its_status() -> None:
    assert of_facility(502, Error(code="upstream_misconfigured")) is MISCONFIGURED
    assert of_facility(503, Error(code="overloaded")) is FULL
    assert of_facility(400, Error("it reads tables", code="unsupported")) is UNSUITED
    # What a server says of itself in a facility's words is only a server's.
    assert of_server(400, Error(code="facility_full")) is CLIENTS


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Error(code=413), 413),
        (Error(code="503"), 503),
        (Error(type="invalid_request_error"), 400),
        (Error(type="BadRequestError"), 400),
        (Error(code="context_length_exceeded"), 400),
        (Error(type="rate_limit_error"), 429),
        (Error(type="overloaded_error"), 503),
        (Error("boom"), 500),
    ],
)
def test_an_error_within_a_200_has_a_status(error: Error, status: int) -> None:
    assert status_said(error) == status


@pytest.mark.parametrize(
    ("headers", "text", "told_s"),
    [
        ({"retry-after": "Fri, 15 Jan 2027 08:00:41 GMT"}, "", 41.0),
        ({"retry-after": "-5"}, "", 0.0),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "1e12"}, "", None),
        ({"anthropic-ratelimit-requests-reset": "2027-01-15T08:01:00Z"}, "", 60.0),
        ({"x-ratelimit-reset": "1800000010"}, "", 10.0),
        ({"ratelimit-reset": "9"}, "", 9.0),
        ({}, "Please retry after 2 minutes 3 seconds", 123.0),
        ({}, '{"retryDelay": "34.5s"}', 34.5),
        ({}, "try 3 again", None),
    ],
)
def test_hints_come_in_many_forms(headers: dict[str, str], text: str, told_s: float | None) -> None:
    assert retry_after_s(headers, text, 1.8e9) == told_s
