"""Settings of a process's session on the fabric."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from daitn.objects.errors import InvalidInput

__all__ = ["FabricSettings", "check_endpoints"]

_GROUP = re.compile(r"(22[4-9]|23\d)(\.\d{1,3}){3}:(\d{1,5})")
_ENDPOINT = re.compile(r"(tcp|tls)/(\[[0-9a-fA-F:.%]+\]|[^\s/:\[\]]+):(\d{1,5})")


class FabricSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Role and endpoints of one session, for instance `tls/control.example.org:7447`."""

    mode: Literal["router", "peer", "client"] = "peer"
    """A control centre is a router. A site is a peer: it connects directly to other sites. Routers
    do not relay between peers, so of any two peers one must be able to connect to the other; a site
    that can never accept connections is a client, and its router relays everything."""
    listen: tuple[str, ...] = ()
    """Endpoints to accept connections on; port 0 takes a free one."""
    connect: tuple[str, ...] = ()
    """Endpoints to connect to, retried until they answer."""
    direct: bool = False
    """Whether this peer communicates only with the peers it is connected to, without gossip. It
    retries broken connections more often."""
    tls: str = ""
    """Folder as described in `identity/certificates.py`: on endpoints that begin with
    `tls/`, both ends present certificates of the network's authority. Empty means none."""
    fenced: bool = False
    """Whether others may send only sites' messages through this session; see `fence.py`. For a
    control centre."""
    scout: str = ""
    """Multicast group, for instance `224.0.0.225:7448`: peers of a local network with the same
    group find each other and connect. Empty means none."""

    @property
    def encrypted(self) -> bool:
        """Whether any endpoint needs certificates."""
        endpoints = (*self.listen, *self.connect)
        return bool(self.scout) or not all(one.startswith("tcp/") for one in endpoints)

    def __post_init__(self) -> None:
        for endpoint in (*self.listen, *self.connect):
            match = _ENDPOINT.fullmatch(endpoint)
            if match is None or int(match[3]) > 65535:
                raise InvalidInput(
                    f"{endpoint!r} is not an endpoint",
                    field="endpoint",
                    fix="write it like tls/control.example.org:7447",
                )
            if not (self.tls or endpoint.startswith("tcp/")):
                raise InvalidInput(
                    f"there is no certificate for {endpoint!r}",
                    field="tls",
                    fix="join a network; a command finds its folder in DAITN_NETWORK",
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
                f"{self.scout!r} is not a multicast group",
                field="scout",
                fix="write it like 224.0.0.225:7448",
            )
        if self.mode == "client" and (self.listen or not self.connect):
            raise ValueError("a client listens nowhere and connects to at least one endpoint")
        if self.direct and self.mode != "peer":
            raise ValueError("only a peer is direct: routers pass on what is not theirs")
        if self.mode != "client" and not (self.listen or self.connect):
            raise ValueError(f"a {self.mode} needs an endpoint to listen on or to connect to")


def check_endpoints(
    field: str,
    *,
    tls: str,
    listen: tuple[str, ...] = (),
    connect: tuple[str, ...] = (),
    scout: str = "",
) -> None:
    """Check the endpoints in a file, as a session that uses them does. Raises `InvalidInput` with
    the field."""
    anywhere = ("tls/127.0.0.1:0",) if tls else ("tcp/127.0.0.1:0",)
    try:
        FabricSettings(listen=listen or anywhere, connect=connect, scout=scout, tls=tls)
    except InvalidInput as error:
        fix = "write it with tcp/" if error.field == "tls" else error.fix
        raise InvalidInput(error.problem, field=field, fix=fix) from None
