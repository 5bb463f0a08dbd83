"""A holder gives a model to its owner, and to sites into which it may travel."""

from __future__ import annotations

from pathlib import Path

import pytest

from daitn.objects.descriptors import Role
from daitn.objects.errors import NotFound, Refused
from daitn.objects.identifiers import Digest, OwnerId
from daitn.objects.roster import Kind, Member
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.releases import Releases


def member(name: str, kind: Kind, law: str = "", *roles: Role) -> Member:
    return Member(name=name, kind=kind, public_key="", until_s=1.0, jurisdiction=law, roles=roles)


ACME, CURIOUS = member("acme", Kind.OWNER), member("curious", Kind.OWNER)
OPERATOR, CENTER = member("ops", Kind.OPERATOR), member("acme", Kind.CENTER)
NEAR = member("near", Kind.SITE, "US", Role.DATA)
FAR = member("far", Kind.SITE, "XX", Role.VERIFIER)
GATEWAY = member("gate", Kind.SITE, "US", Role.GATEWAY)
NAMESAKE = member("acme", Kind.SITE, "XX", Role.DATA)


@pytest.fixture
def store(tmp_path: Path) -> DiskBlobStore:
    return DiskBlobStore(tmp_path / "models")


def test_a_model_is_given_to_whom_its_rules_allow(tmp_path: Path, store: DiskBlobStore) -> None:
    model = store.write(b"a manifest")
    Releases(tmp_path / "rules", store).record(model, "acme", ("US", "CA"))
    for releases in (Releases(tmp_path / "rules", store) for _ in range(2)):
        for allowed in (ACME, OPERATOR, NEAR):
            releases.check(model, allowed)
        for refused in (CURIOUS, CENTER, FAR, GATEWAY, NAMESAKE):
            with pytest.raises(Refused):
                releases.check(model, refused)


def test_rules_add_up(tmp_path: Path, store: DiskBlobStore) -> None:
    model, releases = store.write(b"a manifest"), Releases(tmp_path / "rules", store)
    releases.record(model, "acme", ("US", "CA"))
    releases.record(model, "acme")
    with pytest.raises(Refused):
        releases.check(model, FAR)
    releases.record(model, "acme", ("CA",))
    with pytest.raises(Refused, match="CA only"):
        releases.check(model, NEAR)
    releases.record(model, "acme", ("XX",))
    with pytest.raises(Refused, match="nowhere"):
        releases.check(model, FAR)


def test_what_is_unknown_is_given_to_sites_that_work_on_models(
    tmp_path: Path, store: DiskBlobStore
) -> None:
    releases, chunk = Releases(tmp_path / "rules", store), Digest("0" * 64)
    releases.check(chunk, FAR)
    with pytest.raises(Refused, match="works on no models"):
        releases.check(chunk, GATEWAY)


def test_an_owner_starts_from_its_own_weights(tmp_path: Path, store: DiskBlobStore) -> None:
    model, releases = store.write(b"a manifest"), Releases(tmp_path / "rules", store)
    with pytest.raises(NotFound):
        releases.check_own(model, OwnerId("acme"))
    releases.record(model, "acme")
    releases.check_own(model, OwnerId("acme"))
    with pytest.raises(NotFound):
        releases.check_own(model, OwnerId("curious"))
    releases.record(model, "curious")
    releases.check_own(model, OwnerId("acme"))


def test_rules_of_models_that_are_gone_are_forgotten(tmp_path: Path, store: DiskBlobStore) -> None:
    releases = Releases(tmp_path / "rules", store)
    releases.record(Digest("0" * 64), "acme", ("CA",))
    releases.record(store.write(b"a manifest"), "acme", ("CA",))
    Releases(tmp_path / "rules", store)
    assert len(list((tmp_path / "rules").iterdir())) == 1


def test_rules_go_a_day_after_their_model_and_not_before_it_comes(
    tmp_path: Path, store: DiskBlobStore
) -> None:
    releases = Releases(tmp_path / "rules", store)
    coming, gone, here = Digest("0" * 64), Digest("1" * 64), store.write(b"a manifest")
    for model in (coming, gone, here):
        releases.record(model, "acme", ("CA",))
    releases.clean_up(0.0)
    releases.clean_up(86_399.0)
    assert len(list((tmp_path / "rules").iterdir())) == 3
    releases.record(coming, "acme", ("CA",))  # It is to be fetched again.
    releases.clean_up(86_400.0)
    for model in (coming, here):
        with pytest.raises(Refused):
            releases.check(model, FAR)
    releases.check(gone, FAR)
    assert len(list((tmp_path / "rules").iterdir())) == 2
