"""X.509 certificates (RFC 5280) of a network's own authority, which its processes use for TLS.

A certificate proves membership of the network; the Ed25519 key identifies the site.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from daitn.files.atomic import make_folder, replace_file
from daitn.objects.errors import InvalidInput

__all__ = ["AUTHORITY", "CERTIFICATE", "KEY", "issue"]

AUTHORITY, CERTIFICATE, KEY = "authority.pem", "certificate.pem", "key.pem"
"""Files in a process's folder."""
_AUTHORITY_KEY = "authority-key.pem"
_AUTHORITY_DAYS = 3650
_BACKDATED = datetime.timedelta(hours=1)
"""Tolerates clocks that differ."""
_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
"""Key usage that RFC 5280 requires of an authority; clients check it from Python 3.13 on."""


def issue(folder: Path, authority: Path, hosts: Sequence[str], days: int) -> None:
    """Write a key, and a certificate for these host names and IP addresses, to `folder`.

    The authority in the folder `authority` signs it, and is created if missing. Raises
    `InvalidInput` if `folder` already has a key, a host is invalid, or the authority is damaged.
    """
    names = [_host(host) for host in hosts]
    if (folder / KEY).exists():
        raise InvalidInput(
            f"{folder} already has a key", field="FOLDER", fix="name another folder, or remove it"
        )
    signer, signing = _authority(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_named(hosts[0]), signer.subject, key.public_key(), days)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False
        )
        .sign(signing, hashes.SHA256())
    )
    make_folder(folder)
    replace_file(folder / AUTHORITY, signer.public_bytes(Encoding.PEM))
    replace_file(folder / CERTIFICATE, certificate.public_bytes(Encoding.PEM))
    _write_key(folder / KEY, key)


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if not (folder / _AUTHORITY_KEY).exists():
        _make_authority(folder)
    try:
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
        key = load_pem_private_key((folder / _AUTHORITY_KEY).read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("its key is of another kind")
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"{folder} holds no authority: {error}",
            field="--authority",
            fix=f"restore {AUTHORITY} and {_AUTHORITY_KEY}, or name another folder",
        ) from None
    return certificate, key


def _make_authority(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named("authority of a DA-ITN network")
    certificate = (
        _builder(name, name, key.public_key(), _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    make_folder(folder)
    replace_file(folder / AUTHORITY, certificate.public_bytes(Encoding.PEM))
    _write_key(folder / _AUTHORITY_KEY, key)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    if not host or not all(c.isascii() and (c.isalnum() or c in "-._") for c in host):
        raise InvalidInput(
            f"{host!r} is not a host",
            field="--host",
            fix="name it as others reach it, like site.example.org or 10.0.0.3",
        )
    return x509.DNSName(host)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    replace_file(path, pem, private=True)
