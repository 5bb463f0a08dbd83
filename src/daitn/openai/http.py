"""Paths, types of content, and the framing of events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from daitn.objects.deployments import Api

__all__ = ["DONE", "EVENTS", "JSON", "PATHS", "as_event"]

JSON = "application/json"
EVENTS = "text/event-stream"
PATHS = {f"/v1{api.path}": api for api in Api}
DONE = b"data: [DONE]\n\n"
"""The last event of a stream."""


def as_event(body: bytes) -> bytes:
    """A value in JSON as one event."""
    return b"data: " + body + b"\n\n"
