"""The table of failures, and hints in all forms."""

from __future__ import annotations

import pytest

from daitn.openai.context_excess import Excess, excess_of
from daitn.openai.errors import Error
from daitn.openai.failures import (
    CLIENTS,
    FAILED,
    FULL,
    MISCONFIGURED,
    TOO_LONG,
    UNREADY,
    UNSUITED,
    FailureKind,
    of_facility,
    of_server,
    stated_status,
)
from daitn.openai.retry_after import retry_after_s

VLLM = "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens"
EXCEEDED = {
    VLLM: Excess(9000, None, 4096),
    f"{VLLM} (8000 in the messages, 1000 in the completion).": Excess(8000, 1000, 4096),
    "This model's maximum context length is 8,192 tokens, however you requested 9,001 tokens "
    "(9,001 in your prompt; 0 for the completion).": Excess(9001, None, 8192),
    "'max_tokens' or 'max_completion_tokens' is too large: 100. This model's maximum context "
    "length is 50 tokens and your request has 10 input tokens (100 > 50 - 10).": Excess(
        10, 100, 50
    ),
    "You passed 900 input tokens and requested 50 output tokens. However, the model's context "
    "length is only 800 tokens.": Excess(900, 50, 800),
    "The decoder prompt (length 900) is longer than the maximum model length of 80.": Excess(
        900, None, 80
    ),
    "request (900 tokens) exceeds the available context size (80 tokens), try increasing it": (
        Excess(900, None, 80)
    ),
    "the request exceeds the available context size. try increasing the context size": Excess(),
    "Requested tokens (900) exceed context window of 80": Excess(900, None, 80),
    "the input length exceeds the context length": Excess(),
    "`inputs` must have less than 1024 tokens. Given: 3000": Excess(3000, None, 1024),
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3000 "
    "`inputs` tokens and 20 `max_new_tokens`": Excess(3000, 20, 2048),
    "The input (900 tokens) is longer than the model's context length (80 tokens).": Excess(
        900, None, 80
    ),
    "Requested token count exceeds the model's maximum context length of 80 tokens. You requested "
    "a total of 95 tokens: 70 tokens from the input messages and 25 tokens for the completion.": (
        Excess(70, 25, 80)
    ),
    "prompt is too long: 210000 tokens > 200000 maximum": Excess(210000, None, 200000),
    "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input "
    "length or `max_tokens` and try again": Excess(188240, 21333, 200000),
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).": (
        Excess(1200000, None, 1048576)
    ),
    "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum "
    "context length": Excess(40000, None, 32768),
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000": (
        Excess(5000, None, 4081)
    ),
    "This model's maximum prompt length is 131072 but the request contains 200000 tokens.": (
        Excess(200000, None, 131072)
    ),
    "Input is too long for requested model.": Excess(),
    "Input length (900 tokens) exceeds the maximum allowed length (80 tokens). Use a shorter input "
    "or enable --allow-auto-truncate.": Excess(900, None, 80),
    "Input token length too long": Excess(),
    "input (900 tokens) is too large to process. increase the physical batch size (current batch "
    "size: 512)": Excess(900, None, 512),
    "prompt token count of 900 exceeds the limit of 80": Excess(900, None, 80),
    "Please reduce the length of the messages or completion. Current length is 8194 while limit "
    "is 8192": Excess(8194, None, 8192),
    "Prompt length 900 is greater than max_seq_len 80": Excess(900, None, 80),
    "Range of input length should be [1, 30720]": Excess(most=30720),
    "Invalid request: Your request exceeded model token limit: 8192": Excess(most=8192),
    "this model's maximum context length is 4096 tokens; shorten it": Excess(most=4096),
    "the prompt has about 900 tokens, and the context length of the models that may answer is 80 "
    "at most": Excess(900, None, 80),
    "a prompt of about 70 tokens and an answer of up to 25 exceed the context length of every "
    "model that may answer: the longest holds 80": Excess(70, 25, 80),
}
"""What is said of a context that is too small, and what can be read from it."""
OTHERS = (
    "max_tokens is too large: 5000. This model supports at most 4096 completion tokens",
    "image is too large",
    "stop: too many texts",
    "temperature must be at most 2",
    "tools[0].function.name: too long",
    "Request too large for gpt-4 on tokens per min (TPM): Limit 10000, Requested 20000. The input "
    "or output tokens must be reduced; see too many tokens",
)


@pytest.mark.parametrize("status", [400, 413, 422, 500])
@pytest.mark.parametrize(("message", "told"), EXCEEDED.items())
def test_a_context_too_small_is_known_whatever_is_said_of_it(
    message: str, told: Excess, status: int
) -> None:
    assert of_server(status, Error(message, code=status)) is TOO_LONG
    assert stated_status(Error(message)) == 400
    assert excess_of(message) == told


@pytest.mark.parametrize("message", OTHERS)
def test_other_bounds_are_no_context(message: str) -> None:
    assert of_server(400, Error(message)) is not TOO_LONG


@pytest.mark.parametrize(
    "error",
    [
        Error("no", code="context_length_exceeded"),
        Error("no", type="exceed_context_size_error"),
        Error("no", code="model_max_prompt_tokens_exceeded"),
    ],
)
def test_a_context_too_small_is_known_by_its_code(error: Error) -> None:
    assert of_server(400, error) is TOO_LONG
    assert of_facility(400, error) is TOO_LONG


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ((400, "your messages are odd"), CLIENTS),
        ((422, "no such field"), CLIENTS),
        ((400, VLLM), TOO_LONG),
        ((400, "tools are not supported"), UNSUITED),
        ((500, "Failed to parse tools: Expected 'tools' to be an array"), CLIENTS),
        ((413, "Request Entity Too Large"), UNSUITED),
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
def test_each_status_has_its_row(said: tuple[int, str], told: FailureKind) -> None:
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
    assert stated_status(error) == status


@pytest.mark.parametrize(
    ("headers", "text", "told_s"),
    [
        ({"retry-after": "Fri, 15 Jan 2027 08:00:41 GMT"}, "", 41.0),
        ({"retry-after": "-5"}, "", 0.0),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "1e12"}, "", None),
        ({"retry-after": "120, 60"}, "", 120.0),
        (
            {"retry-after": "Fri, 15 Jan 2027 08:00:41 GMT, Fri, 15 Jan 2027 08:00:10 GMT"},
            "",
            41.0,
        ),
        ({"retry-after": "2592000"}, "", 604800.0),
        ({"anthropic-ratelimit-requests-reset": "2027-01-15T08:01:00Z"}, "", 60.0),
        ({"x-ratelimit-reset": "1800000010"}, "", 10.0),
        ({"x-ratelimit-reset": "1800000010000"}, "", 10.0),
        ({"x-rate-limit-reset": "1800000010"}, "", 10.0),
        ({"ratelimit-reset": "9"}, "", 9.0),
        ({"ratelimit": '"default";r=0;t=77'}, "", 77.0),
        ({"ratelimit": '"burst";r=5;t=3, "daily";r=0;t=77'}, "", 77.0),
        ({"ratelimit": "limit=100, remaining=0, reset=50"}, "", 50.0),
        ({"ratelimit": "none"}, "", None),
        ({}, "Please retry after 2 minutes 3 seconds", 123.0),
        ({}, "try again in 6m0s.", 360.0),
        ({}, "try again in 2 days", 172800.0),
        ({}, '{"retryDelay": "34.5s"}', 34.5),
        ({}, '{"error": {"details": [{"@type": "x"}, {"retryDelay": "37s"}]}}', 37.0),
        ({}, '{"retry_after": 12}', 12.0),
        ({}, '{"retryAfter": "12"}', 12.0),
        ({}, '{"retry_after_ms": 1500}', 1.5),
        ({}, '{"retry_after_seconds": 12.5}', 12.5),
        ({}, '{"metadata": {"headers": {"X-RateLimit-Reset": "1800000010000"}}}', 10.0),
        ({}, '{"retry_after": null}', None),
        ({}, "try 3 again", None),
    ],
)
def test_hints_come_in_many_forms(headers: dict[str, str], text: str, told_s: float | None) -> None:
    assert retry_after_s(headers, text, 1.8e9) == told_s
