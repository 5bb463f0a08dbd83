"""How a process joins the fabric."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from daitn.objects.errors import InvalidInput

__all__ = ["FabricSettings"]

_GROUP = re.compile(r"(22[4-9]|23\d)(\.\d{1,3}){3}:(\d{1,5})")
_ENDPOINT = re.compile(r"(tcp|tls|quic)/(\[[0-9a-fA-F:.%]+\]|[^\s/:\[\]]+):(\d{1,5})")


class FabricSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Role and endpoints of one session, for instance `tcp/control.example.org:7447`."""

    mode: Literal["router", "peer", "client"] = "peer"
    """A control centre is a router. A site is a peer: it and other sites connect directly.
    Routers do not relay between peers, so one of any two must be able to connect to the other; a
    site that can never accept connections is a client, and all that it says goes through its
    router."""
    listen: tuple[str, ...] = ()
    """Endpoints to accept connections on; port 0 takes a free one."""
    connect: tuple[str, ...] = ()
    """Endpoints to connect to, again and again until they answer."""
    direct: bool = False
    """Whether this peer speaks with those only that it is connected to, knows of nobody else, and
    tells them of nobody else. It tries broken connections again more often."""
    tls: str = ""
    """Folder with `authority.pem`, `certificate.pem` and `key.pem`: with endpoints that begin with
    `tls/` or `quic/`, both ends show certificates of this authority. Empty: there are none."""
    scout: str = ""
    """Multicast group, for instance `224.0.0.225:7448`: peers of a local network that name the same
    one find each other and connect. Empty: none."""

    def __post_init__(self) -> None:
        for endpoint in (*self.listen, *self.connect):
            match = _ENDPOINT.fullmatch(endpoint)
            if match is None or int(match[3]) > 65535:
                raise InvalidInput(
                    f"{endpoint!r} is no endpoint",
                    field="endpoint",
                    fix="write it like tcp/control.example.org:7447",
                )
            if not (self.tls or endpoint.startswith("tcp/")):
                raise InvalidInput(
                    f"there is no certificate for {endpoint!r}",
                    field="tls",
                    fix="name a folder as `daitn certificate` makes them (an operator: DAITN_TLS)",
                )
        for endpoint in self.connect:
            if endpoint.endswith(":0"):
                raise InvalidInput(
                    f"{endpoint!r} has no port to connect to",
                    field="endpoint",
                    fix="name the port at which the other end listens",
                )
        group = _GROUP.fullmatch(self.scout)
        if self.scout and (group is None or int(group[3]) > 65535):
            raise InvalidInput(
                f"{self.scout!r} is no multicast group",
                field="scout",
                fix="write it like 224.0.0.225:7448",
            )
        if self.mode == "client" and (self.listen or not self.connect):
            raise ValueError("a client listens nowhere and connects to at least one endpoint")
        if self.direct and self.mode != "peer":
            raise ValueError("only a peer is direct: routers pass on what is not theirs")
        if self.mode != "client" and not (self.listen or self.connect):
            raise ValueError(f"a {self.mode} needs an endpoint to listen on or to connect to")
