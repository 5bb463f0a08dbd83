"""TLS with the network's own certificates: contexts for servers and clients."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from daitn.identity.certificates import (
    AUTHORITY,
    CERTIFICATE,
    ENTRY,
    KEY,
    MEMBERSHIP,
    check_certificates,
    unusable,
)
from daitn.identity.keys import is_key
from daitn.objects.errors import InvalidInput

__all__ = ["certificate_files", "serving", "trusting", "trusting_members"]


class CertificateFiles(NamedTuple):
    """Paths in a folder of certificates, see `identity/certificates.py`."""

    authority: str
    membership: str
    certificate: str
    key: str


def certificate_files(folder: str) -> CertificateFiles:
    """The paths in `folder`.

    Raises `InvalidInput` if one is missing or damaged.
    """
    names = AUTHORITY, MEMBERSHIP, CERTIFICATE, KEY
    paths = [str(Path(folder, name)) for name in names]
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise InvalidInput(
            f"{missing[0]} is missing",
            field="tls",
            fix="join a network: `daitn network join INVITATION`; or admit this process's file: "
            "`daitn network admit`",
        )
    check_certificates(Path(folder))
    return CertificateFiles(*paths)


def serving(folder: str) -> ssl.SSLContext:
    """Context for an HTTP server that presents the membership's certificate.

    It asks clients for no certificate; they present keys and passes. Raises `InvalidInput` if the
    folder holds no usable certificate.
    """
    files = certificate_files(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.membership, files.key)
    except (ssl.SSLError, OSError) as error:
        raise unusable(Path(files.membership), error) from None
    return context


@functools.cache
def trusting(folder: str, *, own: bool = False) -> ssl.SSLContext:
    """Context for an HTTP client that trusts the public authorities.

    With `folder` it also trusts the network's authority, if there is one in it. `own` is for
    connections to this very process at an address such as 0.0.0.0, for which no certificate can be
    made. Cached, because loading the authorities takes milliseconds. Raises `InvalidInput` if the
    authority's certificate cannot be used.
    """
    context = _trusting(folder)
    context.check_hostname = not own
    return context


def _trusting(folder: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority = Path(folder, AUTHORITY)
    if folder and authority.is_file():
        try:
            context.load_verify_locations(authority)
        except (ssl.SSLError, OSError) as error:
            raise unusable(authority, error) from None
    return context


def trusting_members(folder: str, may_serve: Callable[[str], bool]) -> ssl.SSLContext:
    """Like `trusting`, but among the network's members it trusts only those whose key `may_serve`.

    Anyone else with a certificate of the network for the server's host is refused in the handshake,
    before anything is sent. Servers with certificates of public authorities are not asked for keys.
    """
    context = _trusting(folder)

    class Checked(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            key = _member_key(self.getpeercert())
            if key is not None and not may_serve(key):
                raise ssl.SSLCertVerificationError("its holder may not serve this in the network")

    context.sslobject_class = Checked
    return context


def _member_key(certificate: Mapping[str, Any] | None) -> str | None:
    """The public key of a member's certificate; none for one of a public authority.

    The network's authority issues no other names, and public ones no such names.
    """
    names = (pair for pairs in (certificate or {}).get("subject", ()) for pair in pairs)
    common = (str(value).removeprefix(ENTRY) for field, value in names if field == "commonName")
    return next(filter(is_key, common), None)
