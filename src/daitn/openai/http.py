"""Paths, content types, and the framing of server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from daitn.objects.deployments import Api
from daitn.objects.http_api import JSON

__all__ = [
    "BOM",
    "COUNT_TOKENS",
    "DONE",
    "EVENTS",
    "HEALTH",
    "JSON",
    "MESSAGES",
    "MODELS",
    "PATHS",
    "READY",
    "RESPONSES",
    "RESPONSE_ITEMS",
    "as_event",
]

BOM = b"\xef\xbb\xbf"
"""A byte order mark, with which some bodies begin."""
EVENTS = "text/event-stream"
PATHS = {f"/v1{api.path}": api for api in Api}
MODELS = "/v1/models"
RESPONSES = "/v1/responses"
RESPONSE_ITEMS = "input_items"
"""Below the path of one response."""
MESSAGES = "/v1/messages"
COUNT_TOKENS = f"{MESSAGES}/count_tokens"
HEALTH, READY = "/healthz", "/readyz"
DONE = b"data: [DONE]\n\n"
"""The last event of a stream."""


def as_event(body: bytes) -> bytes:
    """Frame a JSON value as an event."""
    return b"data: " + body + b"\n\n"
