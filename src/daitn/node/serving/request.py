"""A query as it arrives at the door."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from daitn.objects.deployments import Api
from daitn.openai.requests import read_addressed
from daitn.tools import clock

__all__ = ["ServingRequest", "read_query"]


@dataclass(frozen=True, slots=True)
class ServingRequest:
    """What the door knows of a query before a deployment looks at it."""

    api: Api
    model: str
    stream: bool
    body: bytes
    """As it came."""
    id: str
    """Also of the answer: replicas that are asked the same one answer byte by byte alike."""
    created_s: int
    """Likewise, the answer's `created`."""
    owner: str
    """Who asks, as the gateway says."""


def read_query(api: Api, body: bytes, headers: Mapping[str, str]) -> ServingRequest:
    """Read a request. Raises `ApiError` (400) that names the field that is wrong."""
    fields = read_addressed(body)
    return ServingRequest(
        api=api,
        model=fields.model,
        stream=bool(fields.stream) and api is not Api.EMBEDDINGS,
        body=body,
        id=headers.get("daitn-query", "")[:200],
        created_s=_seconds(headers.get("daitn-asked-at", "")),
        owner=headers.get("daitn-owner", "")[:200],
    )


def _seconds(told: str) -> int:
    try:
        value = float(told)
    except ValueError:
        return int(clock.wall_s())
    return int(value) if math.isfinite(value) and 0 <= value < 2**53 else int(clock.wall_s())
