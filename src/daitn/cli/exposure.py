"""Whether a process may be reached, and reach others, as its file says."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from daitn.center.config import CenterConfig
from daitn.node.config import NodeConfig
from daitn.objects.addresses import (
    check_endpoint,
    host_of,
    is_encrypted,
    is_loopback,
    is_unspecified,
)
from daitn.objects.errors import InvalidInput

__all__ = [
    "LOCAL_HOSTS",
    "check_alone",
    "check_encrypted",
    "reached_at",
    "warn_unreachable",
]

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")

log = logging.getLogger(__name__)


def check_alone(config: CenterConfig | NodeConfig) -> None:
    """Raise `InvalidInput` if a process without a roster has one, or listens to other machines."""
    if config.roster:
        raise InvalidInput(
            "a process has a roster, or is insecure",
            field="insecure",
            fix="remove one of roster and insecure",
        )
    for field, address in (*config.listen_addresses, *_scouts(config)):
        if not is_loopback(host_of(address)):
            raise InvalidInput(
                f"without a roster, a process may not be reached from outside at {address}",
                field=field,
                fix="listen at 127.0.0.1; or remove insecure, and make a roster: `daitn network "
                "init FOLDER --name NAME`, then `daitn network admit` this file",
            )


def check_encrypted(config: CenterConfig | NodeConfig) -> None:
    """Raise `InvalidInput` for an address of another machine that is not encrypted.

    An upstream server's is its facility's affair: the log warns of a key that travels in the open.
    """
    for field, address in (*config.listen_addresses, *_connects(config)):
        check_endpoint(field, address)
    facility = config.facility if isinstance(config, NodeConfig) else None
    for upstream in facility.upstreams if facility else ():
        safe = is_encrypted(upstream.url) or is_loopback(host_of(upstream.url))
        if upstream.key_env and not safe:
            log.warning("the key of %s travels unencrypted to its server", upstream.name)


def warn_unreachable(config: NodeConfig) -> None:
    """Log the servers of a node that only its own machine can reach although its network is
    larger."""
    fabric = (*config.listen, *config.center)
    if all(is_loopback(host_of(endpoint)) for endpoint in fabric):
        return
    for name, part in (("facility", config.facility), ("gateway", config.gateway)):
        if part is not None and is_loopback(host_of(address := part.advertise or part.listen)):
            log.warning(
                "only this machine reaches the %s at %s: for others, set %s.listen, or "
                "%s.advertise where it is reached at another address",
                name,
                address,
                name,
                name,
            )


def reached_at(config: CenterConfig | NodeConfig) -> tuple[str, ...]:
    """The hosts at which others reach a process, as far as its file names them."""
    addresses = [address for _, address in config.listen_addresses]
    parts = (config.facility, config.gateway) if isinstance(config, NodeConfig) else (config.api,)
    addresses += [part.advertise for part in parts if part and part.advertise]
    return tuple(host for host in map(host_of, addresses) if not is_unspecified(host))


def _scouts(config: CenterConfig | NodeConfig) -> Iterable[tuple[str, str]]:
    if isinstance(config, NodeConfig) and config.forwarder and config.forwarder.scout:
        yield "forwarder.scout", config.forwarder.scout


def _connects(config: CenterConfig | NodeConfig) -> Iterable[tuple[str, str]]:
    """Addresses to which it connects, and that it publishes."""
    if config.traces.endpoint:
        yield "traces.endpoint", config.traces.endpoint
    if isinstance(config, CenterConfig):
        yield from (("root", endpoint) for endpoint in config.root)
        if config.api.advertise:
            yield "api.advertise", config.api.advertise
        return
    yield from (("center", endpoint) for endpoint in config.center)
    if config.facility is not None and config.facility.advertise:
        yield "facility.advertise", config.facility.advertise
    if config.gateway is not None and config.gateway.advertise:
        yield "gateway.advertise", config.gateway.advertise
    if config.forwarder is not None:
        for site, endpoints in config.forwarder.neighbours.items():
            yield from ((f"forwarder.neighbours.{site}", endpoint) for endpoint in endpoints)
