"""Keeps a process's links to members of the network.

TLS asks for a certificate of the network's authority; here the key that it names is looked up in
the roster, when a link is made and every second from then on. Zenoh can neither refuse a link by
its certificate nor close a single one (measured with 1.10), so the link's socket is shut down: then
both ends take it for broken. Measured: 0.6 ms until it is gone.

A refused process reconnects after growing pauses (`refused_links.py`); once its own roster lacks
it, it waits until it is listed again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import stat
import time
from collections.abc import Callable
from typing import Final

import zenoh

from daitn.identity.certificates import ENTRY
from daitn.objects.addresses import is_encrypted
from daitn.tools.fabric.delivery import call_on
from daitn.tools.fabric.opening import OpenedSession
from daitn.tools.fabric.refused_links import Reconnection
from daitn.tools.tasks import Tasks
from daitn.tools.throttled import ThrottledLog

__all__ = ["LinkGuard"]

_LOG = logging.getLogger(__name__)

_CHECK_S: Final = 1.0
_ENTRY_S: Final = 60.0
"""How long a control centre keeps a link to a peer that has not requested a certificate yet."""
_DESCRIPTORS: Final = "/dev/fd"
_REFUSED: Final = (
    "%s refuses links with this process: its key may be revoked or replaced. It tries again after "
    "longer and longer pauses, of a minute at most"
)
_NO_MEMBER: Final = (
    "%s refuses links with this process, which is no longer a member: it waits until the roster "
    "has its key again; ask the network's operator for an invitation"
)

_End = tuple[str, int]
"""IP address and port."""


class LinkGuard:
    """Ends encrypted links to non-members, and opens none while all refuse them."""

    def __init__(
        self,
        opened: OpenedSession,
        listed: Callable[[str], bool],
        *,
        own: str = "",
        brief: bool = False,
    ) -> None:
        """`listed`: whether the roster has a key; `own`: this process's key, if it has one;
        `brief`: whether peers without a control centre's certificate are kept for only a minute."""
        self._info = opened.session.info
        self._presented = opened.presented
        self._ended = ThrottledLog(_LOG)
        self._ports = {endpoint.rpartition(":")[2] for endpoint in opened.endpoints}
        self._listed = listed
        self._own = own
        self._brief = brief
        self._reconnection = Reconnection()
        self._made_at_s: dict[tuple[str, str], float] = {}
        """When this process opened its current links."""
        self._complaint = ""
        """Reason for waiting, as logged."""
        self._refuser = ""
        """Endpoint that last closed a link."""
        self._met: set[str] = set()
        """Keys of the peers to which this process connected while the roster had them."""
        self._since_s: dict[tuple[str, str], float] = {}
        """Start of links with peers that have no certificate yet."""
        loop = asyncio.get_running_loop()
        self._events = self._info.declare_link_events_listener(
            lambda event: call_on(loop, lambda: self._happened(event))
        )
        self._tasks = Tasks()
        self._tasks.repeat(self._check_all, "links")

    async def close(self) -> None:
        """Stop guarding."""
        await self._tasks.close()
        self._events.undeclare()  # type: ignore[no-untyped-call]

    def renew(self) -> None:
        """End the links that this process opened; it reopens them with its new certificate."""
        for link in self._info.links():
            if is_encrypted(link.src) and not self._is_accepted(link):
                self._made_at_s.pop((link.src, link.dst), None)
                _end(link)

    def _happened(self, event: zenoh.LinkEvent) -> None:
        link, now_s = event.link, time.monotonic()
        ends = link.src, link.dst
        if event.kind == zenoh.SampleKind.PUT:
            if is_encrypted(link.src) and not self._is_accepted(link):
                self._made_at_s[ends] = now_s
            self._check(link)
            return
        self._since_s.pop(ends, None)
        made_at_s = self._made_at_s.pop(ends, None)
        if made_at_s is not None:
            self._refuser = link.dst
            self._reconnection.closed(now_s - made_at_s, now_s)
            self._connect_or_wait()

    async def _check_all(self) -> None:
        for link in self._info.links():
            self._check(link)
        now_s = time.monotonic()
        for made_at_s in self._made_at_s.values():
            self._reconnection.holds(made_at_s, now_s)
        self._connect_or_wait()
        await asyncio.sleep(_CHECK_S)

    def _connect_or_wait(self) -> None:
        """Let the session open links, or let it wait; logs once why it waits."""
        if self._presented is None:
            return
        refused = self._reconnection.refused
        final = refused and bool(self._own) and not self._listed(self._own)
        why = _NO_MEMBER if final else _REFUSED if refused else ""
        if why and why != self._complaint:
            _LOG.warning(why, self._refuser)
        self._complaint = why
        if final or not self._reconnection.may_connect(time.monotonic()):
            self._presented.withhold()
        else:
            self._presented.present()

    def _check(self, link: zenoh.Link) -> None:
        if not is_encrypted(link.src):
            return
        name = link.auth_identifier or ""
        key = name.removeprefix(ENTRY)
        if not self._is_accepted(link):
            # A peer with an old roster may not know the control centre that has a newer one.
            if self._listed(key):
                self._met.add(key)
            elif key in self._met:
                self._refuse(link, "is no longer a member")
        elif not self._listed(key):
            self._refuse(link, "is not a member")
        elif self._brief and name != key:
            since_s = self._since_s.setdefault((link.src, link.dst), time.monotonic())
            if time.monotonic() - since_s > _ENTRY_S:
                self._refuse(link, "asked for no certificate")

    def _is_accepted(self, link: zenoh.Link) -> bool:
        return link.src.rpartition(":")[2] in self._ports

    def _refuse(self, link: zenoh.Link, why: str) -> None:
        self._made_at_s.pop((link.src, link.dst), None)
        if _end(link):
            self._ended.warning(
                f"{why} {link.auth_identifier}",
                "the link with %s ends: its certificate's holder %s",
                link.dst,
                why,
            )


def _end(link: zenoh.Link) -> bool:
    """Shut a link's socket down. Returns whether it was there."""
    try:
        ends = _read(link.src), _read(link.dst)
    except ValueError:
        return False
    for name in os.listdir(_DESCRIPTORS):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as found:
                if found.type == socket.SOCK_STREAM and _ends(found) == ends:
                    found.shutdown(socket.SHUT_RDWR)
                    return True
        except OSError:  # It was closed meanwhile, or is not a connection.
            continue
    return False


def _ends(connection: socket.socket) -> tuple[_End, ...]:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return ()
    return tuple(
        (_address(end[0]), end[1]) for end in (connection.getsockname(), connection.getpeername())
    )


def _read(endpoint: str) -> _End:
    """Parse `tls/127.0.0.1:7447` or `tls/[::1]:7447`."""
    host, _, port = endpoint.partition("/")[2].rpartition(":")
    return _address(host.strip("[]")), int(port)


def _address(text: str) -> str:
    """Raises `ValueError` for an invalid IP address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
