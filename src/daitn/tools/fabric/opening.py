"""Opens a Zenoh session, and explains plainly why it cannot be opened."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import NamedTuple

import zenoh

from daitn.identity.tls import certificate_files
from daitn.objects.errors import DaitnError, InvalidInput, Unreachable
from daitn.tools.fabric.fence import access_control
from daitn.tools.fabric.lingering import NoLinger
from daitn.tools.fabric.presented import PresentedCertificate
from daitn.tools.fabric.settings import FabricSettings

__all__ = ["OpenedSession", "open_session", "plain"]

_CLIENT_TIMEOUT_S = 10.0
_MESSAGE_BOUND_BYTES = 64 * 2**20
"""A peer cannot make us hold more than this for one message. The largest legitimate ones are model
chunks of 1 MiB."""
_SESSIONS_BOUND = 10_000
"""Connections that one process accepts; Zenoh's default of 1,000 is too few for a centre."""
_CONGESTED_S = 10
"""How long a send may wait for room for one batch (64 KiB) before Zenoh closes the link. Its
default of 5 s closes links below 100 kbit/s; a dead link is noticed by its lease (10 s) anyway."""
_PORT_TRIES = 5


class OpenedSession(NamedTuple):
    """A session, and its properties."""

    session: zenoh.Session
    endpoints: tuple[str, ...]
    """Endpoints at which it listens, with the actual ports in place of 0."""
    presented: PresentedCertificate | None
    """`None` means it opens no encrypted links. Close it after the session."""
    no_linger: NoLinger | None = None
    """Hold it as long as the session."""


async def open_session(settings: FabricSettings, connect_timeout_s: float | None) -> OpenedSession:
    """Open a session. See `open_zenoh` for the errors raised."""
    if connect_timeout_s is None and settings.mode == "client":
        connect_timeout_s = _CLIENT_TIMEOUT_S
    opening = asyncio.ensure_future(asyncio.to_thread(_open, settings, connect_timeout_s))
    try:
        opened = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_abandon)
        raise
    return opened._replace(no_linger=NoLinger(opened.session))


def _abandon(opening: asyncio.Future[OpenedSession]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().session.close()  # type: ignore[no-untyped-call]


def _open(settings: FabricSettings, connect_timeout_s: float | None) -> OpenedSession:
    """Blocking. If a port that was free a moment ago is taken, tries another one."""
    tls, presented = _tls(settings.tls if settings.encrypted else "")
    flexible = any(endpoint.endswith(":0") for endpoint in settings.listen)
    for left in reversed(range(_PORT_TRIES if flexible else 1)):
        endpoints = tuple(_with_port(endpoint) for endpoint in settings.listen)
        try:
            config = _config(settings, endpoints, tls, connect_timeout_s)
            return OpenedSession(zenoh.open(config), endpoints, presented)
        except zenoh.ZError as error:
            if left == 0 or "listener" not in str(error):
                raise _explained(plain(error), settings) from None
    raise AssertionError("the last try returns or raises")


def _with_port(endpoint: str) -> str:
    """The endpoint with a free port in place of 0; Zenoh does not report the one it took."""
    protocol, _, address = endpoint.partition("/")
    host, _, port = address.rpartition(":")
    if port != "0":
        return endpoint
    bare = host.strip("[]")
    try:
        family = socket.getaddrinfo(bare, 0, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((bare, 0))
            return f"{protocol}/{host}:{probe.getsockname()[1]}"
    except OSError as error:
        raise _unlistenable((endpoint,), str(error)) from None


def _config(
    settings: FabricSettings,
    listen: tuple[str, ...],
    tls: dict[str, object],
    connect_timeout_s: float | None,
) -> zenoh.Config:
    config = zenoh.Config()
    waits = connect_timeout_s is not None and bool(settings.connect)
    timeout_ms = round(1000 * connect_timeout_s) if connect_timeout_s is not None else -1
    for path, value in {
        "mode": settings.mode,
        "listen/endpoints": listen,
        "connect/endpoints": settings.connect,
        "connect/timeout_ms": timeout_ms,
        "connect/exit_on_failure": waits,
        "connect/retry": {
            "period_init_ms": 100,
            "period_max_ms": 500 if settings.direct else 2000,
            "period_increase_factor": 2,
        },
        **tls,
        **({"access_control": access_control()} if settings.fenced else {}),
        "scouting/multicast/enabled": bool(settings.scout),
        **({"scouting/multicast/address": settings.scout} if settings.scout else {}),
        "scouting/multicast/autoconnect": {"peer": ["peer"]},
        "scouting/gossip/enabled": not settings.direct,
        # Zenoh waits this long for scouted peers before `open` returns.
        "scouting/delay": 0,
        # Segments in /dev/shm would outlive a killed process, and sites share no memory.
        "transport/shared_memory/enabled": False,
        "transport/unicast/max_sessions": _SESSIONS_BOUND,
        "transport/link/rx/max_message_size": _MESSAGE_BOUND_BYTES,
        "transport/link/tx/queue/congestion_control/block/wait_before_close": _CONGESTED_S
        * 1_000_000,
    }.items():
        config.insert_json5(path, json.dumps(value))
    return config


def _tls(folder: str) -> tuple[dict[str, object], PresentedCertificate | None]:
    """Both ends present certificates (mutual TLS), and the client verifies the host's name."""
    if not folder:
        return {}, None
    files = certificate_files(folder)
    presented = PresentedCertificate(files.certificate)
    settings: dict[str, object] = {
        "transport/link/tls": {
            "root_ca_certificate": files.authority,
            "listen_certificate": files.membership,
            "listen_private_key": files.key,
            "connect_certificate": presented.path,
            "connect_private_key": files.key,
            "enable_mtls": True,
            "verify_name_on_connect": True,
        }
    }
    return settings, presented


def plain(error: zenoh.ZError) -> str:
    """Zenoh's message, without the path on its build machine at the end."""
    return str(error).partition(" at /")[0]


def _explained(error: str, settings: FabricSettings) -> DaitnError:
    """Zenoh's error in our words."""
    if "Unable to connect" in error:
        return Unreachable(
            f"cannot reach the control centre at {', '.join(settings.connect)}",
            field="connect",
            fix="check that it is running, that the endpoint is right and that no firewall blocks "
            "it",
        )
    return _unlistenable(settings.listen, error)


def _unlistenable(listen: tuple[str, ...], reason: str) -> InvalidInput:
    return InvalidInput(
        f"cannot listen on {', '.join(listen)}: {reason}",
        field="listen",
        fix="stop the process that uses the port, or listen on another address or port",
    )
