"""A server that speaks OpenAI's HTTP API (vLLM, llama.cpp, Ollama, ...) as a deployment."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

from daitn.node.config import UpstreamConfig
from daitn.node.http import (
    HttpAnswer,
    HttpClient,
    HttpFailed,
    Reply,
    Request,
    Response,
    read_address,
)
from daitn.node.serving.admission import AdmissionQueue
from daitn.node.serving.backends.protocol import begin_stream, timing
from daitn.node.serving.backends.renaming import ModelRenamer
from daitn.node.serving.request import ServingRequest
from daitn.objects.deployments import Api, DeploymentDescriptor, DeploymentState, Runtime
from daitn.objects.identifiers import OwnerId
from daitn.openai.errors import OURS, UPSTREAM_REFUSED, ApiError, read_error
from daitn.openai.http import EVENTS, JSON
from daitn.openai.requests import raw_fields, rewritten
from daitn.openai.responses import outline

__all__ = ["OpenAiBackend"]

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
SILENT_TIMEOUT_S = 120.0
"""A stream that says nothing for so long has hung; a long prompt on a slow machine takes a
minute."""
WHOLE_TIMEOUT_S = 600.0
"""An answer that comes in one piece is silent until it has ended; OpenAI's client waits as long."""
PROBE_TIMEOUT_S = 3.0
PROBE_DOWN_S, PROBE_UP_S = 1.0, 10.0
"""Between two looks at a server that is down, and at one that is up."""
_KEPT_ALIVE_S = 15.0
"""aiohttp's, for the same servers."""
_MOST_ANSWER_BYTES = 1 << 26
_MOST_ERROR_BYTES = 1 << 16
_TOLD_BYTES = 300
"""Of an error that is not told as OpenAI's API does."""
_NOT_READY = frozenset({502, 503, 504})
"""llama.cpp's while it loads its model, or a proxy's before a server that is down."""
_CANNOT = 501
"""llama.cpp's for embeddings, where it was not started for them: the next query goes well."""


class _Broken(Exception):
    """The server did not answer, or not to the end."""


class OpenAiBackend:
    """One upstream server; see `Backend`. `changed` is told when it comes or goes."""

    def __init__(
        self,
        config: UpstreamConfig,
        owner: OwnerId,
        changed: Callable[[], None],
        tls: str = "",
    ) -> None:
        """`tls`: see `HttpClient`."""
        self._config = config
        self._owner = owner
        self._changed = changed
        self._state = DeploymentState.LOADING
        self._client = HttpClient(connect_within_s=CONNECT_TIMEOUT_S, keep_s=_KEPT_ALIVE_S, tls=tls)
        self._probing: asyncio.Task[None] | None = None
        self._doubted = asyncio.Event()
        self.admission = AdmissionQueue(config.slots, config.queue)

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
        await self._probe()
        self._probing = asyncio.create_task(self._probe_for_ever())

    async def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        self._client.close()

    async def answer(self, request: Request, query: ServingRequest, waited_s: float) -> Reply:
        """See `Backend.answer`."""
        began_s = time.perf_counter()
        try:
            answer = await self._asked(query)
            try:
                if answer.status != 200:
                    return await self._refused(answer)
                if query.stream and _kind(answer) == EVENTS:
                    return await self._stream(request, query, answer, waited_s, began_s)
                return await self._whole(query, answer, waited_s, began_s)
            finally:
                answer.close()
        except _Broken as broken:
            self._doubt()
            raise _failed(str(broken)) from None

    async def _asked(self, query: ServingRequest) -> HttpAnswer:
        silent_s = SILENT_TIMEOUT_S if query.stream else WHOLE_TIMEOUT_S
        body = rewritten(raw_fields(query.body), {"model": self._model})
        return await self._request("POST", query.api.path, body, silent_s)

    async def _request(self, method: str, path: str, body: bytes, silent_s: float) -> HttpAnswer:
        """Raises `_Broken`."""
        try:
            address = read_address(self._config.url)
            headers = self._headers()
            return await self._client.ask(method, address, path, headers, body, silent_s=silent_s)
        except (HttpFailed, ValueError) as error:
            raise _Broken(str(error)) from None

    async def _stream(
        self,
        request: Request,
        query: ServingRequest,
        answer: HttpAnswer,
        waited_s: float,
        began_s: float,
    ) -> Reply:
        piece = await _piece(answer)
        if not piece:
            raise _Broken("an empty stream")
        first_s = time.perf_counter() - began_s
        stream = begin_stream(request, waited_s, first_s)
        rename, tokens, size = ModelRenamer(query.model), 0, 0
        try:
            while piece:
                tokens += piece.count(b"data:")
                size += len(piece)
                if size > _MOST_ANSWER_BYTES:
                    raise _Broken("a stream without end")
                if renamed := rename(piece):
                    await stream.write(renamed)
                piece = await _piece(answer)
        except _Broken:
            self._doubt()
            request.abort()
            return stream
        if rest := rename.rest():
            await stream.write(rest)
        self.admission.answered(first_s, time.perf_counter() - began_s, tokens)
        return stream

    async def _whole(
        self, query: ServingRequest, answer: HttpAnswer, waited_s: float, began_s: float
    ) -> Reply:
        body = await _read(answer, _MOST_ANSWER_BYTES)
        said = outline(body)
        if not (said.data if query.api is Api.EMBEDDINGS else said.choices):
            self.admission.failed()
            raise _failed("what it says is no answer")
        tokens = said.usage.completion_tokens if said.usage is not None else 0
        self.admission.answered(None, time.perf_counter() - began_s, tokens)
        rename = ModelRenamer(query.model)
        body = rename(body) + rename.rest()
        return Response(body, headers={"content-type": JSON, **timing(waited_s, None)})

    def _doubt(self) -> None:
        """It failed: look at once whether it is there at all."""
        self.admission.failed()
        self._doubted.set()

    async def _refused(self, answer: HttpAnswer) -> Reply:
        body = await _read(answer, _MOST_ERROR_BYTES)
        status = 400 if answer.status == _CANNOT else answer.status
        if status in OURS:  # The server's own words go back to who asked.
            if read_error(body) is None:
                said = body[:_TOLD_BYTES].decode(errors="replace")
                raise ApiError(status, "invalid_request", said)
            return Response(body, status, {"content-type": JSON})
        if status == 429:
            raise ApiError(429, "facility_full", "the upstream server is full", retry_after_s=1.0)
        if status in _NOT_READY:
            raise _Broken(f"it says {status}")
        said = body[:_TOLD_BYTES].decode(errors="replace")
        log.warning("%s says %d: %s", self._config.name, status, said)
        self.admission.failed()
        raise ApiError(502, UPSTREAM_REFUSED, f"the upstream server says {status}")

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
        """Whatever the server says, it is there, unless it says that it is not ready."""
        state = DeploymentState.READY
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                answer = await self._request("GET", "/models", b"", PROBE_TIMEOUT_S)
            answer.close()
            if answer.status in _NOT_READY:
                state = DeploymentState.FAILED
        except (_Broken, TimeoutError):
            state = DeploymentState.FAILED
        if state is not self._state:
            if state is DeploymentState.READY:
                self.admission.recovered()
            self._state = state
            self._changed()


def _kind(answer: HttpAnswer) -> str:
    """Its type of content, without parameters."""
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _piece(answer: HttpAnswer) -> bytes:
    """The next bytes; empty at the end. Raises `_Broken`."""
    try:
        return await answer.piece()
    except HttpFailed as error:
        raise _Broken(str(error)) from None


async def _read(answer: HttpAnswer, most: int) -> bytes:
    parts, size = [], 0
    while part := await _piece(answer):
        size += len(part)
        if size > most:
            raise _Broken(f"an answer of more than {most} bytes")
        parts.append(part)
    return b"".join(parts)


def _failed(why: str) -> ApiError:
    return ApiError(502, "upstream_failed", f"the upstream server failed: {why}")
