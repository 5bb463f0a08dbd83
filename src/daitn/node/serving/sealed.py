"""Sealed queries: opened here, answered by a deployment, and sealed again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from daitn.identity.sealed import open_query, seal_answer
from daitn.identity.sealing import ReceiverKey
from daitn.node.serving.request import ServingRequest, with_body
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import SiteId
from daitn.openai.errors import ApiError, bad_request
from daitn.openai.http import JSON
from daitn.openai.requests import raw_fields, rewritten
from daitn.openai.responses import NotJson, read_usage
from daitn.tools.http import Reply, Response
from daitn.topology.qrrt.snapshot import deployment_id

__all__ = ["SEALED_MARK", "Unsealer"]

SEALED_MARK: Final = b'"sealed"'
"""Contained in every sealed request; others are not parsed."""


class Unsealer:
    """Opens what is sealed to a site."""

    def __init__(self, site: SiteId, key: ReceiverKey) -> None:
        self._site = site
        self._key = key

    async def answer(
        self, query: ServingRequest, ask: Callable[[ServingRequest], Awaitable[Reply]]
    ) -> Reply:
        """Answer a request, in sealed form if it is sealed.

        Raises `ApiError`. Gateways read errors, so they quote nothing of what was sealed.
        """
        field = raw_fields(query.body).get("sealed")
        if field is None:
            return await ask(query)
        if query.stream:
            raise bad_request("a sealed query is answered in one piece", "stream")
        try:
            text = msgspec.json.decode(field, type=str)
            deployment = deployment_id(query.model, self._site)
            body, reply_to = open_query(text, deployment, self._key)
            whole = {"stream": False} if query.api.writes else {}
            body = rewritten(raw_fields(body), {**whole, "model": query.model})
            opened = with_body(query, body)
        except (DaitnError, ApiError, msgspec.DecodeError):
            raise bad_request("cannot be opened here", "sealed") from None
        try:
            reply = await ask(opened)
        except ApiError as error:
            raise ApiError(
                error.status,
                error.code,
                "the sealed query was refused",
                retry_after_s=error.retry_after_s,
            ) from None
        if not isinstance(reply, Response) or reply.status != 200:
            status = reply.status if isinstance(reply, Response) else 502
            raise ApiError(status, "upstream_refused", "the sealed query was refused")
        try:
            usage = read_usage(reply.body)
        except NotJson:
            raise ApiError(502, "upstream_failed", "the answer is not valid JSON") from None
        counts = None if usage is None else msgspec.to_builtins(usage)
        sealed = seal_answer(reply.body, text, reply_to, counts)
        headers = {**reply.headers, "content-type": JSON}
        return Response(msgspec.json.encode(sealed), headers=headers)
