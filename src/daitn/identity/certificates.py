"""X.509 certificates (RFC 5280) of a network's own authority, which its processes use for TLS.

A certificate proves membership of the network; the Ed25519 key identifies the site.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
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
from daitn.objects.errors import Corrupt, InvalidInput

__all__ = [
    "AUTHORITY",
    "CERTIFICATE",
    "KEY",
    "Issued",
    "certify",
    "found_authority",
    "hosts_of",
    "issue",
    "keep",
    "requested",
]

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


@dataclass(frozen=True)
class Issued:
    """A certificate, and its authority's, as PEM."""

    authority: str
    certificate: str


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
    key = ec.generate_private_key(ec.SECP256R1())
    issued = _certified(key.public_key(), names, hosts[0], authority, days)
    make_folder(folder)
    keep(folder, issued)
    _write_key(folder / KEY, key)


def requested(folder: Path, hosts: Sequence[str]) -> str:
    """A request for a certificate, PEM, for the key in `folder`, which is made if missing.

    Raises `InvalidInput` for an invalid host.
    """
    names = [_host(host) for host in hosts]
    try:
        key = _key((folder / KEY).read_bytes())
    except FileNotFoundError:
        key = ec.generate_private_key(ec.SECP256R1())
        make_folder(folder)
        _write_key(folder / KEY, key)
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"{folder / KEY} holds no key: {error}", field="FOLDER", fix="restore or remove it"
        ) from None
    builder = x509.CertificateSigningRequestBuilder(_named(hosts[0]))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def hosts_of(request: str) -> tuple[str, ...]:
    """The hosts that a request is for. Raises `Corrupt` if it is no request that its key signed."""
    _, names = _read_request(request)
    return tuple(str(name.value) for name in names)


def certify(request: str, authority: Path, days: int) -> Issued:
    """Issue what `requested` asked for. Raises as `issue` and `hosts_of` do."""
    public, names = _read_request(request)
    return _certified(public, names, str(names[0].value), authority, days)


def keep(folder: Path, issued: Issued) -> None:
    """Write a certificate beside its key."""
    replace_file(folder / AUTHORITY, issued.authority.encode())
    replace_file(folder / CERTIFICATE, issued.certificate.encode())


def _read_request(request: str) -> tuple[ec.EllipticCurvePublicKey, Sequence[x509.GeneralName]]:
    try:
        read = x509.load_pem_x509_csr(request.encode())
        public = read.public_key()
        wanted = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if not isinstance(public, ec.EllipticCurvePublicKey) or not read.is_signature_valid:
            raise ValueError("its key did not sign it")
        names = list(wanted)
        if not names or not all(isinstance(n, x509.DNSName | x509.IPAddress) for n in names):
            raise ValueError("it names no hosts")
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise Corrupt(
            f"there is no request for a certificate: {error}",
            field="certificate",
            fix="make the request again: `daitn network join`",
        ) from None
    return public, names


def _certified(
    public: ec.EllipticCurvePublicKey,
    names: Sequence[x509.GeneralName],
    host: str,
    authority: Path,
    days: int,
) -> Issued:
    signer, signing = _authority(authority)
    certificate = (
        _builder(_named(host), signer.subject, public, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False
        )
        .sign(signing, hashes.SHA256())
    )
    return Issued(
        signer.public_bytes(Encoding.PEM).decode(), certificate.public_bytes(Encoding.PEM).decode()
    )


def found_authority(folder: Path) -> str:
    """The certificate of the authority in `folder`, PEM; an authority is made if missing."""
    return _authority(folder)[0].public_bytes(Encoding.PEM).decode()


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if not (folder / _AUTHORITY_KEY).exists():
        _make_authority(folder)
    try:
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
        key = _key((folder / _AUTHORITY_KEY).read_bytes())
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


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("its key is of another kind")
    return key


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    replace_file(path, pem, private=True)
