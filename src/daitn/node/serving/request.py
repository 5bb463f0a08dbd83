"""A query as it reaches the facility."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from daitn.objects.deployments import Api
from daitn.objects.header_names import PeerHeader
from daitn.openai.requests import ModelFields, read_model_fields, read_ranking
from daitn.tools import clock
from daitn.tools.monitoring.tracing import TRACEPARENT, passed_on

__all__ = ["ServingRequest", "read_query", "with_body"]


@dataclass(frozen=True, slots=True)
class ServingRequest:
    """The parts of a query that the API server reads before a deployment does."""

    api: Api
    model: str
    stream: bool
    choices: int
    """Minimum number of choices in the answer; for a ranking, the number of documents it can
    name."""
    body: bytes
    """The request, byte for byte."""
    id: str
    """Becomes the answer's `id`, so that replicas answer the same query identically, byte for
    byte."""
    created_s: int
    """Becomes the answer's `created`, for the same reason."""
    include_usage: bool = True
    """Whether the gateway wants a stream to end with its token counts."""
    traceparent: str = ""
    """W3C Trace Context; empty if there is none."""


def read_query(api: Api, body: bytes, headers: Mapping[str, str]) -> ServingRequest:
    """Read a request. Raises `ApiError` (400) with the field at fault."""
    fields = _fields(api, body)
    return ServingRequest(
        api=api,
        model=fields.model,
        stream=bool(fields.stream) and api.writes,
        choices=fields.choices,
        body=body,
        id=headers.get(PeerHeader.QUERY, "")[:200],
        created_s=_created_s(headers.get(PeerHeader.ASKED_AT, "")),
        include_usage=fields.include_usage,
        traceparent=passed_on(headers.get(TRACEPARENT)),
    )


def with_body(query: ServingRequest, body: bytes) -> ServingRequest:
    """The query with another request, to be answered in one piece. Raises `ApiError` (400)."""
    return replace(query, body=body, stream=False, choices=_fields(query.api, body).choices)


def _fields(api: Api, body: bytes) -> ModelFields:
    return read_ranking(body) if api is Api.RERANK else read_model_fields(body)


def _created_s(header: str) -> int:
    try:
        value = float(header)
    except ValueError:
        return int(clock.wall_s())
    return int(value) if math.isfinite(value) and 0 <= value < 2**53 else int(clock.wall_s())
