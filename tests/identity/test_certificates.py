"""Certificates of a network's own authority."""

from __future__ import annotations

import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509

from daitn.identity.certificates import AUTHORITY, CERTIFICATE, KEY, issue
from daitn.objects.errors import InvalidInput


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_one_authority_signs_all(tmp_path: Path) -> None:
    authority = tmp_path / "authority"
    issue(tmp_path / "a", authority, ["a.example.org", "10.0.0.3", "[fd00::3]"], days=30)
    issue(tmp_path / "b", authority, ["localhost"], days=30)
    signer = read(authority / AUTHORITY)
    for site in ("a", "b"):
        assert read(tmp_path / site / AUTHORITY) == signer
        read(tmp_path / site / CERTIFICATE).verify_directly_issued_by(signer)
        assert stat.S_IMODE((tmp_path / site / KEY).stat().st_mode) == 0o600
    hosts = read(tmp_path / "a" / CERTIFICATE).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert hosts.value.get_values_for_type(x509.DNSName) == ["a.example.org"]
    assert hosts.value.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("10.0.0.3"),
        ipaddress.ip_address("fd00::3"),
    ]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    issue(tmp_path / "a", tmp_path / "authority", ["localhost"], days=30)
    before = (tmp_path / "a" / KEY).read_bytes()
    with pytest.raises(InvalidInput, match="already has a key"):
        issue(tmp_path / "a", tmp_path / "authority", ["localhost"], days=30)
    assert (tmp_path / "a" / KEY).read_bytes() == before


@pytest.mark.parametrize("host", ["", "a b", "site/x", "höst"])
def test_a_bad_host_is_named(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidInput, match="is not a host") as refused:
        issue(tmp_path / "a", tmp_path / "authority", [host], days=30)
    assert refused.value.field == "--host"
    assert not (tmp_path / "a").exists()


def test_a_damaged_authority_is_named(tmp_path: Path) -> None:
    issue(tmp_path / "a", tmp_path / "authority", ["localhost"], days=30)
    (tmp_path / "authority" / AUTHORITY).write_text("nothing")
    with pytest.raises(InvalidInput, match="holds no authority") as refused:
        issue(tmp_path / "b", tmp_path / "authority", ["localhost"], days=30)
    assert refused.value.field == "--authority"
