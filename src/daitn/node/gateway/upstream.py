"""Asking one deployment over HTTP, directly or through one other gateway."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from daitn.control.queries.attempts import Cause
from daitn.identity.keys import SigningKey
from daitn.identity.passes import sign_pass
from daitn.node.gateway.answer import Answer
from daitn.node.gateway.context import RequestContext
from daitn.node.http import (
    Address,
    FellSilent,
    HttpClient,
    HttpFailed,
    NotReached,
    read_address,
)
from daitn.objects.deployments import Api
from daitn.objects.identifiers import SiteId
from daitn.openai.errors import OURS, UPSTREAM_REFUSED, Error, read_error
from daitn.openai.events import AnswerBroken
from daitn.openai.http import JSON
from daitn.openai.responses import NotJson, read_usage
from daitn.tools import clock
from daitn.topology.qrrt.load import GatewayLoad
from daitn.topology.qrrt.snapshot import deployment_id

__all__ = ["AttemptFailed", "Upstream"]

_PATHS = {api: f"/v1{api.path}" for api in Api}
CONNECT_TIMEOUT_S = 3.0
"""Around the world and back in 0.3 s, with one lost SYN, which is sent again after 1 s (RFC 6298).
"""
SILENT_LEAST_S, SILENT_TIMES = 60.0, 10.0
"""A deployment that has been silent for so long, and for so many times the expected time, has
failed; one that is only slow was overtaken by a hedge long before."""
PASS_RENEWED_S = 30.0
"""A quarter of a pass's life: two clocks may differ by the rest."""
_MOST_ERROR_BYTES = 1 << 16
_KEPT_ALIVE_S = 30.0
"""Shorter than servers keep idle connections (uvicorn 5 s is the exception: it then says so)."""
_MOST_ADDRESSES = 10_000
"""Endpoints come from outside, and facilities move."""


class AttemptFailed(Exception):
    """A deployment did not answer. `towards`: the site that was connected to."""

    def __init__(
        self, cause: Cause, reason: str, towards: SiteId, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.cause = cause
        self.reason = reason
        self.towards = towards
        self.retry_after_s = retry_after_s


class _Way(NamedTuple):
    towards: SiteId
    endpoint: str
    model: str
    headers: dict[str, str]


class Upstream:
    """Keeps connections and passes; `close()` drops them."""

    def __init__(self, site: SiteId, key: SigningKey, load: GatewayLoad, tls: str) -> None:
        """`tls`: see `HttpClient`."""
        self._site = site
        self._key = key
        self._load = load
        self._passes: dict[SiteId, tuple[str, float]] = {}
        self._addresses: dict[str, Address] = {}
        self._client = HttpClient(connect_within_s=CONNECT_TIMEOUT_S, keep_s=_KEPT_ALIVE_S, tls=tls)

    def close(self) -> None:
        self._client.close()

    async def ask(
        self, query: RequestContext, row: int, *, stream: bool, changes: Mapping[str, object]
    ) -> Answer:
        """Ask a deployment; the answer is there whole, or its stream has begun.

        Whoever gets it closes it. Raises `AttemptFailed`.
        """
        id_ = query.snapshot.rows[row].id
        self._load.begin(id_)
        try:
            answer = await self._ask(query, row, stream, changes)
        except BaseException:
            self._load.end(id_)
            raise
        answer.on_close = lambda: self._load.end(id_)
        if not answer.streams:
            answer.close()
        return answer

    async def _ask(
        self, query: RequestContext, row: int, stream: bool, changes: Mapping[str, object]
    ) -> Answer:
        way = self._way(query, row)
        asked_s = time.perf_counter()
        try:
            response = await self._client.ask(
                "POST",
                self._address(way.endpoint),
                _PATHS[query.parsed.api],
                way.headers,
                query.parsed.body(way.model, changes),
                silent_s=_silent_s(query, stream),
            )
        except (HttpFailed, ValueError) as error:
            raise _no_answer(error, way.towards) from None
        answer = Answer(query, row, response, asked_s, time.perf_counter())
        try:
            await self._judge(answer, way, stream)
        except BaseException:
            response.close()
            raise
        return answer

    async def _judge(self, answer: Answer, way: _Way, stream: bool) -> None:
        """Keep what is an answer; raise `AttemptFailed` for everything else."""
        answer.streams = stream and answer.status == 200 and answer.is_events
        try:
            if answer.status == 200:
                if answer.streams:
                    await answer.read_first()
                    return
                await answer.read_whole()
                answer.usage = read_usage(answer.body)
                return
            await answer.read_whole(_MOST_ERROR_BYTES)
        except AnswerBroken as broken:
            raise AttemptFailed(Cause.FAILED, broken.reason, way.towards) from None
        except NotJson:
            raise AttemptFailed(Cause.FAILED, "what it answers is no JSON", way.towards) from None
        if answer.status not in OURS:
            raise _said_no(answer, way.towards)

    def _way(self, query: RequestContext, row: int) -> _Way:
        deployed, relay = query.snapshot.rows[row], query.relay(row)
        node = None if relay is None else query.snapshot.nodes.get(relay)
        caller = query.caller
        headers = {
            "content-type": JSON,
            "daitn-query": caller.query or query.id,
            "daitn-asked-at": caller.asked_at or str(int(query.asked_at_s)),
            "daitn-owner": query.intent.owner,
        }
        if relay is not None and node is not None and node.gateway is not None:
            headers["daitn-pass"] = self._pass(relay)
            headers["daitn-path"] = self._site
            model = deployment_id(deployed.name, deployed.site)
            return _Way(relay, node.gateway.endpoint, model, headers)
        headers["daitn-pass"] = self._pass(deployed.site)
        return _Way(deployed.site, deployed.facility.endpoint, deployed.name, headers)

    def _pass(self, audience: SiteId) -> str:
        now_s = clock.wall_s()
        shown, until_s = self._passes.get(audience, ("", 0.0))
        # A clock that was set back would make it last too long for those who check it.
        if not now_s < until_s <= now_s + PASS_RENEWED_S:
            shown = sign_pass(self._site, audience, now_s, self._key)
            self._passes[audience] = shown, now_s + PASS_RENEWED_S
        return shown

    def _address(self, endpoint: str) -> Address:
        """Raises `ValueError`."""
        address = self._addresses.get(endpoint)
        if address is None:
            if len(self._addresses) >= _MOST_ADDRESSES:
                self._addresses.clear()
            address = self._addresses[endpoint] = read_address(endpoint)
        return address


def _silent_s(query: RequestContext, stream: bool) -> float:
    plan = query.plan
    expected_s = plan.expected_first_token_s if stream else plan.expected_seconds
    return max(SILENT_LEAST_S, SILENT_TIMES * expected_s)


def _no_answer(error: Exception, towards: SiteId) -> AttemptFailed:
    if isinstance(error, NotReached):
        if error.refused:
            # The machine is there and says that nobody listens: no other path would help.
            return AttemptFailed(Cause.FAILED, "nobody listens there", towards)
        return AttemptFailed(Cause.UNREACHABLE, "it cannot be reached", towards)
    if isinstance(error, FellSilent):
        return AttemptFailed(Cause.FAILED, "it was silent for too long", towards)
    return AttemptFailed(Cause.FAILED, f"the connection broke: {error}", towards)


def _said_no(answer: Answer, towards: SiteId) -> AttemptFailed:
    said = read_error(answer.body) or Error()
    reason = f"it said {answer.status} {said.code or ''} {said.message[:200]}".strip()
    cause = Cause.FAILED
    if answer.status == 429 or said.code == "overloaded":
        cause = Cause.FULL
    elif said.code == UPSTREAM_REFUSED:
        cause = Cause.REFUSED
    return AttemptFailed(cause, reason, towards, answer.retry_after_s)
