"""The door for queries: OpenAI's API, for gateways that show a pass."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from daitn.node.http import Reply, Request, Response
from daitn.node.http.api import json_response, read_body, refused
from daitn.node.serving.backends.protocol import Backend
from daitn.node.serving.request import read_query
from daitn.objects.access import allows
from daitn.objects.deployments import DeploymentState
from daitn.objects.errors import Refused
from daitn.objects.identifiers import SiteId
from daitn.openai.errors import ApiError
from daitn.openai.http import PATHS
from daitn.openai.responses import model_list
from daitn.tools import clock

__all__ = ["ServingServer"]

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 28
"""Of a request; gateways allow less."""

Admit = Callable[[str, float], SiteId]
"""Whose pass is shown; raises `Refused`. (pass, now) -> site."""


class ServingServer:
    """Handles the requests of one facility."""

    def __init__(self, admit: Admit, names: Callable[[], Mapping[str, Backend]]) -> None:
        """`names`: what answers here, by name."""
        self._admit = admit
        self._names = names

    async def handle(self, request: Request) -> Reply:
        """Answer a request; whatever goes wrong is told in an OpenAI-style error body."""
        try:
            return await self._handle(request)
        except ApiError as error:
            return refused(error)
        except ConnectionError:
            raise  # Who asked has gone.
        except Exception:
            log.exception("a query failed")
            return refused(ApiError(500, "internal_error", "the facility failed; see its log"))

    async def _handle(self, request: Request) -> Reply:
        path = request.path
        if path == "/healthz":
            return Response(b"ok", headers={"content-type": "text/plain"})
        self._check_pass(request)
        if path == "/v1/models":
            return self._models()
        api = PATHS.get(path)
        if api is None:
            raise ApiError(404, "not_found", f"there is nothing at {path}")
        if request.method != "POST":
            raise ApiError(405, "method_not_allowed", f"{path} is for POST")
        query = read_query(api, await read_body(request, MOST_BYTES), request.headers)
        served = self._names().get(query.model)
        if served is None:
            raise ApiError(404, "model_not_found", f"no model {query.model} is here", param="model")
        self._check(served, query.owner)
        if api not in served.descriptor.apis:
            raise ApiError(400, "invalid_request", f"{query.model} does not answer {api}")
        asked_s = time.perf_counter()
        await served.admission.enter()
        try:
            waited_s = time.perf_counter() - asked_s
            # Another version of the model may have taken its place meanwhile.
            now = self._names().get(query.model, served)
            return await now.answer(request, query, waited_s)
        finally:
            served.admission.leave()

    def _check_pass(self, request: Request) -> None:
        try:
            self._admit(request.headers.get("daitn-pass", ""), clock.wall_s())
        except Refused as error:
            raise ApiError(401, "not_admitted", f"{error.problem}; {error.fix}") from None

    def _check(self, served: Backend, owner: str) -> None:
        descriptor = served.descriptor
        if descriptor.state is not DeploymentState.READY:
            message = f"{descriptor.name} is {descriptor.state}"
            raise ApiError(503, "unavailable", message, retry_after_s=1.0)
        if not allows(descriptor.policy.askers, owner):
            message = f"the owner of {descriptor.name} does not let {owner or 'strangers'} ask it"
            raise ApiError(403, "not_allowed", message)

    def _models(self) -> Response:
        owners = {
            name: served.descriptor.owner
            for name, served in sorted(self._names().items())
            if served.descriptor.state is DeploymentState.READY
        }
        return json_response(model_list(owners))
