"""A query as it arrives at the door."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec

from daitn.node.http.api import bad_request
from daitn.objects.deployments import Api
from daitn.tools import clock

__all__ = ["ServingRequest", "read_query"]

_RAW = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Fields(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    stream: bool | None = None


_FIELDS = msgspec.json.Decoder(_Fields)


@dataclass(frozen=True, slots=True)
class ServingRequest:
    """What the door knows of a query before a deployment looks at it."""

    api: Api
    model: str
    stream: bool
    raw: dict[str, msgspec.Raw]
    """The request, field by field, as it came."""
    body: bytes
    id: str
    """Also of the answer: replicas that are asked the same one answer byte by byte alike."""
    created_s: int
    """Likewise, the answer's `created`."""
    owner: str
    """Who asks, as the gateway says."""


def read_query(api: Api, body: bytes, headers: Mapping[str, str]) -> ServingRequest:
    """Read a request. Raises `ApiError` (400) that names the field that is wrong."""
    try:
        raw = _RAW.decode(body)
        fields = _FIELDS.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        problem, _, path = str(error).partition(" - at `$.")
        raise bad_request(problem, path.rstrip("`") or "body") from None
    return ServingRequest(
        api=api,
        model=fields.model,
        stream=bool(fields.stream) and api is not Api.EMBEDDINGS,
        raw=raw,
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
