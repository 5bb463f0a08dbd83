"""Queries one deployment over HTTP, directly or through one other gateway."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import NamedTuple

from daitn.identity.keys import SigningKey
from daitn.identity.passes import sign_pass
from daitn.node.gateway.context import Caller, RequestContext
from daitn.node.gateway.deployment_answer import BOUND, Answer
from daitn.node.gateway.tracing import attempt
from daitn.node.openai_http.answers import IncomingAnswer
from daitn.objects.deployments import Api
from daitn.objects.header_names import PeerHeader
from daitn.objects.identifiers import SiteId
from daitn.openai.answers import AnswerFailed
from daitn.openai.errors import Error, read_error
from daitn.openai.events import AnswerBroken
from daitn.openai.failures import (
    BROKEN,
    CANNOT_REACH,
    FAILED,
    NOT_ADMITTED,
    FailureKind,
    of_facility,
)
from daitn.openai.http import JSON
from daitn.tools import clock
from daitn.tools.http import (
    Address,
    ConnectError,
    HttpClient,
    HttpError,
    ServerTimeout,
    read_address,
)
from daitn.tools.monitoring.tracing import TRACEPARENT
from daitn.tools.throttled import ThrottledLog
from daitn.topology.qrrt.load import GatewayLoad
from daitn.topology.qrrt.snapshot import Qrrt, deployment_id

__all__ = ["AttemptFailed", "Upstream"]

log = logging.getLogger(__name__)

_PATHS = {api: f"/v1{api.path}" for api in Api}
CONNECT_TIMEOUT_S = 3.0
"""Allows a round trip around the world, 0.3 s, with one lost SYN, which is resent after 1 s (RFC
6298)."""
MIN_SILENCE_TIMEOUT_S, SILENCE_FACTOR = 60.0, 10.0
"""A deployment fails if it is silent for longer than both: the minimum, and the expected time times
the factor. A hedge overtakes a merely slow one long before."""
SEND_TIMEOUT_S = 10.0
"""Timeout of a request about a stored response: the disk of its facility may be busy."""
PASS_RENEWAL_S = 30.0
"""A quarter of a pass's lifetime: clocks may differ by the rest."""
_KEEPALIVE_S = 30.0
"""Shorter than servers keep idle connections (uvicorn's 5 s is the exception, and announced)."""
_MAX_ADDRESSES = 10_000
"""Limit on cached endpoints: they come from outside, and facilities move."""


class AttemptFailed(Exception):
    """A deployment did not answer. `site`: the site that was connected to."""

    def __init__(
        self, failure: FailureKind, reason: str, site: SiteId, answer: Answer | None = None
    ) -> None:
        """`answer`: the error that it answered, if it did."""
        super().__init__(reason)
        self.failure = failure
        self.reason = reason
        self.site = site
        self.answer = answer


class _Target(NamedTuple):
    site: SiteId
    endpoint: str
    model: str
    headers: dict[str, str]


class Upstream:
    """Holds connections and passes; `close()` drops them."""

    def __init__(
        self, site: SiteId, key: SigningKey, load: GatewayLoad, tls: str, max_answer_bytes: int
    ) -> None:
        """`tls`: see `HttpClient`."""
        self._site = site
        self._key = key
        self._load = load
        self._max_answer_bytes = max_answer_bytes
        self._passes: dict[SiteId, tuple[str, float]] = {}
        self._addresses: dict[str, Address] = {}
        self._not_admitted = ThrottledLog(log)
        self._client = HttpClient(
            connect_timeout_s=CONNECT_TIMEOUT_S, keepalive_s=_KEEPALIVE_S, tls=tls
        )

    def close(self) -> None:
        self._client.close()

    async def ask(
        self, query: RequestContext, row: int, *, stream: bool, changes: Mapping[str, object]
    ) -> Answer:
        """Query a deployment. Returns a buffered answer, or a stream that has begun; the caller
        closes it. Raises `AttemptFailed`."""
        id_ = query.snapshot.rows[row].id
        self._load.begin(id_)
        span = attempt(query, row)
        traceparent = query.traceparent if span is None else span.context.traceparent
        try:
            answer = await self._ask(query, row, stream, changes, traceparent)
        except BaseException as error:
            self._load.end(id_)
            if span is not None:
                span.end(_error_type(error))
            raise
        if span is not None:
            span.end()
        answer.on_close = lambda: self._load.end(id_)
        if not answer.streams:
            answer.close()
        return answer

    async def _ask(
        self,
        query: RequestContext,
        row: int,
        stream: bool,
        changes: Mapping[str, object],
        traceparent: str,
    ) -> Answer:
        target = self._target(query, row)
        if traceparent:
            target.headers[TRACEPARENT] = traceparent
        asked_s = time.perf_counter()
        try:
            response = await self._client.request(
                "POST",
                self._address(target.endpoint),
                _PATHS[query.parsed.api],
                target.headers,
                query.parsed.body(target.model, changes),
                silence_timeout_s=_silence_timeout_s(query, stream),
            )
        except (HttpError, ValueError) as error:
            raise _connection_failed(error, target.site) from None
        answer = Answer(query, row, response, asked_s, time.perf_counter(), self._max_answer_bytes)
        try:
            await self._check(answer, target, stream)
        except BaseException:
            response.close()
            raise
        return answer

    async def _check(self, answer: Answer, target: _Target, stream: bool) -> None:
        """Accept a valid answer; raise `AttemptFailed` for anything else."""
        try:
            if answer.status == 200:
                await answer.read(stream=stream)
                return
            await answer.read_error()
        except AnswerFailed as failed:
            raise AttemptFailed(FAILED, failed.reason, target.site) from None
        except AnswerBroken as broken:
            raise AttemptFailed(BROKEN, broken.reason, target.site) from None
        error = read_error(answer.body) or Error()
        failure = of_facility(answer.status, error, answer.retry_after_s)
        if failure.asks_other:
            code = error.code or ""
            reason = f"it answered {answer.status} {code} {error.message[:300]}".strip()
            if failure is NOT_ADMITTED:
                self._not_admitted.warning(target.site, "%s: %s", target.site, reason)
            raise AttemptFailed(failure, reason, target.site, answer)

    def _target(self, query: RequestContext, row: int) -> _Target:
        deployment, relay = query.snapshot.rows[row], query.relay(row)
        node = None if relay is None else query.snapshot.nodes.get(relay)
        caller = query.caller
        headers = {
            PeerHeader.QUERY: caller.query or query.id,
            PeerHeader.ASKED_AT: caller.asked_at or str(int(query.asked_at_s)),
        }
        if relay is not None and node is not None and node.gateway is not None:
            headers |= self._headers(caller, deployment.site, relay)
            model = deployment_id(deployment.name, deployment.site)
            return _Target(relay, node.gateway.endpoint, model, headers)
        headers |= self._headers(caller, deployment.site, None)
        return _Target(deployment.site, deployment.facility.endpoint, deployment.name, headers)

    def _headers(self, caller: Caller, site: SiteId, relay: SiteId | None) -> dict[str, str]:
        """Headers with the caller and the owner in whose name a facility is queried."""
        headers = {"content-type": JSON, PeerHeader.OWNER: caller.owner}
        if caller.mandate:
            headers[PeerHeader.MANDATE] = caller.mandate
        if relay is not None:
            headers[PeerHeader.PASS] = self._pass(relay)
            headers[PeerHeader.RELAYED] = self._site
            headers[PeerHeader.ORIGIN_PASS] = self._pass(site)
            return headers
        headers[PeerHeader.PASS] = self._pass(site)
        if caller.origin_pass:
            headers[PeerHeader.ORIGIN_PASS] = caller.origin_pass
        return headers

    async def send(
        self,
        caller: Caller,
        snapshot: Qrrt,
        site: SiteId,
        relay: SiteId | None,
        method: str,
        path: str,
        body: bytes,
    ) -> tuple[int, bytes]:
        """Send a request that is not a query to a facility, or to a gateway that relays it: status
        and body. Raises `AttemptFailed`."""
        peer = site if relay is None else relay
        node = snapshot.nodes.get(peer)
        part = None if node is None else node.facility if relay is None else node.gateway
        if part is None:
            raise AttemptFailed(CANNOT_REACH, "it is not in the network now", peer)
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                response = await self._client.request(
                    method,
                    self._address(part.endpoint),
                    path,
                    self._headers(caller, site, relay),
                    body,
                    silence_timeout_s=SEND_TIMEOUT_S,
                )
                incoming = IncomingAnswer(response, self._max_answer_bytes, BOUND)
                try:
                    return response.status, await incoming.read_start(self._max_answer_bytes)
                finally:
                    response.close()
        except (HttpError, ValueError) as error:
            raise _connection_failed(error, peer) from None
        except AnswerBroken as broken:
            raise AttemptFailed(BROKEN, broken.reason, peer) from None
        except TimeoutError:
            raise AttemptFailed(BROKEN, "it was silent for too long", peer) from None

    def _pass(self, audience: SiteId) -> str:
        now_s = clock.wall_s()
        token, until_s = self._passes.get(audience, ("", 0.0))
        # If the clock was set back, a pass would be valid too long for its verifiers.
        if not now_s < until_s <= now_s + PASS_RENEWAL_S:
            token = sign_pass(self._site, audience, now_s, self._key)
            self._passes[audience] = token, now_s + PASS_RENEWAL_S
        return token

    def _address(self, endpoint: str) -> Address:
        """Raises `ValueError`."""
        address = self._addresses.get(endpoint)
        if address is None:
            if len(self._addresses) >= _MAX_ADDRESSES:
                self._addresses.clear()
            address = self._addresses[endpoint] = read_address(endpoint)
        return address


def _error_type(error: BaseException) -> str:
    return error.failure.name if isinstance(error, AttemptFailed) else type(error).__name__


def _silence_timeout_s(query: RequestContext, stream: bool) -> float:
    plan = query.plan
    expected_s = plan.expected_first_token_s if stream else plan.expected_seconds
    return max(MIN_SILENCE_TIMEOUT_S, SILENCE_FACTOR * expected_s)


def _connection_failed(error: Exception, site: SiteId) -> AttemptFailed:
    if isinstance(error, ConnectError):
        if error.refused:
            # The machine is up but nothing listens: no other path would help.
            return AttemptFailed(BROKEN, "the connection was refused", site)
        return AttemptFailed(CANNOT_REACH, "it cannot be reached", site)
    if isinstance(error, ServerTimeout):
        return AttemptFailed(BROKEN, "it was silent for too long", site)
    return AttemptFailed(BROKEN, f"the connection broke: {error}", site)
