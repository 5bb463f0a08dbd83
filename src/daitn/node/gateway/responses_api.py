"""OpenAI's Responses API at a gateway: queries in its form are answered as chats, and stored by the
facilities that answered them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from daitn.node.gateway.constraints import read_constraints
from daitn.node.gateway.context import Caller
from daitn.node.gateway.conversations import Conversations
from daitn.node.gateway.request import ParsedRequest, read_request
from daitn.node.gateway.translation import CountTokens, Serve, translated
from daitn.node.openai_http.api import json_response, read_body, wrong_method
from daitn.objects.deployments import Api
from daitn.objects.header_names import AnswerHeader
from daitn.openai.conversation import (
    MAX_STORED_BYTES,
    StoredResponse,
    as_items,
    input_items,
    site_of,
)
from daitn.openai.errors import ApiError, bad_request
from daitn.openai.http import JSON, RESPONSE_ITEMS, RESPONSES
from daitn.openai.requests import raw_fields, rewritten
from daitn.openai.responses_answer import ResponsesAnswer
from daitn.openai.responses_request import read_responses
from daitn.tools.http import Reply, Request, Response
from daitn.topology.qrrt.snapshot import deployment_id

__all__ = ["Responses"]

_ORDERS = ("desc", "asc")
_USUAL_ITEMS, _MOST_ITEMS = 20, 100
"""Items of a page, as at OpenAI."""


class Responses:
    """Answers the paths of the Responses API."""

    def __init__(
        self, serve: Serve, count_tokens: CountTokens, conversations: Conversations
    ) -> None:
        """`serve` answers a chat; `count_tokens` estimates the tokens of a prompt."""
        self._serve = serve
        self._count_tokens = count_tokens
        self._conversations = conversations

    async def answer(self, request: Request, caller: Caller, body: bytes, began_s: float) -> Reply:
        """Answer a query. Raises `ApiError` for one that cannot be read, or whose previous response
        cannot be continued."""
        chat = read_responses(body)
        before, previous_deployment = list[msgspec.Raw](), ""
        if chat.previous:
            kept = await self._previous(request, caller, chat.previous, body)
            before = kept.items
            previous_deployment = deployment_id(kept.model, site_of(chat.previous) or "")
            given = raw_fields(body)
            items = [*before, *as_items(given["input"], "")]
            whole = rewritten(given, {"input": items})
            chat = read_responses(whole)
        parsed = read_request(Api.CHAT, chat.body, request.raw_headers, previous_deployment)
        answer = ResponsesAnswer(chat, self._count_tokens(caller, parsed))
        keeping = _Keeping(answer, caller, parsed, self._conversations)
        if chat.store:
            keeping.conversation = before, body
        return await translated(self._serve, keeping, request, caller, parsed, began_s)

    async def _previous(
        self, request: Request, caller: Caller, previous: str, body: bytes
    ) -> StoredResponse:
        """The response that a query continues. Raises `ApiError`."""
        constraints = read_constraints(raw_fields(body).get("daitn"), request.raw_headers)
        kept = await self._conversations.find(caller, previous, constraints)
        if kept is None:
            raise ApiError(
                400,
                "previous_response_not_found",
                f"Previous response with id '{previous[:200]}' not found: it was not stored, has "
                f"expired, was deleted, belongs to another owner, or its facility has left. Send "
                f"the whole conversation as `input`.",
                param="previous_response_id",
            )
        return kept

    async def handle_stored(self, request: Request, path: str, caller: Caller) -> Response:
        """Answer a request about a stored response. Raises `ApiError`."""
        id_, _, rest = path.removeprefix(f"{RESPONSES}/").partition("/")
        if rest not in ("", RESPONSE_ITEMS):
            raise ApiError(404, "not_found", f"nothing is served at {path}")
        if caller.relayed_by is not None and not rest:
            body = await read_body(request, MAX_STORED_BYTES) if request.method == "PUT" else b""
            status, answer = await self._conversations.relay(caller, request.method, id_, body)
            return Response(answer, status, {"content-type": JSON})
        constraints = read_constraints(None, request.raw_headers)
        if request.method == "DELETE" and not rest:
            if not await self._conversations.delete(caller, id_, constraints):
                raise _not_found(id_)
            return json_response({"id": id_, "object": "response", "deleted": True})
        if request.method != "GET":
            raise wrong_method(request, "GET", *(() if rest else ("DELETE",)))
        if request.query.get("stream") == "true":
            raise bad_request("a stored response comes in one piece", "stream", fix="leave it out")
        kept = await self._conversations.find(caller, id_, constraints)
        if kept is None:
            raise _not_found(id_)
        if not rest:
            return Response(bytes(kept.response), headers={"content-type": JSON})
        return Response(_page(request, kept), headers={"content-type": JSON})


class _Keeping:
    """Translates one answer, and has it stored before it ends; see `Translation`."""

    def __init__(
        self,
        answer: ResponsesAnswer,
        caller: Caller,
        parsed: ParsedRequest,
        conversations: Conversations,
    ) -> None:
        self._answer = answer
        self._caller = caller
        self._parsed = parsed
        self._conversations = conversations
        self.conversation: tuple[list[msgspec.Raw], bytes] | None = None
        """The items before the request, and the request; `None` means the answer is not stored."""
        self._id: str | None = None

    def begin(self, headers: Mapping[str, str]) -> None:
        """Begin the answer; its head names the deployment."""
        if self.conversation is not None and self._id is None:
            self._id = self._conversations.new_id(unquote(headers[AnswerHeader.FACILITY]))
            if self._id is not None:
                self._answer.keep_as(self._id)

    async def whole(self, body: bytes) -> bytes:
        self._answer.read_whole(body)
        await self._keep()
        return self._answer.response()

    async def events(self, events: bytes) -> bytes:
        out = self._answer.events(events)
        if not self._answer.ended:
            return out
        await self._keep()
        return out + self._answer.end()

    def error(self, status: int, body: bytes, request_id: str | None) -> tuple[int, bytes]:
        return self._answer.error(status, body, request_id)

    async def _keep(self) -> None:
        if self._id is None or self.conversation is None:
            return
        before, body = self.conversation
        given = [_raw(item) for item in as_items(raw_fields(body)["input"], self._id)]
        kept = StoredResponse([*before, *given], msgspec.Raw(self._answer.response()))
        if not await self._conversations.keep(
            self._caller, self._id, kept, self._parsed.constraints
        ):
            self._answer.not_stored()


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _not_found(id_: str) -> ApiError:
    return ApiError(404, "not_found", f"Response with id '{id_[:200]}' not found.", param="id")


def _page(request: Request, kept: StoredResponse) -> bytes:
    """A page of the items before a response. Raises `ApiError`."""
    wanted = request.query
    limit = wanted.get("limit", str(_USUAL_ITEMS))
    if not limit.isdecimal() or not 1 <= int(limit) <= _MOST_ITEMS:
        raise bad_request(f"is not 1 to {_MOST_ITEMS}", "limit")
    order = wanted.get("order", _ORDERS[0])
    if order not in _ORDERS:
        raise bad_request(f"is neither {' nor '.join(_ORDERS)}", "order")
    after = wanted.get("after", "")
    return input_items(kept.input, after=after, limit=int(limit), newest_first=order == "desc")
