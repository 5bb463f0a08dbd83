"""Hosts and endpoints as people write them: `127.0.0.1`, `tls/[::1]:7447`, `https://ai.example.org`."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from daitn.objects.errors import InvalidInput

__all__ = [
    "check_endpoint",
    "check_reachable",
    "host_of",
    "is_encrypted",
    "is_loopback",
    "is_unspecified",
    "is_url",
    "place_of",
]


def check_endpoint(field: str, address: str) -> None:
    """Raise `InvalidInput` that names `field` if an address is neither encrypted nor local."""
    if is_encrypted(address) or is_loopback(host_of(address)):
        return
    if address.startswith("tcp/"):
        better = f"tls/{address.removeprefix('tcp/')}"
    else:
        better = f"https://{address.removeprefix('http://')}"
    raise InvalidInput(
        f"{address} is not encrypted, and not on this machine",
        field=field,
        fix=f"write {better}, or an address of this machine like 127.0.0.1",
    )


def check_reachable(field: str, endpoint: str) -> None:
    """Raise `InvalidInput` that names `field` if nobody can connect to an endpoint."""
    if is_unspecified(host_of(endpoint)) or endpoint.rpartition(":")[2].strip("0") == "":
        raise InvalidInput(
            f"others cannot connect to {endpoint}",
            field=field,
            fix="name the host and the port at which others reach it",
        )


def host_of(address: str) -> str:
    """Host of `tcp/127.0.0.1:7447`, `http://localhost:7480` or `[::1]:0`; empty if there is
    none."""
    rest = address.partition("://")[2] or address.partition("/")[2] or address
    try:
        return urlsplit(f"//{rest}").hostname or ""
    except ValueError:
        return ""


def place_of(endpoint: str) -> tuple[str, int]:
    """Host and port of an endpoint that was checked before."""
    return host_of(endpoint), int(endpoint.rpartition(":")[2])


def is_encrypted(address: str) -> bool:
    """Whether traffic to an endpoint or URL is encrypted."""
    return address.startswith(("tls/", "https://"))


def is_loopback(host: str) -> bool:
    """Whether a host means the local machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_url(address: str) -> bool:
    """Whether an address is that of an HTTP server, not a Zenoh endpoint."""
    return address.startswith(("http://", "https://"))


def is_unspecified(host: str) -> bool:
    """Whether `host` stands for all addresses of a machine: one can listen there, not connect."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return not host.strip("0.")  # `0` and `0.0` are addresses too, to some.
