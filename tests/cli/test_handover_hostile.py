"""An exported folder that is not what it says is refused, with what is wrong and what to do."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from daitn.cli.app import app
from daitn.cli.handover.exporter import signature_of, write_exporter
from daitn.cli.handover.folder import files_in, hashed
from daitn.cli.handover.signers import Signers, rostered
from daitn.cli.handover.verifying import verify_folder
from daitn.identity.keys import SigningKey
from daitn.identity.signing import sign_entry
from daitn.identity.statements import sign_statement
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, DaitnError, NotFound, Refused
from daitn.objects.lineage import Lineage, Verification
from daitn.objects.roster import Kind
from daitn.objects.wire import to_json
from tests.cli.handed import ENDS_S, NETWORK, NOW_S, Handed, elsewhere
from tests.cli.test_export import CLINIC

STATEMENTS = "provenance/statements.intoto.jsonl"


def refused(handed: Handed, out: Path, roster: Path | None = None) -> DaitnError:
    """How a folder is refused."""
    with pytest.raises((Corrupt, NotFound, Refused)) as raised:
        handed.verify(out, roster)
    assert raised.value.field
    assert raised.value.fix
    return raised.value


def entries_of(out: Path) -> list[object]:
    entries: list[object] = json.loads((out / "lineage.json").read_text())["entries"]
    return entries


def with_entries(out: Path, change: Callable[[list[object]], list[object]]) -> None:
    lineage = json.loads((out / "lineage.json").read_text())
    lineage["entries"] = change(lineage["entries"])
    (out / "lineage.json").write_text(json.dumps(lineage))


def linked(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def stripped(out: Path) -> None:
    shutil.rmtree(out / "provenance")
    (out / "model.sig").unlink()


STRANGERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed weights": (
        lambda out: (out / "weights.safetensors").write_bytes(b"2" * 3_000_000), "weights",
    ),
    "weights of a terabyte": (lambda out: sparse(out / "weights.safetensors"), "weights"),
    "a lineage of a terabyte": (lambda out: sparse(out / "lineage.json"), "bytes"),
    "statements of a terabyte": (lambda out: sparse(out / STATEMENTS), "bytes"),
    "a signature of a terabyte": (lambda out: sparse(out / "model.sig"), "bytes"),
    "an extra file": (lambda out: (out / "run.py").touch(), "run.py is not among the files"),
    "an extra file that git ignores": (
        lambda out: (out / ".gitattributes").touch(), ".gitattributes is not among",
    ),
    "an extra file whose name is no text": (
        lambda out: Path(os.fsdecode(os.fsencode(out) + b"/\xff")).touch(), "\\udcff",
    ),
    "an extra data set": (
        lambda out: (out / "provenance" / "datasets" / "x.json").touch(), "is not among the files",
    ),
    "a link to a file": (lambda out: linked(out / "weights.safetensors"), "is a link"),
    "a link to a folder": (lambda out: linked(out / "provenance"), "is a link"),
    "a link to nothing": (lambda out: (out / "x").symlink_to("/nowhere"), "is a link"),
    "a pipe": (lambda out: os.mkfifo(out / "pipe"), "is no file"),
    "folders without an end": (
        lambda out: (out / "/".join("a" * 20)).mkdir(parents=True), "folders deep",
    ),
    "no card": (lambda out: (out / "README.md").unlink(), "README.md is missing"),
    "another card": (lambda out: (out / "README.md").write_text("0.99"), "README.md is not what"),
    "no signature": (lambda out: (out / "model.sig").unlink(), "no file"),
    "a signature that is none": (lambda out: (out / "model.sig").write_text("[" * 100_000), ""),
    "no statement of whose key it is": (
        lambda out: (out / "provenance" / "exporter.dsse.json").unlink(), "no file",
    ),
    "no provenance and no signature": (
        stripped,
        "the folder is unsigned",
    ),
    "an empty lineage": (lambda out: with_entries(out, lambda _: []), "no lineage"),
    "a lineage without its beginning": (
        lambda out: with_entries(out, lambda e: e[1:]), "builds on an entry that is not before it",
    ),
    "a lineage without a measurement": (
        lambda out: with_entries(out, lambda e: e[:2]), "2 entries",
    ),
    "a reordered lineage": (
        lambda out: with_entries(out, lambda e: [e[1], e[0], e[2]]), "not before it",
    ),
    "an entry twice": (lambda out: with_entries(out, lambda e: [*e, e[-1]]), "occurs twice"),
    "a statement less": (
        lambda out: (out / STATEMENTS).write_text((out / STATEMENTS).read_text().split("\n", 1)[1]),
        "2 statements of 3 entries",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", STRANGERS)
def test_what_somebody_changed_on_the_way_is_found(what: str, handed: Handed, out: Path) -> None:
    change, told = STRANGERS[what]
    change(out)
    error = refused(handed, out)
    assert told in f"{error.field} {error.problem}"


def with_crlf(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("name", ["README.md", "provenance/bom.cdx.json", "all"])
def test_a_text_with_the_line_ends_of_another_system_is_told_from_another_text(
    name: str, handed: Handed, out: Path
) -> None:
    texts = {"README.md", "lineage.json", "model.sig"} | {
        found for found in files_in(out) if found.startswith("provenance/")
    }
    for text in texts if name == "all" else [name]:
        with_crlf(out / text)
    error = refused(handed, out)
    assert error.field == ("model.sig" if name == "all" else name)
    assert "line ends" in error.problem
    assert "core.autocrlf=false" in error.fix


def test_what_was_added_or_taken_away_is_named_with_what_to_do(handed: Handed, out: Path) -> None:
    for name in "abcdefg":
        (out / name).touch()
    added = refused(handed, out)
    assert "a, b, c, d, e and 2 more are not among the files" in added.problem
    assert "move that out of the folder" in added.fix
    for name in "abcdefg":
        (out / name).unlink()
    (out / "README.md").unlink()
    missing = refused(handed, out)
    assert missing.problem == "README.md is missing: the exporter signed it"
    assert "put back" in missing.fix
    stripped(out)
    (out / "extra").touch()
    with pytest.raises(Corrupt, match="extra is not among the parts that the manifest"):
        verify_folder(out, unsigned=True)
    (out / "extra").unlink()
    (out / "weights.safetensors").unlink()
    with pytest.raises(Corrupt, match=r"weights\.safetensors is missing: the manifest of"):
        verify_folder(out, unsigned=True)


def test_the_lineage_of_another_model_is_found(handed: Handed, out: Path, tmp_path: Path) -> None:
    other, _ = handed.packed(tmp_path / "foreign", {"weights.safetensors": b"7"})
    theirs = Lineage(job=handed.entries[0].fact.job, entries=handed.signed(handed.key, other))
    (out / "lineage.json").write_text(to_json(theirs))
    assert "the lineage is that of model" in refused(handed, out).problem


class Cheat:
    """An exporter who signs what it changed."""

    def __init__(self, handed: Handed, out: Path, network: str = NETWORK) -> None:
        self.handed, self.out, self.network = handed, out, network

    def hands_over(self, lineage: Lineage, *lines: bytes, key: SigningKey | None = None) -> None:
        """Sign a folder with another lineage. `lines`: its statements; none: the cheat's own."""
        key = key or self.handed.owner
        (self.out / "lineage.json").write_text(to_json(lineage))
        stated = lines or tuple(sign_statement(e, self.network, key) for e in lineage.entries)
        (self.out / STATEMENTS).write_bytes(b"".join(line + b"\n" for line in stated))
        self.signs(key)

    def signs(self, key: SigningKey) -> None:
        """Sign the folder as it is."""
        member = self.handed.members["ada"]
        of = (self.handed.model.manifest, "parts")
        write_exporter(self.out, key, member, self.network, of, NOW_S)
        (self.out / "model.sig").unlink()
        hashes = {name: hashed(path) for name, path in files_in(self.out).items()}
        (self.out / "model.sig").write_bytes(signature_of("x", hashes, key))


def lineage(handed: Handed) -> Lineage:
    return Lineage(job=handed.entries[0].fact.job, entries=handed.entries)


def test_the_cheats_signature_is_as_good_as_any(handed: Handed, out: Path) -> None:
    """So that what follows is refused for what it says, and for nothing else."""
    Cheat(handed, out).hands_over(lineage(handed))
    assert handed.verify(out).entries == handed.entries


def test_an_exporter_mixes_no_entries_of_another_model_in(
    handed: Handed, out: Path, tmp_path: Path
) -> None:
    other, _ = handed.packed(tmp_path / "foreign", {"weights.safetensors": b"7"})
    origin, visit, measured = handed.entries
    foreign = handed.signed(handed.key, other)[1]
    better = handed.measurement(foreign, other.manifest, 0.99)
    mixed = (origin, foreign, better, visit, measured)
    Cheat(handed, out).hands_over(Lineage(job=origin.fact.job, entries=mixed))
    assert "nothing of this one builds on it" in refused(handed, out).problem


def test_a_measurement_of_other_weights_is_not_passed_off_as_one_of_these(
    handed: Handed, out: Path, tmp_path: Path
) -> None:
    other, _ = handed.packed(tmp_path / "foreign", {"weights.safetensors": b"7"})
    origin, visit, _ = handed.entries
    better = handed.measurement(visit, other.manifest, 0.99)
    Cheat(handed, out).hands_over(Lineage(job=origin.fact.job, entries=(origin, visit, better)))
    assert "another model" in refused(handed, out).problem
    fact = better.fact
    assert isinstance(fact, Verification)
    renamed = msgspec.structs.replace(
        better, fact=msgspec.structs.replace(fact, model=handed.model.manifest)
    )
    Cheat(handed, out).hands_over(Lineage(job=origin.fact.job, entries=(origin, visit, renamed)))
    assert "signature" in refused(handed, out).problem


def test_a_statement_says_what_its_entry_says(handed: Handed, out: Path) -> None:
    origin, visit, measured = handed.entries
    fact = measured.fact
    assert isinstance(fact, Verification)
    praise = msgspec.structs.replace(measured, fact=msgspec.structs.replace(fact, value=0.99))
    lines = [sign_statement(e, NETWORK, handed.owner) for e in (origin, visit, praise)]
    Cheat(handed, out).hands_over(lineage(handed), *lines)
    assert "contradicts the lineage" in refused(handed, out).problem
    lines = [sign_statement(e, NETWORK, handed.owner) for e in (origin, measured, visit)]
    Cheat(handed, out).hands_over(lineage(handed), *lines)
    assert "contradicts the lineage" in refused(handed, out).problem


def test_a_statement_is_of_its_site_or_of_the_exporter(handed: Handed, out: Path) -> None:
    lines = [sign_statement(entry, NETWORK, handed.liar) for entry in handed.entries]
    Cheat(handed, out).hands_over(lineage(handed), *lines)
    assert "signed neither by clinic" in refused(handed, out).problem


def test_a_statement_of_another_network_is_refused(handed: Handed, out: Path) -> None:
    lines = [sign_statement(entry, "banks", handed.owner) for entry in handed.entries]
    Cheat(handed, out).hands_over(lineage(handed), *lines)
    assert "made in the network 'banks'" in refused(handed, out).problem


def test_a_statement_that_says_a_thing_twice_is_refused(handed: Handed, out: Path) -> None:
    from daitn.identity.dsse import IN_TOTO, Dsse, DsseSignature, pae

    lines = [sign_statement(entry, NETWORK, handed.owner) for entry in handed.entries]
    payload = base64.b64decode(json.loads(lines[2])["payload"])
    payload = payload.replace(b'"value":0.75', b'"value":0.99,"value":0.75')
    signed = DsseSignature(sig=handed.owner.sign_raw(pae(payload)), keyid=handed.owner.public)
    envelope = Dsse(payload=payload, payload_type=IN_TOTO, signatures=(signed,))
    lines[2] = msgspec.json.encode(envelope)
    Cheat(handed, out).hands_over(lineage(handed), *lines)
    assert "twice" in refused(handed, out).problem


def test_a_stranger_hands_nothing_over_in_a_members_name(handed: Handed, out: Path) -> None:
    Cheat(handed, out).hands_over(lineage(handed), key=handed.liar)
    assert "owner ada is not in roster 4 of hospitals with the key" in refused(handed, out).problem


async def test_the_statement_of_a_member_is_worth_nothing_beside_another_key(
    handed: Handed, out: Path
) -> None:
    said = (out / "provenance" / "exporter.dsse.json").read_bytes()
    Cheat(handed, out).hands_over(lineage(handed), key=handed.liar)
    (out / "provenance" / "exporter.dsse.json").write_bytes(said)
    assert "about a key other than" in refused(handed, out).problem


def test_entries_that_a_strangers_key_signed_are_refused(handed: Handed, out: Path) -> None:
    origin = sign_entry(handed.entries[0].fact, (), handed.liar)
    visit = sign_entry(handed.entries[1].fact, (origin.digest,), handed.liar)
    Cheat(handed, out).hands_over(Lineage(job=origin.fact.job, entries=(origin, visit)))
    assert "signed with a key that is not clinic's" in refused(handed, out).problem


def test_a_roster_of_another_network_is_refused(handed: Handed, out: Path) -> None:
    error = refused(handed, out, handed.roster(name="banks"))
    assert "the roster is that of banks" in error.problem
    assert "hospitals" in error.fix


def test_a_revoked_signer_is_refused(handed: Handed, out: Path) -> None:
    for name, told in (("clinic", "clinic is not in roster 4"), ("ada", "ada is not in roster 4")):
        others = {one: member for one, member in handed.members.items() if one != name}
        error = refused(handed, out, handed.roster(others))
        assert told in error.problem
        assert "revoked" in error.fix
    without = {one: m for one, m in handed.members.items() if one != "clinic"}
    left = rostered(handed.roster(without), NOW_S)
    known = Signers({CLINIC: handed.key.public}, left.roster)
    assert verify_folder(out, known).entries == handed.entries


def test_what_was_signed_after_a_membership_is_refused(handed: Handed, out: Path) -> None:
    ended = handed.member("clinic", Kind.SITE, handed.key, until_s=1.5, role=Role.DATA)
    error = refused(handed, out, handed.roster(handed.members | {"clinic": ended}))
    assert error.field == "entries[1]"
    assert "membership ended on 1970-01-01" in error.problem


def test_a_measurement_is_a_verifiers(handed: Handed, out: Path) -> None:
    """A site that trained praises what it made."""
    measured = handed.entries[2].fact
    assert isinstance(measured, Verification)
    praise = msgspec.structs.replace(measured, site=CLINIC, value=0.99)
    own = sign_entry(praise, handed.entries[2].previous, handed.key)
    entries = (*handed.entries, own)
    Cheat(handed, out).hands_over(Lineage(job=praise.job, entries=entries))
    error = refused(handed, out)
    assert "clinic does not have the role verifier" in error.problem
    assert error.field == "entries[3]"


def run(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["model", "verify", *arguments])
    return ended.exit_code, " ".join(ended.output.split())


def test_a_roster_that_ended_is_refused_and_can_be_asked_of_its_own_time(tmp_path: Path) -> None:
    handed = Handed(tmp_path)
    asyncio.run(elsewhere(handed).export(tmp_path / "out"))
    roster, out = str(handed.roster(until_s=ENDS_S / 2)), str(tmp_path / "out")
    code, text = run(out, "--roster", roster)
    assert (code, "ended on 2001-09-09" in text, "--as-of" in text) == (3, True, True)
    code, text = run(out, "--roster", roster, "--as-of", "2001-09-08")
    assert (code, "handed over by owner ada of the network hospitals" in text) == (0, True)
    code, text = run(out, "--roster", str(tmp_path / "nothing.json"))
    assert (code, "there is no roster" in text) == (2, True)
    (tmp_path / "bad.json").write_text("{}")
    assert run(out, "--roster", str(tmp_path / "bad.json"))[0] == 2
