"""TLS with certificates of a network's own authority: what servers show, and whom clients trust."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

from daitn.identity.certificates import AUTHORITY, CERTIFICATE, KEY
from daitn.objects.errors import InvalidInput

__all__ = ["certificate_files", "serving", "trusting"]


def certificate_files(folder: str) -> tuple[str, str, str]:
    """Paths of the authority's certificate, of the own one and of its key.

    Raises `InvalidInput` where one is missing.
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
    """For an HTTP server: it shows the folder's certificate, and asks clients for none, who show
    keys and passes. Raises `InvalidInput` where the folder holds no usable certificate."""
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
    """For an HTTP client: it trusts the public authorities, and where `folder` names one, that of
    the network too. `own`: to speak with this very process, at an address like 0.0.0.0 for which
    no certificate can be made. Kept, as reading the authorities takes milliseconds.

    Raises `InvalidInput` where the folder holds no usable certificate.
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
