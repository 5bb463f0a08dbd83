"""What the door needs of anything that answers, and how answers go out."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from daitn.objects.deployments import DeploymentDescriptor
from daitn.terminal.facility.asked import DoorQuery
from daitn.terminal.facility.meter import Meter

__all__ = ["EVENTS", "JSON", "Served", "begin_stream", "break_off", "timing"]

JSON = "application/json"
EVENTS = "text/event-stream"


class Served(Protocol):
    """A deployment at this site."""

    @property
    def descriptor(self) -> DeploymentDescriptor: ...

    @property
    def meter(self) -> Meter: ...

    async def answer(
        self, request: web.BaseRequest, query: DoorQuery, waited_s: float
    ) -> web.StreamResponse:
        """Answer a query that has a slot. Raises `ApiError` while nothing was sent."""
        ...


def timing(waited_s: float, first_token_s: float | None) -> dict[str, str]:
    """Headers that tell a gateway what it cannot see from outside."""
    told = {"daitn-waited-s": f"{waited_s:.6f}"}
    if first_token_s is not None:
        told["daitn-first-token-s"] = f"{first_token_s:.6f}"
    return told


async def begin_stream(
    request: web.BaseRequest, waited_s: float, first_token_s: float, content_type: str = EVENTS
) -> web.StreamResponse:
    """Send the headers of a stream whose first piece is there."""
    response = web.StreamResponse(
        headers={"content-type": content_type, **timing(waited_s, first_token_s)}
    )
    await response.prepare(request)
    return response


def break_off(request: web.BaseRequest) -> None:
    """End a stream so that nobody takes it for whole."""
    if request.transport is not None:
        request.transport.abort()
