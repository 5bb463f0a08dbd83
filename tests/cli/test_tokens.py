"""Tokens for owners that the network knows; a misspelt name admits nobody."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from daitn.cli import tokens
from daitn.identity.keys import SigningKey
from daitn.identity.network import NetworkFolder
from daitn.objects.errors import Unreachable
from daitn.objects.roster import Kind, Member
from daitn.tools import clock
from tests.scenes.command_line import Ended, daitn


def unanswered(*_: object, **__: object) -> NoReturn:
    raise Unreachable("nobody answers")


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NetworkFolder:
    """A network founded here, whose site `lab` is acme's."""
    monkeypatch.setenv("DAITN_NETWORK", str(tmp_path / "network"))
    monkeypatch.setattr(tokens, "connect", unanswered)
    now_s = clock.wall_s()
    founded = NetworkFolder.found(tmp_path / "network", "clinics", "ops", now_s)
    lab = Member(
        name="lab",
        kind=Kind.SITE,
        public_key=SigningKey.generate().public,
        until_s=now_s + 1e6,
        owner="acme",
    )
    founded.admit(lab, now_s=now_s)
    return founded


def owners(network: NetworkFolder) -> set[str]:
    return {member.name for member in network.roster().members if member.kind is Kind.OWNER}


def create(owner: str, *options: str) -> Ended:
    return daitn("token", "create", "--owner", owner, "--gateway", "door", *options)


def test_a_token_for_an_unknown_owner_is_refused_with_similar_names(network: NetworkFolder) -> None:
    ended = create("acne")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error --owner: this network has no owner acne")
    assert "did you mean acme?" in ended.stderr
    assert "--new-owner" in ended.stderr
    assert owners(network) == set()


def test_new_owner_admits_an_owner_which_is_known_from_then_on(network: NetworkFolder) -> None:
    assert create("ann", "--new-owner").returncode == 0
    assert owners(network) == {"ann"}
    assert create("ann").returncode == 0
    assert "known owners: acme, ann" in create("zoe").stderr


def test_the_owner_of_a_site_in_the_roster_needs_no_new_owner(network: NetworkFolder) -> None:
    assert create("acme").returncode == 0
    assert owners(network) == {"acme"}


def test_the_dashboard_admits_no_unknown_owner(network: NetworkFolder) -> None:
    ended = daitn("dashboard", "--owner", "acne")
    assert ended.returncode == 2
    assert "did you mean acme?" in ended.stderr
    assert owners(network) == set()
