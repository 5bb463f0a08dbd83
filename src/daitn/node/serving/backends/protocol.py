"""What the API server needs from a backend, and how answers are sent."""

from __future__ import annotations

from typing import Protocol

from daitn.node.serving.admission import AdmissionQueue
from daitn.node.serving.request import ServingRequest
from daitn.objects.deployments import DeploymentDescriptor
from daitn.objects.header_names import AnswerHeader
from daitn.openai.http import EVENTS
from daitn.tools.http import Reply, Request, Stream

__all__ = ["Backend", "begin_stream", "timing"]


class Backend(Protocol):
    """A deployment at this site."""

    @property
    def descriptor(self) -> DeploymentDescriptor: ...

    @property
    def admission(self) -> AdmissionQueue: ...

    async def answer(self, request: Request, query: ServingRequest, waited_s: float) -> Reply:
        """Answer a query that holds a slot. Raises `ApiError` as long as nothing has been sent."""
        ...


def timing(waited_s: float, first_token_s: float | None) -> dict[str, str]:
    """Headers with the times that a gateway cannot measure."""
    headers = {AnswerHeader.WAITED_S: f"{waited_s:.6f}"}
    if first_token_s is not None:
        headers[AnswerHeader.FIRST_TOKEN_S] = f"{first_token_s:.6f}"
    return headers


def begin_stream(request: Request, waited_s: float, first_token_s: float) -> Stream:
    """Begin a stream whose first piece has arrived."""
    return request.stream({"content-type": EVENTS, **timing(waited_s, first_token_s)})
