"""The facility's API server: OpenAI's API, for gateways with a pass."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from daitn.node.mandates import SpeaksFor, stated_owner
from daitn.node.openai_http.api import (
    CLOSED_S,
    error_response,
    health_response,
    json_response,
    plain_path,
    read_body,
    wrong_method,
)
from daitn.node.openai_http.tracing import operation, request_attributes
from daitn.node.serving.backends.protocol import Backend
from daitn.node.serving.kept_responses import StoredResponses
from daitn.node.serving.metering import FacilityMeter, Metered
from daitn.node.serving.request import ServingRequest, read_query
from daitn.node.serving.sealed import SEALED_MARK, Unsealer
from daitn.objects.access import allows
from daitn.objects.deployments import DeploymentDescriptor, DeploymentState
from daitn.objects.errors import Refused
from daitn.objects.header_names import PeerHeader
from daitn.objects.identifiers import SiteId
from daitn.objects.usage import Count
from daitn.openai.conversation import MAX_STORED_BYTES, read_stored, site_of
from daitn.openai.errors import ApiError, bad_request, unsupported
from daitn.openai.http import HEALTH, JSON, MODELS, PATHS, READY, RESPONSES
from daitn.openai.responses import model_list
from daitn.tools import clock
from daitn.tools.http import Reply, Request, Response
from daitn.tools.monitoring.log_ids import identified
from daitn.tools.monitoring.tracing import OFF, Span, SpanKind, Tracer
from daitn.tools.throttled import ThrottledLog

__all__ = ["ServingServer"]

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 28
"""Largest request body; gateways allow less."""

Admit = Callable[[str, float], SiteId]
"""The site whose pass is shown: (pass, now) -> site. Raises `Refused`."""


class ServingServer:
    """Handles the requests to one facility."""

    def __init__(
        self,
        admit: Admit,
        backends: Callable[[], Mapping[str, Backend]],
        responses: StoredResponses,
        speaks_for: SpeaksFor = stated_owner,
        unsealer: Unsealer | None = None,
        tracer: Tracer = OFF,
        meter: FacilityMeter | None = None,
    ) -> None:
        """`backends`: the deployments here, by name. `speaks_for`: in whose name a site queries;
        raises `Refused`. `meter`: none means nothing is counted."""
        self._meter = meter
        self._speaks_for = speaks_for
        self._tracer = tracer
        self._unsealer = unsealer
        self._admit = admit
        self._backends = backends
        self._responses = responses
        self.closed: Callable[[DeploymentDescriptor], str] = lambda deployment: ""
        """Why a deployment takes no queries for now; empty if it does."""
        self.draining = False
        """Whether the facility is about to stop. Queries are answered until it has."""
        self._problems = ThrottledLog(log)

    async def handle(self, request: Request) -> Reply:
        """Answer a request. Every error becomes an error body of OpenAI's API."""
        try:
            return await self._handle(request)
        except ApiError as error:
            return error_response(error)
        except ConnectionError:
            raise  # The client disconnected.
        except Exception:
            log.exception("query failed")
            return error_response(
                ApiError(500, "internal_error", "the facility failed; see its log")
            )

    async def _handle(self, request: Request) -> Reply:
        path = plain_path(request)
        if path in (HEALTH, READY):
            return self._health(path == READY)
        site, owner = self._checked_owner(request)
        if path == MODELS:
            return self._models()
        if path.startswith(f"{RESPONSES}/"):
            return await self._kept(request, owner, path.removeprefix(f"{RESPONSES}/"))
        api = PATHS.get(path)
        if api is None:
            raise ApiError(404, "not_found", f"nothing is served at {path}")
        if request.method != "POST":
            raise wrong_method(request, "POST")
        query = read_query(api, await read_body(request, MAX_BODY_BYTES), request.headers)
        backend = self._backends().get(query.model)
        if backend is None:
            raise ApiError(
                404, "model_not_found", f"this facility has no model {query.model}", param="model"
            )
        self._check(backend, owner)
        if self._unsealer is not None and SEALED_MARK in query.body:
            answer = partial(self._answer, request, backend, site, owner)
            return await self._unsealer.answer(query, answer)
        return await self._answer(request, backend, site, owner, query)

    async def _kept(self, request: Request, owner: str, id_: str) -> Response:
        """Store, return or delete a response."""
        if request.method == "PUT":
            body = await read_body(request, MAX_STORED_BYTES)
            if site_of(id_) is None or read_stored(body) is None:
                raise bad_request("is not a response in the stored form", "body")
            await self._responses.put(owner, id_, body)
            return json_response({"id": id_})
        if request.method == "GET":
            return Response(await self._responses.get(owner, id_), headers={"content-type": JSON})
        if request.method == "DELETE":
            await self._responses.delete(owner, id_)
            return json_response({"id": id_})
        raise wrong_method(request, "GET", "PUT", "DELETE")

    async def _answer(
        self,
        request: Request,
        backend: Backend,
        site: SiteId,
        owner: str,
        query: ServingRequest,
    ) -> Reply:
        span = None
        if query.traceparent:
            name = f"{operation(query.api)} {query.model}"
            span = self._tracer.resume(name, SpanKind.SERVER, query.traceparent)
        if span is None:
            with identified(query=query.id):
                return await self._answer_in_turn(request, backend, site, owner, query)
        span.attributes |= request_attributes(query.api, query.model)
        span.attributes["daitn.query.id"] = query.id
        with span, identified(query=query.id, trace_id=f"{span.context.trace_id:032x}"):
            traced = replace(query, traceparent=span.context.traceparent)
            return await self._answer_in_turn(request, backend, site, owner, traced, span)

    async def _answer_in_turn(
        self,
        request: Request,
        backend: Backend,
        site: SiteId,
        owner: str,
        query: ServingRequest,
        span: Span | None = None,
    ) -> Reply:
        api = query.api
        if api not in backend.descriptor.apis:
            raise unsupported(f"{query.model} does not answer {api}", "model")
        queued_s = time.perf_counter()
        admission = backend.admission
        await admission.acquire()
        try:
            waited_s = time.perf_counter() - queued_s
            admission.queue_time.observe(waited_s)
            if span is not None:
                span.attributes["daitn.queue_time_seconds"] = waited_s
            # Another version of the model may have replaced it meanwhile.
            current = self._backends().get(query.model, backend)
            count: Callable[[Count], None] = _uncounted
            if self._meter is not None:
                count = partial(self._meter.answered, site, query.id, owner, current.descriptor)
            metered = Metered(request, count, include_usage=query.include_usage)
            try:
                reply = await current.answer(request, query, waited_s)
            except (asyncio.CancelledError, ConnectionError):
                metered.leave()
                raise
            metered.end(reply)
            return reply
        finally:
            admission.release()

    def _checked_owner(self, request: Request) -> tuple[SiteId, str]:
        """The site of the caller, and the owner in whose name it queries."""
        headers, now_s = request.headers, clock.wall_s()
        try:
            site = self._admit(headers.get(PeerHeader.PASS, ""), now_s)
            return site, self._speaks_for(site, headers, now_s)
        except Refused as error:
            self._problems.warning("pass", "a query was not admitted: %a", error.problem)
            raise ApiError(401, "not_admitted", f"{error.problem}; {error.fix}") from None

    def _check(self, backend: Backend, owner: str) -> None:
        descriptor = backend.descriptor
        if descriptor.state is not DeploymentState.READY:
            message = f"{descriptor.name} is {descriptor.state}"
            raise ApiError(503, "unavailable", message, retry_after_s=1.0)
        if why := self.closed(descriptor):
            raise ApiError(503, "unavailable", why, retry_after_s=CLOSED_S)
        if not allows(descriptor.policy.askers, owner):
            message = f"the owner of {descriptor.name} does not admit {owner or 'unnamed owners'}"
            raise ApiError(403, "not_allowed", message)

    def _health(self, ready: bool) -> Response:
        """Everybody may ask, so it names no deployment."""
        states = [backend.descriptor.state for backend in self._backends().values()]
        problems = []
        if states and set(states) == {DeploymentState.FAILED}:
            problems.append("all deployments have failed")
        elif ready and DeploymentState.READY not in states:
            problems.append("no deployment is ready")
        if ready and self.draining:
            problems.append("the facility is stopping")
        return health_response(problems, {"deployments": Counter(states)})

    def _models(self) -> Response:
        owners = {
            name: backend.descriptor.owner
            for name, backend in sorted(self._backends().items())
            if backend.descriptor.state is DeploymentState.READY
        }
        return json_response(model_list(owners))


def _uncounted(count: Count) -> None:
    """A facility without a meter counts nothing."""
