"""What the door needs of anything that answers, and how answers go out."""

from __future__ import annotations

from typing import Protocol

from daitn.node.http import Reply, Request, Stream
from daitn.node.serving.admission import AdmissionQueue
from daitn.node.serving.request import ServingRequest
from daitn.objects.deployments import DeploymentDescriptor
from daitn.openai.http import EVENTS

__all__ = ["Backend", "begin_stream", "timing"]


class Backend(Protocol):
    """A deployment at this site."""

    @property
    def descriptor(self) -> DeploymentDescriptor: ...

    @property
    def admission(self) -> AdmissionQueue: ...

    async def answer(self, request: Request, query: ServingRequest, waited_s: float) -> Reply:
        """Answer a query that has a slot. Raises `ApiError` while nothing was sent."""
        ...


def timing(waited_s: float, first_token_s: float | None) -> dict[str, str]:
    """Headers that tell a gateway what it cannot see from outside."""
    told = {"daitn-waited-s": f"{waited_s:.6f}"}
    if first_token_s is not None:
        told["daitn-first-token-s"] = f"{first_token_s:.6f}"
    return told


def begin_stream(request: Request, waited_s: float, first_token_s: float) -> Stream:
    """Send the headers of a stream whose first piece is there."""
    return request.stream({"content-type": EVENTS, **timing(waited_s, first_token_s)})
