"""X.509 certificates (RFC 5280), with which a network's members encrypt and authenticate their
links.

::

    authority.pem     the network's authority, which all trust
    key.pem           the member's key for TLS
    membership.pem    from the authority; holds as long as the membership
    certificate.pem   from the control centre; holds for a day
    issuer.pem        a control centre's only: makes its key in the roster an issuer

A certificate's common name is the member's public key in the roster, and nobody but the authority
and the control centre can put it there. A listener presents `membership.pem`, since Zenoh reads a
listener's certificate once; a connecting process presents `certificate.pem`, which it reads for
every link. Until it has one, it presents `membership.pem`, whose name begins with `ENTRY`: with
that a control centre keeps a link for a minute, which is enough to ask for a certificate.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from daitn.files.atomic import make_folder, replace_file
from daitn.identity.keys import SigningKey
from daitn.objects.errors import Corrupt, InvalidInput, NotFound
from daitn.objects.moments import DAY_S
from daitn.objects.roster import Kind, Member

__all__ = [
    "AUTHORITY",
    "CERTIFICATE",
    "ENTRY",
    "KEY",
    "LASTS_S",
    "MEMBERSHIP",
    "Certificates",
    "Issuer",
    "certificate_ends_at_s",
    "check_certificates",
    "fall_back",
    "found_authority",
    "has_entered",
    "holds",
    "hosts_of",
    "keep",
    "membership_ends_at_s",
    "renewal_after_s",
    "requested",
    "unusable",
]

AUTHORITY, MEMBERSHIP, CERTIFICATE = "authority.pem", "membership.pem", "certificate.pem"
ISSUER, KEY = "issuer.pem", "key.pem"
ENTRY = "entry:"
"""Prefix of the common name of a membership's certificate."""
LASTS_S = DAY_S
"""Validity of a certificate."""
_AUTHORITY_KEY = "authority-key.pem"
_AUTHORITY_DAYS = 3650
_BACKDATED = datetime.timedelta(hours=1)
"""Tolerance for clock differences."""
_MOST_HOSTS = 32
_LONGEST_HOST = 253
"""Maximum characters of a DNS name (RFC 1035)."""
_LATEST_S = 253402300799.0
"""The last second that X.509 can express: 9999-12-31."""
_CONNECTS = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
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
class Certificates:
    """A member's certificate, with its issuers, and its trusted authority; PEM."""

    authority: str
    membership: str
    certificate: str


class Issuer:
    """Issues members' certificates: the network's authority, or a control centre in its name."""

    def __init__(
        self,
        authority: str,
        own: x509.Certificate,
        sign: Callable[[x509.CertificateBuilder], x509.Certificate],
        chain: str = "",
    ) -> None:
        """`chain`: the certificates between `authority` and those of this issuer, PEM."""
        self._authority = authority
        self._own = own
        self._sign = sign
        self._chain = chain

    @classmethod
    def authority(cls, folder: Path) -> Issuer:
        """The authority in a network's folder. Raises `InvalidInput` if it is damaged."""
        own, key = _authority(folder)
        return cls(_pem(own), own, lambda builder: builder.sign(key, hashes.SHA256()))

    @classmethod
    def center(cls, tls: Path, key: SigningKey) -> Issuer:
        """A control centre with its key in the roster, and the content of its folder of
        certificates.

        Raises `NotFound` if nobody made it an issuer, and `InvalidInput` if the certificate that
        did is damaged.
        """
        try:
            chain, authority = ((tls / name).read_text() for name in (ISSUER, AUTHORITY))
        except FileNotFoundError:
            raise NotFound(
                f"{tls / ISSUER} is missing: this control centre issues no certificates",
                field="state",
                fix="admit it: `daitn network admit`",
            ) from None
        try:
            own = x509.load_pem_x509_certificate(chain.encode())
        except ValueError as error:
            raise unusable(tls / ISSUER, error) from None
        return cls(authority, own, key.sign_certificate, chain)

    def certify(self, request: str, member: Member, lasts_s: float = LASTS_S) -> Certificates:
        """The certificates of a member, for the key behind the request.

        Raises `Corrupt` unless it is a request that its key signed, `InvalidInput` for an invalid
        host in the roster.
        """
        public, _ = _read_request(request)
        now = datetime.datetime.now(datetime.UTC)
        until = datetime.datetime.fromtimestamp(min(member.until_s, _LATEST_S), datetime.UTC)
        until = min(until, self._own.not_valid_after_utc)
        short = min(until, now + datetime.timedelta(seconds=lasts_s))
        return Certificates(
            authority=self._authority,
            membership=self._issued(public, member, ENTRY, until, _uses(member)),
            certificate=self._issued(public, member, "", short, _CONNECTS),
        )

    def delegate(self, member: Member) -> str:
        """A certificate that makes a control centre's key in the roster an issuer, PEM."""
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(member.public_key))
        until = datetime.datetime.fromtimestamp(min(member.until_s, _LATEST_S), datetime.UTC)
        until = min(until, self._own.not_valid_after_utc)
        name = _named(f"issuer {member.public_key}", member)
        builder = (
            _builder(name, self._own.subject, public, until)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        return _pem(self._sign(self._identified(builder)))

    def _issued(
        self,
        public: ec.EllipticCurvePublicKey,
        member: Member,
        prefix: str,
        until: datetime.datetime,
        uses: Sequence[x509.ObjectIdentifier],
    ) -> str:
        name = _named(prefix + member.public_key, member)
        builder = (
            _builder(name, self._own.subject, public, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        )
        if member.hosts:
            hosts = x509.SubjectAlternativeName([_host(host) for host in member.hosts])
            builder = builder.add_extension(hosts, critical=False)
        return _pem(self._sign(self._identified(builder))) + self._chain

    def _identified(self, builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
        by = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            self._own.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        )
        return builder.add_extension(by, critical=False)


def requested(folder: Path, hosts: Sequence[str] = ()) -> str:
    """A request for certificates, PEM, for the key in `folder`, which is created if missing.

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
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def hosts_of(request: str) -> tuple[str, ...]:
    """The hosts of a request. Raises `Corrupt` if it is not a request signed with its key."""
    _, names = _read_request(request)
    hosts = tuple(str(name.value) for name in names)
    if len(hosts) > _MOST_HOSTS or any(len(host) > _LONGEST_HOST for host in hosts):
        raise Corrupt(
            f"it is for {len(hosts)} hosts", field="certificate", fix="ask for fewer, shorter ones"
        )
    return hosts


def keep(folder: Path, certificates: Certificates, *, issuer: str = "") -> None:
    """Write a member's certificates beside its key. `issuer`: those of a control centre.

    What a control centre issues ends with its own certificate, which may be long before the
    membership does. So it replaces no membership of the authority's that lasts longer.
    """
    outlasts = _outlasts(folder, certificates)
    replace_file(folder / AUTHORITY, certificates.authority.encode())
    if issuer:
        replace_file(folder / ISSUER, issuer.encode())
    if not outlasts:
        replace_file(folder / MEMBERSHIP, certificates.membership.encode())
    replace_file(folder / CERTIFICATE, certificates.certificate.encode())


def _outlasts(folder: Path, new: Certificates) -> bool:
    """Whether the folder's membership is that of `new`, which expires earlier with its issuer."""
    try:
        if (folder / AUTHORITY).read_text() != new.authority:
            return False
        old = x509.load_pem_x509_certificate((folder / MEMBERSHIP).read_bytes())
    except (OSError, ValueError):
        return False
    other, *issuers = x509.load_pem_x509_certificates(new.membership.encode())
    ends = other.not_valid_after_utc
    if not any(ends >= issuer.not_valid_after_utc for issuer in issuers):
        return False
    same = _names(old) == _names(other) and old.public_key() == other.public_key()
    return same and old.not_valid_after_utc > ends + datetime.timedelta(days=1)


def _names(certificate: x509.Certificate) -> tuple[x509.Name, frozenset[x509.GeneralName]]:
    """The subject and hosts of a certificate."""
    try:
        hosts = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return certificate.subject, frozenset()
    return certificate.subject, frozenset(hosts)


def fall_back(folder: Path, now_s: float) -> None:
    """Present the membership's certificate again, if the daily one has expired or is damaged.

    Else members that were away too long could not connect to get a new one.
    """
    try:
        membership = (folder / MEMBERSHIP).read_bytes()
        x509.load_pem_x509_certificate(membership)
        if _has_ended(folder, now_s):
            replace_file(folder / CERTIFICATE, membership)
    except (FileNotFoundError, ValueError):
        return


def _has_ended(folder: Path, now_s: float) -> bool:
    """Whether the folder's certificate from a control centre is of no more use."""
    try:
        return certificate_ends_at_s(folder) <= now_s and has_entered(folder)
    except ValueError:
        return True


def has_entered(folder: Path) -> bool:
    """Whether the folder's certificate is from a control centre, rather than the membership's."""
    (name,) = _current(folder).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return not str(name.value).startswith(ENTRY)


def check_certificates(folder: Path) -> None:
    """Raises `InvalidInput` naming the file in `folder` that is not a certificate or key, or whose
    key is another one's."""
    path = folder / KEY
    try:
        public = _key(path.read_bytes()).public_key()
        for name in (AUTHORITY, MEMBERSHIP, CERTIFICATE):
            path = folder / name
            if _read(path).public_key() != public and name != AUTHORITY:
                raise ValueError(f"it is not for the key in {KEY}")
    except (OSError, ValueError, TypeError) as error:
        raise unusable(path, error) from None


def unusable(path: Path, error: Exception) -> InvalidInput:
    """The error for a file of certificates or keys that is damaged, or cannot be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return InvalidInput(
        f"{path} cannot be used: {reason}",
        field="tls",
        fix="restore it from a copy; or join the network again: `daitn network join`, or have this "
        "process's file admitted again: `daitn network admit`",
    )


def certificate_ends_at_s(folder: Path) -> float:
    """When the certificate of the folder's process expires. Raises `OSError` and `ValueError`
    without one."""
    return _current(folder).not_valid_after_utc.timestamp()


def membership_ends_at_s(folder: Path) -> float:
    """When the membership's certificate expires. Raises `OSError` and `ValueError` without one."""
    return _read(folder / MEMBERSHIP).not_valid_after_utc.timestamp()


def renewal_after_s(folder: Path, now_s: float) -> float:
    """When the folder's certificate should be renewed: halfway through its validity.

    Zero or less: now, as where there is none.
    """
    try:
        if not has_entered(folder):
            return 0.0
        current = _current(folder)
    except (OSError, ValueError):
        return 0.0
    end_s = current.not_valid_after_utc.timestamp()
    start_s = (current.not_valid_before_utc + _BACKDATED).timestamp()
    return (start_s + end_s) / 2 - now_s


def holds(folder: Path, member: Member) -> bool:
    """Whether the folder has certificates of this very member, none of which needs renewal, and
    their key."""
    now_s = datetime.datetime.now(datetime.UTC).timestamp()
    try:
        check_certificates(folder)
        membership = _read(folder / MEMBERSHIP)
        names = membership.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = {str(name.value) for name in names}
    except (InvalidInput, OSError, ValueError, x509.ExtensionNotFound):
        return False
    until_s = membership.not_valid_after_utc.timestamp()
    same = membership.subject == _named(ENTRY + member.public_key, member)
    return (
        same
        and hosts == set(member.hosts)
        and abs(until_s - member.until_s) < 1.0
        and renewal_after_s(folder, now_s) > 0
    )


def _current(folder: Path) -> x509.Certificate:
    return _read(folder / CERTIFICATE)


def _read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _read_request(request: str) -> tuple[ec.EllipticCurvePublicKey, Sequence[x509.GeneralName]]:
    try:
        read = x509.load_pem_x509_csr(request.encode())
        public = read.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey) or not read.is_signature_valid:
            raise ValueError("its key did not sign it")
        try:
            wanted = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return public, ()
        names = list(wanted)
        if not all(isinstance(n, x509.DNSName | x509.IPAddress) for n in names):
            raise ValueError("it names no hosts")
    except (ValueError, x509.DuplicateExtension) as error:
        raise Corrupt(
            f"there is no request for a certificate: {error}",
            field="certificate",
            fix="make the request again: `daitn network join`",
        ) from None
    return public, names


def found_authority(folder: Path) -> str:
    """The certificate of the authority in `folder`, PEM; an authority is created if missing."""
    return _pem(_authority(folder)[0])


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if not (folder / _AUTHORITY_KEY).exists():
        _make_authority(folder)
    try:
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
        key = _key((folder / _AUTHORITY_KEY).read_bytes())
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"{folder} holds no authority: {error}",
            field="--network",
            fix=f"restore {AUTHORITY} and {_AUTHORITY_KEY} from your copy",
        ) from None
    return certificate, key


def _make_authority(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {secrets.token_hex(8)}")])
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=_AUTHORITY_DAYS)
    certificate = (
        _builder(name, name, key.public_key(), until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_SIGNS, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    make_folder(folder)
    replace_file(folder / AUTHORITY, certificate.public_bytes(Encoding.PEM))
    _write_key(folder / _AUTHORITY_KEY, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey | Ed25519PublicKey,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    begin = datetime.datetime.now(datetime.UTC) - _BACKDATED
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(max(until, begin))
    )


def _uses(member: Member) -> Sequence[x509.ObjectIdentifier]:
    """People do not listen: their certificates are not valid for servers."""
    return _BOTH if member.kind in (Kind.SITE, Kind.CENTER) else _CONNECTS


def _named(common: str, member: Member) -> x509.Name:
    """Readers of a certificate see its subject; only the common name counts."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, str(member.kind)),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, member.name[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


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
