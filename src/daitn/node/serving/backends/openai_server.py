"""A server of OpenAI's HTTP API (vLLM, llama.cpp, Ollama, ...) as a deployment."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from daitn.node.config import UpstreamConfig
from daitn.node.openai_http.answers import MAX_ERROR_BYTES, IncomingAnswer
from daitn.node.serving.admission import AdmissionQueue
from daitn.node.serving.backends.protocol import begin_stream, timing
from daitn.node.serving.backends.server_facts import (
    NO_FACTS,
    ServerFacts,
    listed_model,
    server_facts,
)
from daitn.node.serving.request import ServingRequest
from daitn.objects.abilities import Abilities, Reads, Says
from daitn.objects.deployments import Api, DeploymentDescriptor, DeploymentState, Runtime
from daitn.objects.identifiers import OwnerId
from daitn.openai.answers import AnswerFailed
from daitn.openai.context_excess import EXCEEDED
from daitn.openai.errors import ApiError, Error, read_error
from daitn.openai.events import AnswerBroken
from daitn.openai.failures import (
    CLIENTS,
    FULL,
    MISCONFIGURED,
    TOO_LONG,
    UNREADY,
    UNSUITED,
    FailureKind,
    of_server,
    stated_status,
)
from daitn.openai.http import JSON, as_event
from daitn.openai.prefill import without_beginning
from daitn.openai.requests import raw_fields
from daitn.openai.responses import with_counts
from daitn.openai.retry_after import retry_after_s
from daitn.tools import clock
from daitn.tools.http import (
    ClientResponse,
    HttpClient,
    HttpError,
    Reply,
    Request,
    Response,
    read_address,
)
from daitn.tools.monitoring.tracing import TRACEPARENT
from daitn.tools.tasks import Tasks
from daitn.tools.throttled import ThrottledLog

__all__ = ["OpenAiBackend", "described"]

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
SILENT_TIMEOUT_S = 120.0
"""A stream that is silent for this long hangs; a long prompt on a slow machine takes a minute."""
WHOLE_TIMEOUT_S = 600.0
"""An answer in one piece is silent until it is complete; OpenAI's client waits as long."""
PROBE_TIMEOUT_S = 3.0
PROBE_DOWN_S, PROBE_UP_S = 1.0, 10.0
"""Intervals between probes of a server that is down, and of one that is up."""
_KEEPALIVE_S = 15.0
"""aiohttp's default."""
_WITHIN = "reported an error in its answer"
_BOUND = "facility.max_answer_bytes"
_MAX_FACTS_BYTES = 1 << 22
"""A server's list of models, with its statements about each."""
_MAX_QUOTED = 300
"""Quoted characters of an error body that is not one of OpenAI's API."""
_NOT_READY = frozenset({502, 503, 504})
"""llama.cpp answers this while it loads its model, as does a proxy in front of a server that is
down."""
_KEY_REFUSED = frozenset({401, 403})
_ITS_OPERATORS = frozenset({401, 402, 429})
"""Errors that no query causes: a bad key, a bill, a used-up quota."""
HELD_S = 30.0
"""How long a deployment is not offered after one of these."""
FULL_RETRY_AFTER_S = 1.0
"""Assumed for a full server that does not say for how long."""
_ONLY_COUNTS = {"stream_options": {"include_usage": True}}
_REFUSED_FIELD = b"stream_options"
"""In the error of a server that refuses the field."""
_SPOKEN = {Api.EMBEDDINGS: Says.VECTOR, Api.RERANK: Says.SCORE}
"""Outputs of APIs other than those of text."""


class _UpstreamFailed(Exception):
    """The server did not answer, or not completely."""


class OpenAiBackend:
    """One upstream server; see `Backend`. It calls `changed` when the server goes up or down."""

    def __init__(
        self,
        config: UpstreamConfig,
        owner: OwnerId,
        changed: Callable[[], None],
        max_answer_bytes: int,
        tls: str = "",
        key: str = "",
        admission: AdmissionQueue | None = None,
    ) -> None:
        """`max_answer_bytes`: limit on an answer, whole or streamed. `tls`: see `HttpClient`.
        `key`: the server's, if its entry names no variable for it. `admission`: that of a
        deployment that this server answers for now."""
        self._config = config
        self._owner = owner
        self._changed = changed
        self._max_answer_bytes = max_answer_bytes
        self._state = DeploymentState.LOADING
        self._facts = NO_FACTS
        self._client = HttpClient(
            connect_timeout_s=CONNECT_TIMEOUT_S, keepalive_s=_KEEPALIVE_S, tls=tls
        )
        self._tasks = Tasks()
        self._problems = ThrottledLog(log)
        self._counts_streams = True
        """Whether it may be asked for the token counts of a stream."""
        self._held_until_s = 0.0
        """Time until which no probe makes it ready (monotonic)."""
        self._probe_now = asyncio.Event()
        self._key = key
        self.admission = admission or AdmissionQueue(config.slots, config.queue)

    @property
    def descriptor(self) -> DeploymentDescriptor:
        return described(self._config, self._owner, self._facts, self._state)

    async def start(self) -> None:
        """Probe the server now, and then regularly."""
        await self._probe()
        self._tasks.repeat(self._probe_when_due, f"probing {self._config.name}")

    async def close(self) -> None:
        await self._tasks.close()
        self._client.close()

    async def answer(self, request: Request, query: ServingRequest, waited_s: float) -> Reply:
        """See `Backend.answer`."""
        began_s = time.perf_counter()
        try:
            answer = IncomingAnswer(
                await self._answered(query),
                self._max_answer_bytes,
                _BOUND,
                api=query.api,
                choices=query.choices,
                model=query.model,
            )
            try:
                if query.stream and await answer.begin():
                    return await self._stream(request, answer, waited_s, began_s)
                return await self._whole(answer, query, waited_s, began_s)
            finally:
                answer.close()
        except AnswerFailed as failed:
            status = stated_status(failed.error)
            raise self._failed(status, failed.error, {}, _WITHIN, failed.body) from None
        except AnswerBroken as broken:
            self._suspect()
            raise _upstream_failed(broken.reason) from None
        except _UpstreamFailed as broken:
            self._suspect()
            raise _upstream_failed(str(broken)) from None

    async def _answered(self, query: ServingRequest) -> ClientResponse:
        """The server's answer, with status 200. A stream is asked for its token counts, unless the
        server refuses that field. Raises `_UpstreamFailed`, and `ApiError` for an error."""
        raw = raw_fields(query.body)
        counting = with_counts(raw) if query.stream else {}
        # With options of the client's own, a refusal may be about these.
        is_ours = counting == _ONLY_COUNTS
        plain = {name: value for name, value in raw.items() if name not in counting}
        fields = plain if is_ours and not self._counts_streams else {**raw, **counting}
        response = await self._forward(query, fields)
        if response.status == 200:
            return response
        body = await _read_error(response)
        if is_ours and self._counts_streams and _REFUSED_FIELD in body:
            without = await self._forward(query, plain)
            if without.status == 200:
                self._counts_streams = False
                self._log("it refuses `stream_options`, so token counts of streams are estimated")
                return without
            response, body = without, await _read_error(without)
        what = f"answered {response.status}"
        raise self._failed(response.status, read_error(body), response.headers, what, body)

    async def _forward(self, query: ServingRequest, fields: Mapping[str, object]) -> ClientResponse:
        silence_timeout_s = SILENT_TIMEOUT_S if query.stream else WHOLE_TIMEOUT_S
        body = msgspec.json.encode({**fields, "model": self._model})
        return await self._request(
            "POST", query.api.path, body, silence_timeout_s, traceparent=query.traceparent
        )

    async def _request(
        self,
        method: str,
        path: str,
        body: bytes,
        silence_timeout_s: float,
        *,
        root: bool = False,
        traceparent: str = "",
    ) -> ClientResponse:
        """`root`: whether the path is relative to the server's root rather than OpenAI's API.
        Raises `_UpstreamFailed`."""
        try:
            url = self._config.url.rstrip("/")
            address = read_address(url.removesuffix("/v1") if root else url)
            headers = self._headers()
            if traceparent:  # vLLM continues traces too.
                headers[TRACEPARENT] = traceparent
            return await self._client.request(
                method, address, path, headers, body, silence_timeout_s=silence_timeout_s
            )
        except (HttpError, ValueError) as error:
            raise _UpstreamFailed(str(error)) from None

    async def _stream(
        self, request: Request, answer: IncomingAnswer, waited_s: float, began_s: float
    ) -> Reply:
        events = answer.events
        assert events is not None
        first_s = time.perf_counter() - began_s
        stream = begin_stream(request, waited_s, first_s)
        delivered = False
        try:
            while data := await answer.read_events():
                await stream.write(data)
                delivered = events.finished
        except AnswerBroken as broken:
            if isinstance(broken, AnswerFailed):
                self._log(f"{_WITHIN}: {broken.error.words}")
                self.admission.record_failure()
                error = _upstream_refused(_quoted(_WITHIN, broken.error))
            else:
                self._log(broken.reason)
                self._suspect()
                error = _upstream_failed(broken.reason)
            await stream.write(as_event(error.body))
            request.abort()
        finally:
            if delivered:  # The asker may go before the last bytes.
                seconds = time.perf_counter() - began_s
                self.admission.record_answer(first_s, seconds, events.pieces)
        return stream

    async def _whole(
        self, answer: IncomingAnswer, query: ServingRequest, waited_s: float, began_s: float
    ) -> Reply:
        whole = await answer.read_whole()
        tokens = (whole.usage.completion_tokens if whole.usage else None) or 0
        self.admission.record_answer(None, time.perf_counter() - began_s, tokens)
        body = whole.body
        if self._facts.repeats and query.api is Api.CHAT:
            body = without_beginning(body, query.body)
        return Response(body, headers={"content-type": JSON, **timing(waited_s, None)})

    def _log(self, problem: str) -> None:
        log.warning("upstream server %s: %s", self._config.name, problem)

    def _suspect(self) -> None:
        """Record a failure, and probe the server at once."""
        self.admission.record_failure()
        self._probe_now.set()

    def _failed(
        self, status: int, known: Error | None, headers: Mapping[str, str], what: str, body: bytes
    ) -> ApiError:
        """The facility's answer to a server's error, whose form may not be `known`; `what`: the
        server's action; `body`: its response."""
        text = body[:MAX_ERROR_BYTES].decode(errors="replace")
        error = known or Error(text[:_MAX_QUOTED])
        hint_s = retry_after_s(headers, text, clock.wall_s())
        failure = of_server(status, error, hint_s)
        if failure in (CLIENTS, TOO_LONG, UNSUITED):  # The client gets the server's own error.
            return _passed_on(status, error, failure)
        if failure is FULL:
            hint_s = FULL_RETRY_AFTER_S if hint_s is None else hint_s
            full = "the upstream server is full"
            if known is not None and known.words:
                full = f"{full}: {known.words}"
            return ApiError(429, "facility_full", full, retry_after_s=hint_s)
        message = what if known is None else _quoted(what, known)
        self.admission.record_failure()
        if failure is UNREADY:
            self._probe_now.set()
            return _upstream_failed(f"it {message}", hint_s)
        self._problems.warning(
            f"{status} {failure.name}",
            "upstream server %s (%s) %s: %s",
            self._config.name,
            failure.name,
            what,
            error.words,
        )
        if failure is MISCONFIGURED:
            if status in _ITS_OPERATORS:
                self._hold()
            return ApiError(502, "upstream_misconfigured", f"the upstream server {what}")
        return _upstream_refused(message, hint_s)

    def _hold(self) -> None:
        """No query can succeed: stop offering the deployment, and check again later."""
        self._held_until_s = time.monotonic() + HELD_S
        self._set_state(DeploymentState.FAILED, self._facts, "refuses what it is asked")
        self._probe_now.set()

    @property
    def _model(self) -> str:
        return self._config.model or self._config.name

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": JSON}
        variable = self._config.key_env
        if key := os.environ.get(variable, "") if variable else self._key:
            headers["authorization"] = f"Bearer {key}"
        return headers

    async def _probe_when_due(self) -> None:
        is_up = self._state is DeploymentState.READY
        try:
            async with asyncio.timeout(PROBE_UP_S if is_up else PROBE_DOWN_S):
                await (self._probe_now.wait() if is_up else asyncio.Event().wait())
        except TimeoutError:
            pass
        suspected = self._probe_now.is_set()
        self._probe_now.clear()
        await self._probe(anew=suspected or not is_up)

    async def _probe(self, *, anew: bool = True) -> None:
        """Probe the server. Any answer means that it is up, except one that says it is not ready.
        `anew`: it may serve something different than before."""
        state, facts, why = DeploymentState.READY, self._facts, "answers"
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                answer = await self._request("GET", "/models", b"", PROBE_TIMEOUT_S)
                models = await _read_small(answer)
            if answer.status in _NOT_READY:
                state, why = DeploymentState.FAILED, f"answers {answer.status}"
            elif answer.status in _KEY_REFUSED:  # Some keys may answer queries and list no models.
                self._problems.warning(
                    "key",
                    "upstream server %s answers %d to its key: see `key_env`",
                    self._config.name,
                    answer.status,
                )
            else:
                facts = await self._learn(models or b"", anew=anew)
        except _UpstreamFailed as failed:
            state, why = DeploymentState.FAILED, f"does not answer: {failed}"
        except TimeoutError:
            state, why = DeploymentState.FAILED, f"does not answer within {PROBE_TIMEOUT_S:g} s"
        if state is DeploymentState.READY and time.monotonic() < self._held_until_s:
            state = self._state
        self._set_state(state, facts, why)

    def _set_state(self, state: DeploymentState, facts: ServerFacts, why: str) -> None:
        """`why`: what the server does, for the log."""
        if state is not self._state or facts != self._facts:
            if state is not self._state:
                self._note_state(state, why)
            self._state, self._facts = state, facts
            self._changed()

    def _note_state(self, state: DeploymentState, why: str) -> None:
        name, url = self._config.name, self._config.url
        if state is DeploymentState.READY:
            self.admission.reset_errors()
            log.info("upstream server %s at %s %s: it gets queries", name, url, why)
        else:
            log.warning("upstream server %s at %s %s: it gets no queries", name, url, why)

    async def _learn(self, models: bytes, *, anew: bool) -> ServerFacts:
        """What the server reports about the model; `models`: its list of them."""
        listed = listed_model(models, self._model)
        facts = self._facts
        if anew:
            self._counts_streams = True
            facts = await server_facts(self._fetch, self._model, listed)
        if listed is not None and (listed.max_model_len or 0) > 0:
            facts = msgspec.structs.replace(facts, context_tokens=listed.max_model_len)
        return facts

    async def _fetch(self, method: str, path: str, body: object) -> bytes | None:
        """An answer of the server's own API, beside OpenAI's."""
        content = b"" if body is None else msgspec.json.encode(body)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                answer = await self._request(method, path, content, PROBE_TIMEOUT_S, root=True)
                return await _read_small(answer)
        except (_UpstreamFailed, TimeoutError):
            return None


def described(
    config: UpstreamConfig, owner: OwnerId, facts: ServerFacts, state: DeploymentState
) -> DeploymentDescriptor:
    """A deployment as described by its entry in the file and by its server."""
    apis = _apis(config, facts)
    return DeploymentDescriptor(
        name=config.name,
        owner=owner,
        runtime=Runtime.OPENAI,
        apis=apis,
        state=state,
        context_tokens=_first(config.context_tokens, facts.context_tokens, 4096),
        abilities=_abilities(config, facts, apis),
        tokens_per_character=facts.rates or (),
        slots=config.slots,
        queue=config.queue,
        price_usd_per_1k_in=config.price_usd_per_1k_in,
        price_usd_per_1k_out=config.price_usd_per_1k_out,
        claimed=config.claimed,
        policy=config.policy,
    )


def _apis(config: UpstreamConfig, facts: ServerFacts) -> tuple[Api, ...]:
    # A model that ranks does nothing else.
    return _first(config.apis, (Api.RERANK,) if facts.ranks else None, (Api.CHAT,))


def _abilities(config: UpstreamConfig, facts: ServerFacts, apis: tuple[Api, ...]) -> Abilities:
    """The file's statements take precedence over the server's."""
    spoken = {_SPOKEN.get(api, Says.TEXT) for api in apis}
    return Abilities(
        reads=_first(config.reads, facts.reads, (Reads.TEXT,)),
        says=_first(config.says, facts.says, tuple(sorted(spoken))),
        tools=facts.tools if config.tools is None else config.tools,
        json_schema=facts.json_schema if config.json_schema is None else config.json_schema,
        languages=config.languages,
    )


def _first(stated: T | None, reported: T | None, usual: T) -> T:
    return stated if stated is not None else reported if reported is not None else usual


async def _read_error(response: ClientResponse) -> bytes:
    answer = IncomingAnswer(response, MAX_ERROR_BYTES, _BOUND)
    try:
        return await answer.read_start(MAX_ERROR_BYTES)
    finally:
        response.release()


async def _read_small(answer: ClientResponse) -> bytes | None:
    """The body of an answer about the server, or its start; none if it has another status than 200.
    Raises `_UpstreamFailed`."""
    try:
        body = await IncomingAnswer(answer, _MAX_FACTS_BYTES, _BOUND).read_start(_MAX_FACTS_BYTES)
    except AnswerBroken as broken:
        raise _UpstreamFailed(broken.reason) from None
    finally:
        answer.close()
    return body if answer.status == 200 else None


def _passed_on(status: int, error: Error, failure: FailureKind) -> ApiError:
    """The server's own error, in OpenAI's form regardless of the server's."""
    code = error.code if isinstance(error.code, str) else ""
    if status >= 500:  # 501 of llama.cpp without embeddings, for one: clients would try again.
        status = 400
        code = ""
    if failure is TOO_LONG:
        status, code = 400, EXCEEDED
    code = code or ("unsupported" if failure is UNSUITED else "invalid_request")
    message = error.message or f"the upstream server answered {status}"
    return ApiError(status, code, message, param=error.param, type_=error.type)


def _quoted(what: str, error: Error) -> str:
    """A server's action, quoting its message. An error that only its operator can fix may name what
    is none of the client's business."""
    if not error.words or of_server(stated_status(error), error) is MISCONFIGURED:
        return what
    return f"{what}: {error.words}"


def _upstream_failed(why: str, hint_s: float | None = None) -> ApiError:
    return ApiError(
        502, "upstream_failed", f"the upstream server failed: {why}", retry_after_s=hint_s
    )


def _upstream_refused(what: str, hint_s: float | None = None) -> ApiError:
    return ApiError(502, "upstream_refused", f"the upstream server {what}", retry_after_s=hint_s)
