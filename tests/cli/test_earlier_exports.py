"""What the release of `test_releases.EARLIER` exported is still verified, and can be handed over.

`earlier/` was written by that release: two visits to two sites, their merge, and a measurement.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from daitn.cli.handover.signers import Signers, rostered
from daitn.cli.handover.verifying import verify_folder
from daitn.identity.keys import SigningKey
from daitn.identity.statements import check_statement, sign_statement
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.lineage import Lineage, Merge, Origin, Verification, Visit

EARLIER = Path(__file__).parent / "earlier"
NOW_S = 1.7e9


def theirs() -> Signers:
    return rostered(EARLIER / "roster.json", NOW_S)


def test_it_is_verified_with_its_roster() -> None:
    verified = verify_folder(EARLIER / "model", theirs(), unsigned=True)
    facts = [type(entry.fact) for entry in verified.entries]
    assert facts == [Origin, Visit, Visit, Merge, Verification]
    assert verified.exporter is None
    assert verify_folder(EARLIER / "model") == msgspec.structs.replace(verified, roster_version=0)


def test_nobody_is_told_to_have_signed_it() -> None:
    with pytest.raises(Refused, match="the folder is unsigned"):
        verify_folder(EARLIER / "model", theirs())


def test_a_lineage_shortened_before_its_end_is_found(tmp_path: Path) -> None:
    """Of the last measurement, nobody but a signature of the folder tells that it is missing."""
    out = tmp_path / "model"
    shutil.copytree(EARLIER / "model", out)
    whole = msgspec.json.decode((out / "lineage.json").read_bytes(), type=Lineage)
    for at in range(len(whole.entries) - 1):
        left = whole.entries[:at] + whole.entries[at + 1 :]
        (out / "lineage.json").write_bytes(
            msgspec.json.encode(msgspec.structs.replace(whole, entries=left))
        )
        with pytest.raises(Corrupt):
            verify_folder(out, theirs(), unsigned=True)


def test_its_entries_are_stated_by_who_hands_them_over() -> None:
    exporter = SigningKey.generate()
    for entry in verify_folder(EARLIER / "model").entries:
        stated = sign_statement(entry, "hearts", exporter)
        assert check_statement(stated, entry, "hearts", exporter.public) == exporter.public
