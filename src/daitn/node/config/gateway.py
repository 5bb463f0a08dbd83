"""A gateway in the node file."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.grants import UseLimits

__all__ = ["GatewayConfig", "KeyConfig"]

_ORIGIN = r"^(\*|null|[a-z][a-z0-9+.-]*://[^/?#@\s]+)$"


class KeyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that a gateway gives out for its own owner; other owners make tokens."""

    owner: str
    """The site's owner. In a network without a roster: any owner."""
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the API key, so that the file holds no secret: `printf %s KEY | sha256sum`."""
    per_s: Annotated[float, msgspec.Meta(gt=0.0)] = 100.0
    """Queries per second, on average."""
    burst: Annotated[int, msgspec.Meta(ge=1)] = 200
    """Queries in a burst."""
    limits: UseLimits = UseLimits()
    """What it may use here, see below."""


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry point for queries."""

    listen: str = "127.0.0.1:7480"
    """`host:port` for OpenAI's API; port 0 picks a free one. `https://host:port` uses the
    site's certificate."""
    advertise: str = ""
    """URL that clients and other gateways use, for instance `https://ai.example.org`; empty: the
    address of `listen`, which is then one that others can connect to, not `0.0.0.0`."""
    needs_token: bool = False
    """Whether a query must show an owner's token, or a key of `keys`. If not, and without `keys`,
    everybody who reaches the gateway asks in the name of the site's owner."""
    keys: tuple[KeyConfig, ...] = ()
    """Keys that this file gives out, see below; with any of them, no query goes without a key or
    token."""
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1024, le=2**28)] = 2**22
    """Largest request body."""
    max_answer_bytes: Annotated[int, msgspec.Meta(ge=1024, le=2**30)] = 2**26
    """Largest answer, whole or all events of a stream together; a longer one breaks off."""
    states_every_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400.0)] = 60.0
    """How often it states to the control centre what was asked and answered. It counts on while it
    reaches none."""
    autonomous: bool = False
    """Default for queries that do not set `autonomous`: whether they find their own way as packets.
    Needs the role `forwarder`."""
    max_in_flight: Annotated[int, msgspec.Meta(ge=1)] = 2000
    """Queries in progress; more are rejected."""
    origins: tuple[Annotated[str, msgspec.Meta(pattern=_ORIGIN)], ...] = ()
    """Web pages whose scripts may ask (CORS), by their origin, for instance
    `https://app.example.org`; `*`: all. Without `needs_token` or `keys` such a page asks in the
    name of the site's owner from every browser that reaches the gateway."""
