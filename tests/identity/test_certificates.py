"""Certificates of a network's own authority, and of control centres in its name."""

from __future__ import annotations

import ipaddress
import stat
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from daitn.identity.certificates import (
    AUTHORITY,
    CERTIFICATE,
    ENTRY,
    ISSUER,
    KEY,
    MEMBERSHIP,
    Issuer,
    found_authority,
    has_entered,
    holds,
    hosts_of,
    keep,
    renewal_after_s,
    requested,
)
from daitn.identity.keys import SigningKey
from daitn.identity.network import TLS, NetworkFolder
from daitn.identity.tls import certificate_files
from daitn.objects.errors import Corrupt, InvalidInput, NotFound
from daitn.objects.roster import Kind
from daitn.tools import clock
from tests.scenes.certificates import certified_member


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def common(certificate: x509.Certificate) -> str:
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def uses(path: Path) -> set[x509.ObjectIdentifier]:
    return set(read(path).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_people_serve_nothing(tmp_path: Path) -> None:
    network = NetworkFolder.found(tmp_path / "network", "clinics", "me", clock.wall_s())
    assert uses(network.path / TLS / MEMBERSHIP) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    certified_member(tmp_path / "site", network.authority, [])
    assert ExtendedKeyUsageOID.SERVER_AUTH in uses(tmp_path / "site" / MEMBERSHIP)


def test_one_authority_signs_all(tmp_path: Path) -> None:
    authority = tmp_path / "authority"
    a = certified_member(tmp_path / "a", authority, ["a.example.org", "10.0.0.3", "fd00::3"])
    b = certified_member(tmp_path / "b", authority, [])
    signer = read(authority / AUTHORITY)
    for site, member in (("a", a), ("b", b)):
        assert read(tmp_path / site / AUTHORITY) == signer
        assert stat.S_IMODE((tmp_path / site / KEY).stat().st_mode) == 0o600
        for name, prefix in ((CERTIFICATE, ""), (MEMBERSHIP, ENTRY)):
            found = read(tmp_path / site / name)
            found.verify_directly_issued_by(signer)
            assert common(found) == prefix + member.public_key
    hosts = read(tmp_path / "a" / MEMBERSHIP).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert hosts.value.get_values_for_type(x509.DNSName) == ["a.example.org"]
    assert hosts.value.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("10.0.0.3"),
        ipaddress.ip_address("fd00::3"),
    ]


def test_a_control_centre_issues_in_the_authoritys_name(tmp_path: Path) -> None:
    center, site = tmp_path / "center", tmp_path / "site"
    certified_member(center, tmp_path / "authority", kind=Kind.CENTER, name="center")
    member = certified_member(site, tmp_path / "authority")
    issuer = Issuer.center(center, SigningKey.at(center / "roster-key"))
    keep(site, issuer.certify(requested(site), member, 3600.0))
    assert has_entered(site)
    assert 1700 < renewal_after_s(site, clock.wall_s()) <= 1800
    chain = x509.load_pem_x509_certificates((site / MEMBERSHIP).read_bytes())
    chain.append(read(tmp_path / "authority" / AUTHORITY))
    assert len(chain) == 3
    for below, above in pairwise(chain):
        below.verify_directly_issued_by(above)
    (use,) = (
        read(site / CERTIFICATE).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    )
    assert use == ExtendedKeyUsageOID.CLIENT_AUTH, "who listens shows the membership"


def test_a_control_centre_that_ends_soon_shortens_no_membership(tmp_path: Path) -> None:
    center, site, authority = tmp_path / "center", tmp_path / "site", tmp_path / "authority"
    certified_member(center, authority, kind=Kind.CENTER, name="center", member_s=7200.0)
    member = certified_member(site, authority, member_s=864_000.0)
    before = read(site / MEMBERSHIP)
    issuer = Issuer.center(center, SigningKey.at(center / "roster-key"))
    keep(site, issuer.certify(requested(site), member, 3600.0))
    assert read(site / MEMBERSHIP) == before
    assert has_entered(site), "it is renewed all the same"
    moved = msgspec.structs.replace(member, hosts=("new.example.org",))
    keep(site, issuer.certify(requested(site), moved, 3600.0))
    assert read(site / MEMBERSHIP) != before, "with other hosts it is another one"


def test_only_who_was_made_an_issuer_issues(tmp_path: Path) -> None:
    certified_member(tmp_path / "site", tmp_path / "authority")
    with pytest.raises(NotFound, match="issues no certificates"):
        Issuer.center(tmp_path / "site", SigningKey.at(tmp_path / "site" / "roster-key"))


def test_a_certificate_ends_with_the_membership(tmp_path: Path) -> None:
    member = certified_member(tmp_path / "a", tmp_path / "authority", lasts_s=1e9)
    for name in (CERTIFICATE, MEMBERSHIP):
        end_s = read(tmp_path / "a" / name).not_valid_after_utc.timestamp()
        assert end_s == pytest.approx(member.until_s, abs=1.0)


def test_certificates_are_of_one_member_with_its_hosts(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    member = certified_member(folder, tmp_path / "authority")
    assert holds(folder, member)
    other = SigningKey.generate().public
    for changes in (
        {"hosts": ("10.0.0.1",)},
        {"public_key": other},
        {"name": "other"},
        {"until_s": member.until_s + 60.0},
    ):
        assert not holds(folder, msgspec.structs.replace(member, **changes))
    assert not holds(tmp_path / "nowhere", member)
    certified_member(folder, tmp_path / "authority", lasts_s=0.0)
    assert not holds(folder, member)
    assert renewal_after_s(folder, clock.wall_s()) <= 0
    assert renewal_after_s(tmp_path / "nowhere", clock.wall_s()) <= 0


def test_a_membership_alone_is_renewed_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    certified_member(folder, tmp_path / "authority")
    (folder / CERTIFICATE).write_bytes((folder / MEMBERSHIP).read_bytes())
    assert not has_entered(folder)
    assert renewal_after_s(folder, clock.wall_s()) <= 0


@pytest.mark.parametrize("host", ["", "a b", "site/x", "höst"])
def test_a_bad_host_is_named(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidInput, match="is not a host") as refused:
        requested(tmp_path / "a", [host])
    assert refused.value.field == "--host"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("hosts", [["a.example.org"] * 33, ["a." * 127]])
def test_nobody_has_countless_hosts(tmp_path: Path, hosts: list[str]) -> None:
    with pytest.raises(Corrupt, match="hosts"):
        hosts_of(requested(tmp_path / "a", hosts))


def test_a_damaged_authority_is_named(tmp_path: Path) -> None:
    found_authority(tmp_path / "authority")
    (tmp_path / "authority" / AUTHORITY).write_text("nothing")
    with pytest.raises(InvalidInput, match="holds no authority") as refused:
        Issuer.authority(tmp_path / "authority")
    assert refused.value.field == "--network"


@pytest.mark.parametrize("damage", [b"", b"nothing", b"\xff\x00", None])
@pytest.mark.parametrize("name", [AUTHORITY, MEMBERSHIP, CERTIFICATE, KEY])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: bytes | None) -> None:
    """Zenoh said that it cannot listen, and commands ended with a traceback."""
    for member in ("site", "other"):
        certified_member(tmp_path / member, tmp_path / "authority")
    tls = tmp_path / "site"
    certificate_files(str(tls))
    if damage is None and name == AUTHORITY:
        return  # That of another network is a certificate too.
    (tls / name).write_bytes((tmp_path / "other" / name).read_bytes() if damage is None else damage)
    with pytest.raises(InvalidInput, match="cannot be used") as refused:
        certificate_files(str(tls))
    named = MEMBERSHIP if (name, damage) == (KEY, None) else name
    assert str(tls / named) in refused.value.problem
    assert (refused.value.field, "daitn network" in refused.value.fix) == ("tls", True)


@pytest.mark.parametrize("name", [AUTHORITY, MEMBERSHIP, CERTIFICATE, KEY])
def test_admission_mends_what_is_damaged(tmp_path: Path, name: str) -> None:
    network = NetworkFolder.found(tmp_path / "network", "clinics", "me", clock.wall_s())
    tls = network.path / TLS
    (tls / name).write_text("nothing")
    if name == KEY:
        with pytest.raises(InvalidInput, match=r"key\.pem holds no key"):
            network.equip(Kind.OPERATOR, "me")
        (tls / name).unlink()
    network.equip(Kind.OPERATOR, "me")
    certificate_files(str(tls))


def test_a_damaged_issuer_is_named(tmp_path: Path) -> None:
    key = SigningKey.at(tmp_path / "key")
    certified_member(tmp_path / "tls", tmp_path / "authority")
    (tmp_path / "tls" / ISSUER).write_text("nothing")
    with pytest.raises(InvalidInput, match=r"issuer\.pem cannot be used"):
        Issuer.center(tmp_path / "tls", key)
