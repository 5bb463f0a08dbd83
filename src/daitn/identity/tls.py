"""TLS with the network's own certificates: contexts for servers and clients."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

from daitn.identity.certificates import AUTHORITY, CERTIFICATE, KEY
from daitn.objects.errors import InvalidInput

__all__ = ["certificate_files", "serving", "trusting"]


def certificate_files(folder: str) -> tuple[str, str, str]:
    """Paths of the authority's certificate, our certificate and our key.

    Raises `InvalidInput` if one is missing.
    """
    paths = [str(Path(folder, name)) for name in (AUTHORITY, CERTIFICATE, KEY)]
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise InvalidInput(
            f"{missing[0]} is missing",
            field="tls",
            fix="name a folder as `daitn certificate` makes them",
        )
    authority, certificate, key = paths
    return authority, certificate, key


def serving(folder: str) -> ssl.SSLContext:
    """Context for an HTTP server that presents the folder's certificate.

    It asks clients for no certificate; they present keys and passes. Raises `InvalidInput` if the
    folder holds no usable certificate.
    """
    _, certificate, key = certificate_files(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise _unusable(folder, error) from None
    return context


@functools.cache
def trusting(folder: str, *, own: bool = False) -> ssl.SSLContext:
    """Context for an HTTP client that trusts the public authorities.

    With `folder` it also trusts that network's authority. `own` is for connections to this very
    process at an address such as 0.0.0.0, for which no certificate can be made. Cached, because
    loading the authorities takes milliseconds. Raises `InvalidInput` if the folder holds no usable
    certificate.
    """
    context = ssl.create_default_context()
    if folder:
        authority, *_ = certificate_files(folder)
        try:
            context.load_verify_locations(authority)
        except (ssl.SSLError, OSError) as error:
            raise _unusable(folder, error) from None
    context.check_hostname = not own
    return context


def _unusable(folder: str, error: Exception) -> InvalidInput:
    return InvalidInput(
        f"the certificate in {folder} cannot be used: {error}",
        field="tls",
        fix="make a new one with `daitn certificate`, in another folder",
    )
