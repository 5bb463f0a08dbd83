"""A gateway in the node file."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.default_addresses import GATEWAY
from daitn.objects.grants import UseLimits

__all__ = ["GatewayConfig", "KeyConfig"]

_ORIGIN = r"^(\*|null|[a-z][a-z0-9+.-]*://[^/?#@\s]+)$"


class KeyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that a gateway issues for its own owner; other owners make tokens."""

    owner: str
    """The site's owner. In a network without a roster: any owner."""
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the API key, so that the file holds no secret: `printf %s KEY | sha256sum`."""
    per_s: Annotated[float, msgspec.Meta(gt=0.0)] = 100.0
    """Queries per second, on average."""
    burst: Annotated[int, msgspec.Meta(ge=1)] = 200
    """Queries in a burst."""
    limits: UseLimits = UseLimits()
    """Its limits here, see below."""


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry point for queries."""

    listen: str = GATEWAY
    """`host:port` for OpenAI's API; port 0 picks a free one. `https://host:port` uses the
    site's certificate."""
    advertise: str = ""
    """URL that clients and other gateways use, for instance `https://ai.example.org`; empty means
    the address of `listen`, which must then be one that others can connect to, not `0.0.0.0`."""
    needs_token: bool = False
    """Whether a query needs an owner's token or a key of `keys`. If not, and without `keys`,
    everybody who reaches the gateway acts in the name of the site's owner."""
    keys: tuple[KeyConfig, ...] = ()
    """Keys defined in this file, see below; if there are any, every query needs a key or token."""
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1024, le=2**28)] = 2**22
    """Largest request body."""
    max_answer_bytes: Annotated[int, msgspec.Meta(ge=1024, le=2**30)] = 2**26
    """Largest answer, counting all events of a stream; a longer one is cut off with an error."""
    states_every_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400.0)] = 60.0
    """How often it reports answers to the control centre. While it reaches none, it keeps
    counting."""
    autonomous: bool = False
    """Default for queries that do not set `autonomous`: whether they travel as packets. Needs the
    role `forwarder`."""
    max_in_flight: Annotated[int, msgspec.Meta(ge=1)] = 2000
    """Queries in progress; more are rejected."""
    origins: tuple[Annotated[str, msgspec.Meta(pattern=_ORIGIN)], ...] = ()
    """Origins of web pages whose scripts may send queries (CORS), for instance
    `https://app.example.org`; `*` means all. Without `needs_token` or `keys`, such a page acts in
    the name of the site's owner from every browser that reaches the gateway."""
