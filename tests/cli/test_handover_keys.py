"""Whose keys are whose: what a roster says is not lifted by keys, and errors name their file."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daitn.cli.handover.signers import Signers, rostered
from daitn.cli.handover.verifying import verify_folder
from daitn.identity.keys import SigningKey
from daitn.identity.signing import sign_entry
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, InvalidInput
from daitn.objects.identifiers import SiteId
from daitn.objects.lineage import Lineage, Verification
from daitn.objects.roster import Kind, Member
from tests.cli.handed import EXAM, NOW_S, Handed, elsewhere
from tests.cli.test_export import CLINIC
from tests.cli.test_handover_hostile import Cheat, run


def signers(handed: Handed, keys: dict[SiteId, str], **members: Member) -> Signers:
    return rostered(handed.roster(handed.members | members), NOW_S, keys)


def test_a_key_gives_no_role(handed: Handed, out: Path) -> None:
    """A site with data praises what it made."""
    measured = handed.entries[2]
    fact = measured.fact
    assert isinstance(fact, Verification)
    praise = msgspec.structs.replace(fact, site=CLINIC, value=0.99)
    own = sign_entry(praise, measured.previous, handed.key)
    Cheat(handed, out).hands_over(Lineage(job=fact.job, entries=(*handed.entries, own)))
    known = signers(handed, {CLINIC: handed.key.public})
    with pytest.raises(Corrupt, match="clinic does not have the role verifier") as raised:
        verify_folder(out, known)
    assert raised.value.field == "entries[3]"
    assert "--keys" not in raised.value.fix


def test_a_key_prolongs_no_membership(handed: Handed, out: Path) -> None:
    ended = handed.member("exam", Kind.SITE, handed.verifier, until_s=2.5, role=Role.VERIFIER)
    known = signers(handed, {EXAM: handed.verifier.public}, exam=ended)
    with pytest.raises(Corrupt, match="membership ended on 1970-01-01") as raised:
        verify_folder(out, known)
    assert "--keys" not in raised.value.fix


def test_a_key_is_no_other_than_the_rosters(handed: Handed) -> None:
    with pytest.raises(InvalidInput, match="clinic has another key in roster 4") as raised:
        signers(handed, {CLINIC: handed.liar.public})
    assert raised.value.field == "--keys"
    with pytest.raises(InvalidInput, match="the key of ghost is site clinic's in roster 4"):
        signers(handed, {SiteId("ghost"): handed.key.public})
    assert signers(handed, {CLINIC: handed.key.public}).sites[CLINIC] == handed.key.public


def changed(change: Callable[[Any], object]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        said = json.loads(path.read_text())
        change(said)
        path.write_text(json.dumps(said))

    return write


def flipped(said: Any) -> None:
    text = bytearray(base64.b64decode(said["signed"]["roster"]))
    text[-1] ^= 1
    said["signed"]["roster"] = base64.b64encode(bytes(text)).decode()


ROSTERS: dict[str, Callable[[Path], object]] = {
    "another root": changed(lambda said: said.update(root=SigningKey.generate().public)),
    "a root that is none": changed(lambda said: said.update(root="x")),
    "another signature": changed(lambda said: said["signed"].update(signature="A" * 86 + "==")),
    "a byte of another value": changed(flipped),
    "no roster": lambda path: path.write_text("{}"),
}


@pytest.fixture
def exported(tmp_path: Path) -> Handed:
    handed = Handed(tmp_path)
    asyncio.run(elsewhere(handed).export(tmp_path / "out"))
    return handed


@pytest.mark.parametrize("what", ROSTERS)
def test_an_error_about_a_roster_names_it(what: str, exported: Handed, tmp_path: Path) -> None:
    roster = exported.roster()
    ROSTERS[what](roster)
    code, text = run(str(tmp_path / "out"), "--roster", str(roster))
    assert code == (2 if what == "no roster" else 5)
    assert "roster.json" in text
    assert "--roster" in text or what == "no roster"
    assert "in transit" not in text


def test_an_error_about_keys_names_them(exported: Handed, tmp_path: Path) -> None:
    out, roster, keys = tmp_path / "out", str(exported.roster()), tmp_path / "keys.json"
    code, text = run(str(out), "--roster", roster, "--keys", str(tmp_path / "nothing.json"))
    assert (code, "--keys" in text, "nothing.json" in text) == (2, True, True)
    assert "put" not in text
    keys.write_text(json.dumps({CLINIC: exported.liar.public}))
    code, text = run(str(out), "--roster", roster, "--keys", str(keys))
    assert (code, "--keys" in text, "leave clinic out" in text) == (2, True, True)
