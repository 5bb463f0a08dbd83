"""A server that speaks OpenAI's HTTP API (vLLM, llama.cpp, Ollama, ...) as a deployment."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import aiohttp
import msgspec
from aiohttp import web

from daitn.objects.deployments import Api, DeploymentDescriptor, DeploymentState, Runtime
from daitn.objects.identifiers import OwnerId
from daitn.terminal.config import UpstreamConfig
from daitn.terminal.facility.asked import DoorQuery
from daitn.terminal.facility.meter import Meter
from daitn.terminal.facility.renaming import Renaming
from daitn.terminal.facility.served import EVENTS, JSON, begin_stream, break_off, timing
from daitn.terminal.gateway.refusals import ApiError

__all__ = ["UpstreamModel"]

CONNECT_TIMEOUT_S = 5.0
SILENT_TIMEOUT_S = 120.0
"""A stream that says nothing for so long has hung; a long prompt on a slow machine takes a
minute."""
WHOLE_TIMEOUT_S = 600.0
"""An answer that comes in one piece is silent until it has ended; OpenAI's client waits as long."""
PROBE_TIMEOUT_S = 3.0
PROBE_DOWN_S, PROBE_UP_S = 1.0, 10.0
"""Between two looks at a server that is down, and at one that is up."""
_MOST_ANSWER_BYTES = 1 << 26
_MOST_ERROR_BYTES = 1 << 16
_TOLD_BYTES = 300
"""Of an error that is not told as OpenAI's API does."""
_OURS = frozenset({400, 413, 415, 422})
"""The request itself is at fault; the server's own words go back to who asked."""


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Answer(msgspec.Struct):
    usage: _Usage | None = None
    choices: list[msgspec.Raw] = []
    data: list[msgspec.Raw] = []
    """Of embeddings."""


class _Error(msgspec.Struct):
    error: dict[str, msgspec.Raw]


_ERROR = msgspec.json.Decoder(_Error)
_ANSWER = msgspec.json.Decoder(_Answer)


class _Broken(Exception):
    """The server did not answer, or not to the end."""


class UpstreamModel:
    """One upstream server; see `Served`. `changed` is told when it comes or goes."""

    def __init__(self, config: UpstreamConfig, owner: OwnerId, changed: Callable[[], None]) -> None:
        self._config = config
        self._owner = owner
        self._changed = changed
        self._state = DeploymentState.LOADING
        self._session: aiohttp.ClientSession | None = None
        self._probing: asyncio.Task[None] | None = None
        self._doubted = asyncio.Event()
        self.meter = Meter(config.slots, config.queue)

    @property
    def descriptor(self) -> DeploymentDescriptor:
        config = self._config
        return DeploymentDescriptor(
            name=config.name,
            owner=self._owner,
            runtime=Runtime.OPENAI,
            apis=config.apis,
            state=self._state,
            context_tokens=config.context_tokens,
            slots=config.slots,
            queue=config.queue,
            price_usd_per_1k_in=config.price_usd_per_1k_in,
            price_usd_per_1k_out=config.price_usd_per_1k_out,
            claimed=config.claimed,
            policy=config.policy,
        )

    async def start(self) -> None:
        """Look whether the server is there, now and again and again."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
        )
        await self._probe()
        self._probing = asyncio.create_task(self._probe_for_ever())

    async def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def answer(
        self, request: web.BaseRequest, query: DoorQuery, waited_s: float
    ) -> web.StreamResponse:
        """See `Served.answer`."""
        began_s = time.perf_counter()
        try:
            async with await self._asked(query) as answer:
                if answer.status != 200:
                    return await self._refused(answer)
                if query.stream and answer.content_type == EVENTS:
                    return await self._stream(request, query, answer, waited_s, began_s)
                return await self._whole(query, answer, waited_s, began_s)
        except _Broken as broken:
            self._doubt()
            raise _failed(str(broken)) from None

    async def _asked(self, query: DoorQuery) -> aiohttp.ClientResponse:
        assert self._session is not None
        silent_s = SILENT_TIMEOUT_S if query.stream else WHOLE_TIMEOUT_S
        try:
            return await self._session.post(
                self._config.url.rstrip("/") + query.api.path,
                data=msgspec.json.encode({**query.raw, "model": self._model}),
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=silent_s
                ),
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _Broken(type(error).__name__) from None

    async def _stream(
        self,
        request: web.BaseRequest,
        query: DoorQuery,
        answer: aiohttp.ClientResponse,
        waited_s: float,
        began_s: float,
    ) -> web.StreamResponse:
        piece = await _piece(answer)
        if not piece:
            raise _Broken("an empty stream")
        first_s = time.perf_counter() - began_s
        response = await begin_stream(request, waited_s, first_s)
        rename, tokens, size = Renaming(query.model), 0, 0
        try:
            while piece:
                tokens += piece.count(b"data:")
                size += len(piece)
                if size > _MOST_ANSWER_BYTES:
                    raise _Broken("a stream without end")
                if renamed := rename(piece):
                    await response.write(renamed)
                piece = await _piece(answer)
        except _Broken:
            self._doubt()
            break_off(request)
            return response
        if rest := rename.rest():
            await response.write(rest)
        self.meter.answered(first_s, time.perf_counter() - began_s, tokens)
        return response

    async def _whole(
        self, query: DoorQuery, answer: aiohttp.ClientResponse, waited_s: float, began_s: float
    ) -> web.Response:
        body = await _read(answer, _MOST_ANSWER_BYTES)
        try:
            said = _ANSWER.decode(body)
        except (msgspec.DecodeError, RecursionError):
            said = _Answer()
        if not (said.data if query.api is Api.EMBEDDINGS else said.choices):
            self.meter.failed()
            raise _failed("what it says is no answer")
        tokens = said.usage.completion_tokens if said.usage is not None else 0
        self.meter.answered(None, time.perf_counter() - began_s, tokens)
        rename = Renaming(query.model)
        body = rename(body) + rename.rest()
        return web.Response(body=body, content_type=JSON, headers=timing(waited_s, None))

    def _doubt(self) -> None:
        """It failed: look at once whether it is there at all."""
        self.meter.failed()
        self._doubted.set()

    async def _refused(self, answer: aiohttp.ClientResponse) -> web.Response:
        body = await _read(answer, _MOST_ERROR_BYTES)
        if answer.status in _OURS:
            try:
                _ERROR.decode(body)
            except (msgspec.DecodeError, RecursionError):
                said = body[:_TOLD_BYTES].decode(errors="replace")
                raise ApiError(answer.status, "invalid_request", said) from None
            return web.Response(body=body, status=answer.status, content_type=JSON)
        if answer.status == 429:
            raise ApiError(429, "facility_full", "the upstream server is full", retry_after_s=1.0)
        self.meter.failed()
        raise _failed(f"it says {answer.status}")

    @property
    def _model(self) -> str:
        return self._config.model or self._config.name

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": JSON}
        key = os.environ.get(self._config.key_env, "") if self._config.key_env else ""
        if key:
            headers["authorization"] = f"Bearer {key}"
        return headers

    async def _probe_for_ever(self) -> None:
        while True:
            up = self._state is DeploymentState.READY
            try:
                async with asyncio.timeout(PROBE_UP_S if up else PROBE_DOWN_S):
                    await (self._doubted.wait() if up else asyncio.Event().wait())
            except TimeoutError:
                pass
            self._doubted.clear()
            await self._probe()

    async def _probe(self) -> None:
        """Whatever the server says, it is there."""
        assert self._session is not None
        state = DeploymentState.READY
        try:
            async with self._session.get(
                self._config.url.rstrip("/") + "/models",
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S),
            ):
                pass
        except (aiohttp.ClientError, TimeoutError, OSError):
            state = DeploymentState.FAILED
        if state is not self._state:
            if state is DeploymentState.READY:
                self.meter.recovered()
            self._state = state
            self._changed()


async def _piece(answer: aiohttp.ClientResponse) -> bytes:
    """The next bytes; empty at the end. Raises `_Broken`."""
    try:
        return await answer.content.readany()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _Broken(type(error).__name__) from None


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    parts, size = [], 0
    while part := await _piece(answer):
        size += len(part)
        if size > most:
            raise _Broken(f"an answer of more than {most} bytes")
        parts.append(part)
    return b"".join(parts)


def _failed(why: str) -> ApiError:
    return ApiError(502, "upstream_failed", f"the upstream server failed: {why}")
