"""Anthropic's Messages API at a gateway: queries in its form are answered as chats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from daitn.node.gateway.context import Caller
from daitn.node.gateway.request import read_request
from daitn.node.gateway.translation import CountTokens, Serve, translated
from daitn.node.openai_http.api import json_response
from daitn.objects.deployments import Api
from daitn.openai.errors import bad_request
from daitn.openai.http import COUNT_TOKENS, JSON, MESSAGES, MODELS
from daitn.openai.messages_answer import MessagesAnswer, messages_error, messages_models
from daitn.openai.messages_request import read_messages
from daitn.tools.http import Reply, Request, Response

__all__ = ["Messages", "is_messages", "messages_response"]

T = TypeVar("T")

OLDEST_VERSION = "2023-06-01"
"""Since this version of Anthropic's API, streams have named events. What newer versions removed is
still understood."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_VERSION_HEADER = "anthropic-version"


class Messages:
    """Answers the paths of the Messages API."""

    def __init__(
        self,
        serve: Serve,
        count_tokens: CountTokens,
    ) -> None:
        """`serve` answers a chat; `count_tokens` estimates the tokens of a prompt."""
        self._serve = serve
        self._count_tokens = count_tokens

    async def answer(
        self, request: Request, path: str, caller: Caller, body: bytes, began_s: float
    ) -> Reply:
        """Answer a query. Raises `ApiError` for one that cannot be read."""
        version = request.headers.get(_VERSION_HEADER, OLDEST_VERSION)
        if not _DATE.fullmatch(version) or version < OLDEST_VERSION:
            raise bad_request(f"this gateway speaks {OLDEST_VERSION} and later", _VERSION_HEADER)
        chat = read_messages(body, counting=path == COUNT_TOKENS)
        parsed = read_request(Api.CHAT, chat.body, request.raw_headers)
        tokens_in = self._count_tokens(caller, parsed)
        if path == COUNT_TOKENS:
            return json_response({"input_tokens": tokens_in})
        answer = _Messages(MessagesAnswer(chat, tokens_in))
        return identified(await translated(self._serve, answer, request, caller, parsed, began_s))


class _Messages:
    """See `Translation`."""

    def __init__(self, answer: MessagesAnswer) -> None:
        self._answer = answer
        self.error = answer.error

    def begin(self, headers: Mapping[str, str]) -> None:
        pass

    async def whole(self, body: bytes) -> bytes:
        return self._answer.whole(body)

    async def events(self, events: bytes) -> bytes:
        return self._answer.events(events)


def is_messages(request: Request, path: str) -> bool:
    """Whether the request is from a client of Anthropic's API, by the path or, for models, by the
    header of all its requests."""
    if path == MESSAGES or path.startswith(f"{MESSAGES}/"):
        return True
    return path.startswith(MODELS) and _VERSION_HEADER in request.headers


def messages_response(response: Response) -> Response:
    """A response about models, or an error, in Anthropic's form."""
    if response.status >= 400:
        response.status, response.body = messages_error(response.status, response.body)
        response.headers["content-type"] = JSON
    else:
        response.body = messages_models(response.body)
    return identified(response)


def identified(reply: T) -> T:
    """Adds the query's id where Anthropic's clients look for it."""
    if isinstance(reply, Response) and "x-request-id" in reply.headers:
        reply.headers["request-id"] = reply.headers["x-request-id"]
    return reply
