"""A gateway's API server: paths of OpenAI and Anthropic, API keys and passes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from daitn.node.config import GatewayConfig
from daitn.node.gateway.auth import Authenticator
from daitn.node.gateway.context import Caller
from daitn.node.gateway.conversations import Conversations
from daitn.node.gateway.cors import Cors
from daitn.node.gateway.errors import internal
from daitn.node.gateway.messages_api import Messages, is_messages, messages_response
from daitn.node.gateway.request import read_request
from daitn.node.gateway.responses_api import Responses
from daitn.node.gateway.translation import CountTokens, Serve
from daitn.node.mandates import Mandates
from daitn.node.openai_http.api import (
    error_response,
    health_response,
    json_response,
    plain_path,
    read_body,
    wrong_method,
)
from daitn.objects.deployments import Api
from daitn.objects.errors import Refused
from daitn.objects.header_names import PeerHeader
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import AUTO
from daitn.openai.errors import ApiError
from daitn.openai.http import (
    COUNT_TOKENS,
    HEALTH,
    MESSAGES,
    MODELS,
    PATHS,
    READY,
    RESPONSE_ITEMS,
    RESPONSES,
)
from daitn.openai.responses import model_list, model_object
from daitn.tools import clock
from daitn.tools.http import HttpServer, Reply, Request, Response
from daitn.tools.throttled import ThrottledLog

__all__ = ["SERVED", "GatewayApi", "ServedPath"]

log = logging.getLogger(__name__)

BODY_TIMEOUT_S = 60.0
"""Time limit for a request body: 4 MiB at 70 kB/s."""
_OPENAI, _ANTHROPIC = "OpenAI's", "[Anthropic's](#anthropics-messages)"
_RESPONSES_API = "[OpenAI's](#openais-responses)"
_RANKINGS = "[Cohere's, Jina's and vLLM's](#rankings)"


class ServedPath(NamedTuple):
    """A path that gateways serve; source of the reference's table."""

    path: str
    methods: tuple[str, ...]
    api: str
    """The API to which it belongs."""


SERVED: Final = (
    *(
        ServedPath(path, ("POST",), _RANKINGS if api is Api.RERANK else _OPENAI)
        for path, api in PATHS.items()
    ),
    ServedPath(RESPONSES, ("POST",), _RESPONSES_API),
    ServedPath(f"{RESPONSES}/ID", ("GET", "DELETE"), _RESPONSES_API),
    ServedPath(f"{RESPONSES}/ID/{RESPONSE_ITEMS}", ("GET",), _RESPONSES_API),
    ServedPath(MESSAGES, ("POST",), _ANTHROPIC),
    ServedPath(COUNT_TOKENS, ("POST",), _ANTHROPIC),
    *(
        ServedPath(path, ("GET", "HEAD"), f"{_OPENAI}; Anthropic's with `anthropic-version`")
        for path in (MODELS, f"{MODELS}/NAME")
    ),
    ServedPath(HEALTH, ("GET", "HEAD"), "[of its own](#health)"),
    ServedPath(READY, ("GET", "HEAD"), "[of its own](#health)"),
)

Health = Callable[[bool], tuple[Sequence[str], Mapping[str, object]]]
"""The gateway's problems, and its figures. The argument asks whether it is ready to take queries
now."""


class GatewayApi:
    """Authenticates requests, hands queries on, and answers the rest."""

    def __init__(
        self,
        config: GatewayConfig,
        tls: str,
        admit: Callable[[str, float], SiteId],
        serve: Serve,
        count_tokens: CountTokens,
        conversations: Conversations,
        models: Callable[[str], Mapping[str, str]],
        health: Health,
        authenticator: Authenticator,
        mandates: Mandates | None,
        refused: Callable[[str], None],
    ) -> None:
        """`refused` is called with the code of each error for a request that did not become a
        query."""
        self._config = config
        self._admit = admit
        self._messages = Messages(serve, count_tokens)
        self._responses = Responses(serve, count_tokens, conversations)
        self._serve = serve
        self._models = models
        self._health = health
        self._authenticator = authenticator
        self._mandates = mandates
        self._refused = refused
        self._problems = ThrottledLog(log)
        self._cors = Cors(config.origins)
        self._server = HttpServer(
            config.listen, "gateway.listen", self._handle, tls, advertise=config.advertise
        )

    @property
    def url(self) -> str:
        """The server's address for others, once it listens."""
        return self._server.published

    def admit_by(self, authenticator: Authenticator) -> None:
        """Use another authenticator from the next query on."""
        self._authenticator = authenticator

    async def start(self) -> None:
        """Start serving. Raises `InvalidInput` for an address that it cannot use."""
        await self._server.start()

    async def drain(self, timeout_s: float) -> None:
        """See `HttpServer`."""
        await self._server.drain(timeout_s)

    async def close(self) -> None:
        """Stop serving."""
        await self._server.close()

    async def _handle(self, request: Request) -> Reply:
        try:
            if permission := self._cors.admit(request):
                return permission
            path = plain_path(request)
            if is_messages(request, path):
                return await self._handle_messages(request, path)
            return await self._handle_path(request, path)
        except ApiError as error:
            self._refused(error.code)
            return error_response(error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("request to %s failed", request.path)
            self._refused(internal().code)
            return error_response(internal())

    async def _handle_path(self, request: Request, path: str) -> Reply:
        if path == RESPONSES:
            return await self._responses.answer(request, *await self._read(request))
        if path.startswith(f"{RESPONSES}/"):
            return await self._responses.handle_stored(request, path, self._caller(request))
        api = PATHS.get(path)
        if api is None:
            return self._handle_other(request, path)
        caller, body, began_s = await self._read(request)
        parsed = read_request(api, body, request.raw_headers)
        return await self._serve(request, caller, parsed, began_s)

    async def _handle_messages(self, request: Request, path: str) -> Reply:
        """Answer in the form of Anthropic's API, including errors."""
        try:
            if path in (MESSAGES, COUNT_TOKENS):
                return await self._messages.answer(request, path, *await self._read(request))
            reply = await self._handle_path(request, path)
        except ApiError as error:
            self._refused(error.code)
            reply = error_response(error)
        return messages_response(reply) if isinstance(reply, Response) else reply

    async def _read(self, request: Request) -> tuple[Caller, bytes, float]:
        """The caller, the body, and the time of its arrival. Raises `ApiError`."""
        if request.method != "POST":
            raise wrong_method(request, "POST")
        caller = self._caller(request)
        body = await read_body(request, self._config.max_body_bytes, BODY_TIMEOUT_S)
        return caller, body, time.perf_counter()

    def _handle_other(self, request: Request, path: str) -> Response:
        if path not in (HEALTH, READY) and path != MODELS and not path.startswith(MODELS + "/"):
            raise ApiError(404, "not_found", f"nothing is served at {path}")
        if request.method not in ("GET", "HEAD"):
            raise wrong_method(request, "GET", "HEAD")
        if path in (HEALTH, READY):
            return health_response(*self._health(path == READY))
        models = {AUTO: "", **self._models(self._caller(request).owner)}
        if path == MODELS:
            return json_response(model_list(models))
        name = path.removeprefix(MODELS + "/")
        if name not in models:
            raise ApiError(
                404, "model_not_found", f"this gateway has no model {name}", param="model"
            )
        return json_response(model_object(name, models[name]))

    def _caller(self, request: Request) -> Caller:
        """Identify the caller: a gateway with a pass, or an owner with an API key. Raises
        `ApiError`."""
        headers = request.headers
        gateway_pass = headers.get(PeerHeader.PASS)
        if gateway_pass is None:
            return self._authenticator.admit(headers.get("authorization"), headers.get("x-api-key"))
        owner, mandate = headers.get(PeerHeader.OWNER, ""), headers.get(PeerHeader.MANDATE, "")
        now_s = clock.wall_s()
        try:
            site = self._admit(gateway_pass, now_s)
            if self._mandates is not None and owner:
                self._mandates.check(site, owner, mandate, now_s)
        except Refused as error:
            self._problems.warning("pass", "a relayed query was not admitted: %a", error.problem)
            raise ApiError(401, "invalid_pass", error.problem, param=PeerHeader.PASS) from None
        return Caller(
            owner=owner,
            relayed_by=site,
            mandate=mandate,
            origin_pass=headers.get(PeerHeader.ORIGIN_PASS, ""),
            query=headers.get(PeerHeader.QUERY, ""),
            asked_at=headers.get(PeerHeader.ASKED_AT, ""),
        )
