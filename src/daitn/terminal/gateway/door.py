"""The HTTP side of a gateway: OpenAI's paths, keys, passes and bodies.

aiohttp's low-level server under uvloop was measured against plain ASGI on uvicorn with httptools:
both serve a reverse proxy's requests equally fast, 1.4 times as fast as Starlette.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from daitn.objects.deployments import Api
from daitn.objects.errors import Refused
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import AUTO
from daitn.terminal.config import GatewayConfig
from daitn.terminal.gateway.asked import Asked, read_asked
from daitn.terminal.gateway.course import Caller
from daitn.terminal.gateway.delivery import refused
from daitn.terminal.gateway.owners import Owners
from daitn.terminal.gateway.refusals import ApiError, bad_request, internal
from daitn.terminal.gateway.upstream import PATHS
from daitn.terminal.http import HttpServer

__all__ = ["Door"]

log = logging.getLogger(__name__)

BODY_TIMEOUT_S = 60.0
"""For a request's body: 4 MiB at 70 kB/s."""
_APIS = {path: api for api, path in PATHS.items()}
_MODELS = "/v1/models"

Serve = Callable[[web.BaseRequest, Caller, Asked, float], Awaitable[web.StreamResponse]]


class Door:
    """Lets requests in, one by one, and answers what needs no deployment."""

    def __init__(
        self,
        config: GatewayConfig,
        admit: Callable[[str, float], SiteId],
        serve: Serve,
        models: Callable[[], Mapping[str, str]],
        health: Callable[[], dict[str, object]],
    ) -> None:
        self._config = config
        self._admit = admit
        self._serve = serve
        self._models = models
        self._health = health
        self._owners = Owners(config.keys)
        self._server = HttpServer(config.listen, "gateway.listen", self._handle)

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        return self._server.endpoint

    async def start(self) -> None:
        """Raises `InvalidInput` where it cannot listen as its file says."""
        await self._server.start()

    async def close(self) -> None:
        """Let nobody in any more."""
        await self._server.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            api = _APIS.get(request.path)
            if api is not None:
                return await self._query(request, api)
            return self._other(request)
        except ApiError as error:
            return refused(error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("a request to %s failed", request.path)
            return refused(internal())

    async def _query(self, request: web.BaseRequest, api: Api) -> web.StreamResponse:
        if request.method != "POST":
            raise _wrong_method(request, "POST")
        caller = self._caller(request)
        body = await self._body(request)
        began_s = time.perf_counter()
        asked = read_asked(api, body, request.raw_headers)
        return await self._serve(request, caller, asked, began_s)

    def _other(self, request: web.BaseRequest) -> web.Response:
        path = request.path
        if path == "/healthz":
            return _json(self._health())
        if path != _MODELS and not path.startswith(_MODELS + "/"):
            raise ApiError(404, "not_found", f"there is no {path} here")
        if request.method != "GET":
            raise _wrong_method(request, "GET")
        self._caller(request)
        models = {AUTO: "", **self._models()}
        if path == _MODELS:
            listed = [_model(name, owner) for name, owner in models.items()]
            return _json({"object": "list", "data": listed})
        name = path.removeprefix(_MODELS + "/")
        if name not in models:
            raise ApiError(404, "model_not_found", f"there is no model {name}", param="model")
        return _json(_model(name, models[name]))

    def _caller(self, request: web.BaseRequest) -> Caller:
        """Who asks: a gateway with a pass, or an owner with a key. Raises `ApiError`."""
        headers = request.headers
        shown = headers.get("daitn-pass")
        if shown is None:
            return Caller(self._owners.admit(headers.get("authorization"), time.monotonic()))
        try:
            by = self._admit(shown, time.time())
        except Refused as error:
            raise ApiError(401, "invalid_pass", error.problem, param="daitn-pass") from None
        return Caller(
            owner=headers.get("daitn-owner", ""),
            relayed_by=by,
            query=headers.get("daitn-query", ""),
            asked_at=headers.get("daitn-asked-at", ""),
        )

    async def _body(self, request: web.BaseRequest) -> bytes:
        """The whole body. Raises `ApiError` for one that is too large, or does not come."""
        most = self._config.max_body_bytes
        if (request.content_length or 0) > most:
            raise _too_large(most)
        if request.headers.get("expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        if request.content.is_eof():
            # It came together with the head, as most do: no clock is needed for it.
            body = request.content.read_nowait()
            if len(body) > most:
                raise _too_large(most)
            return body
        pieces, size = [], 0
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while piece := await request.content.readany():
                    size += len(piece)
                    if size > most:
                        raise _too_large(most)
                    pieces.append(piece)
        except TimeoutError:
            message = f"the request's body was not there within {BODY_TIMEOUT_S:g} s"
            raise ApiError(408, "request_timeout", message) from None
        except web.RequestPayloadError as error:
            raise bad_request(str(error), "body") from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(most: int) -> ApiError:
    return bad_request(f"has more than {most} bytes", "body", status=413)


def _wrong_method(request: web.BaseRequest, right: str) -> ApiError:
    return ApiError(405, "method_not_allowed", f"{request.path} is asked with {right}")


def _model(name: str, owner: str) -> dict[str, object]:
    """OpenAI's model object; `created` is not known of models of other servers."""
    return {"id": name, "object": "model", "created": 0, "owned_by": owner or "daitn"}


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
