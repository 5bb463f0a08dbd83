"""Answers chats in the form of another API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from daitn.node.gateway.context import Caller
from daitn.node.gateway.request import ParsedRequest
from daitn.openai.http import EVENTS
from daitn.tools.http import Reply, Request, Response
from daitn.tools.http.exchange import StreamTranslation

__all__ = ["CountTokens", "Serve", "Translation", "translated"]

Serve = Callable[[Request, Caller, ParsedRequest, float], Awaitable[Reply]]
"""Answers a query."""
CountTokens = Callable[[Caller, ParsedRequest], int]
"""Estimates the tokens of a prompt for the model that it names."""


class Translation(StreamTranslation, Protocol):
    """Translates one answer of a chat."""

    async def whole(self, body: bytes) -> bytes:
        """Translate a complete answer."""
        ...

    def error(self, status: int, body: bytes, request_id: str | None) -> tuple[int, bytes]:
        """An error's status and body."""
        ...


async def translated(
    serve: Serve,
    answer: Translation,
    request: Request,
    caller: Caller,
    parsed: ParsedRequest,
    began_s: float,
) -> Reply:
    """Answer a chat, and translate the answer."""
    request.translation = answer
    reply = await serve(request, caller, parsed, began_s)
    if not isinstance(reply, Response):
        return reply
    if reply.status != 200:
        id_ = reply.headers.get("x-request-id")
        reply.status, reply.body = answer.error(reply.status, reply.body, id_)
    elif not parsed.constraints.choose_only:
        answer.begin(reply.headers)
        streams = reply.headers.get("content-type") == EVENTS
        reply.body = await (answer.events if streams else answer.whole)(reply.body)
    return reply
