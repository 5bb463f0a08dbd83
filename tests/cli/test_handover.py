"""What goes with an exported model: the projects whose forms these are take it by their own tools.

`test_handover_hostile.py` has what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlcroissant
import model_signing
import msgspec
import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from huggingface_hub import ModelCard
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

from daitn.cli.handover.exporter import signature_of, write_exporter
from daitn.cli.handover.folder import files_in, hashed
from daitn.cli.handover.signers import Signers
from daitn.cli.handover.summary import summary
from daitn.identity.dsse import sealed
from daitn.identity.keys import raw_of
from daitn.identity.signing import check_lineage, sign_entry
from daitn.identity.statements import sign_statement
from daitn.objects.errors import Corrupt
from daitn.objects.lineage import Lineage, SignedStatement, Verification, Visit
from daitn.objects.statements import statement_of
from tests.cli.handed import NETWORK, Handed, copied, elsewhere
from tests.cli.test_export import JOB
from tests.docs.pages import DOCS, blocks


def by_model_signing(out: Path, key: Path) -> None:
    """What `model_signing verify key` does."""
    config = model_signing.verifying.Config()  # type: ignore[no-untyped-call]
    config.use_elliptic_key_verifier(public_key=key)
    config.verify(out, out / "model.sig")


def test_openssf_model_signing_verifies_the_folder(out: Path) -> None:
    key = out / "provenance" / "exporter.pem"
    by_model_signing(out, key)
    weights = out / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"2")
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        by_model_signing(out, key)


def test_the_hugging_face_hub_reads_the_card_and_its_figures(out: Path) -> None:
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "daitn"
    assert card.data.tags == ["daitn", "classifier"]
    assert card.data.model_name == str(JOB)
    (result,) = card.data.eval_results or []
    assert result.task_type == "tabular-classification"
    assert result.dataset_name == "colds at exam"
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.75)
    assert card.text.lstrip().startswith(f"# {JOB}\n")
    again = ModelCard(str(card))
    assert str(again.data) == str(card.data), "as it would be pushed"


async def test_the_hugging_face_hub_reads_the_card_of_a_model_that_nobody_measured(
    handed: Handed, tmp_path: Path
) -> None:
    handed.entries = handed.entries[:2]
    await elsewhere(handed).export(tmp_path / "unmeasured")
    card = ModelCard.load(tmp_path / "unmeasured" / "README.md")
    assert card.data.model_name == str(JOB)
    assert card.data.eval_results == []


async def test_an_exporter_has_one_key_of_model_signing_for_all_its_exports(
    handed: Handed, out: Path, tmp_path: Path
) -> None:
    """So whoever has no DA-ITN keeps it, and needs no statement the next time."""
    kept = tmp_path / "kept.pem"
    kept.write_bytes((out / "provenance" / "exporter.pem").read_bytes())
    later = Handed(tmp_path / "later")
    later.become(handed.owner)
    await later.export(tmp_path / "second")
    by_model_signing(tmp_path / "second", kept)
    other = Handed(tmp_path / "other")
    await other.export(tmp_path / "third")
    with pytest.raises(ValueError, match="Key mismatch"):
        by_model_signing(tmp_path / "third", kept)


def key_of(public: str) -> Any:
    keyval = {"public": raw_of(public).hex()}
    told = {"keytype": "ed25519", "scheme": "ed25519", "keyval": keyval}
    return SSlibKey.from_dict(public, told)


def stated(line: str, public: str) -> dict[str, Any]:
    """A statement whose envelope securesystemslib and whose form in-toto's own package take."""
    envelope = Envelope.from_dict(json.loads(line))
    envelope.verify([key_of(public)], 1)
    statement = json_format.Parse(envelope.payload, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    said: dict[str, Any] = json.loads(envelope.payload)
    return said


def test_each_entry_is_an_in_toto_statement(handed: Handed, out: Path) -> None:
    lines = (out / "provenance" / "statements.intoto.jsonl").read_text().splitlines()
    said = [stated(line, handed.owner.public) for line in lines]
    assert [one["predicateType"] for one in said] == [
        "urn:daitn:origin:1", "urn:daitn:visit:1", "urn:daitn:measurement:1"
    ]  # fmt: skip
    for one, entry in zip(said, handed.entries, strict=True):
        assert one["predicate"]["network"] == NETWORK
        assert one["predicate"]["entry"] == entry.digest
        assert one["predicate"]["previous"] == list(entry.previous)
    visit, measured = handed.entries[1].fact, handed.entries[2].fact
    assert isinstance(visit, Visit)
    assert isinstance(measured, Verification)
    assert said[1]["subject"][0]["digest"] == {"blake3": visit.model_out}
    assert said[1]["predicate"]["fact"]["examples"] == visit.examples
    assert said[2]["subject"][0]["digest"] == {"blake3": handed.model.manifest}
    assert said[2]["predicate"]["fact"]["value"] == measured.value
    with pytest.raises(VerificationError):
        stated(lines[0], handed.liar.public)


def test_the_docs_program_names_the_weights_as_statements_do(handed: Handed, out: Path) -> None:
    page = DOCS / "how-to" / "hand-a-model-over.md"
    (program,) = [one.body for one in blocks(page) if one.file == "weights.py"]
    command = [sys.executable, "-c", program, str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == handed.model.manifest
    (out / "tokenizer.json").write_text("[]")
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "tokenizer.json is not what" in ended.stderr


def test_the_exporter_says_whose_key_signed_the_folder(handed: Handed, out: Path) -> None:
    said = stated((out / "provenance" / "exporter.dsse.json").read_text(), handed.owner.public)
    assert said["predicate"]["network"] == NETWORK
    assert (said["predicate"]["kind"], said["predicate"]["name"]) == ("owner", "ada")
    assert said["predicate"]["model"] == handed.model.manifest


def test_cyclonedx_takes_the_bill_of_materials(handed: Handed, out: Path) -> None:
    text = (out / "provenance" / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    said = json.loads(text)
    read = Bom.from_json(data=said)  # type: ignore[attr-defined]
    assert read.metadata.component.type == "machine-learning-model"
    assert {str(one.name) for one in read.components} == {
        "notes", "weights.safetensors", "tokenizer.json"
    }  # fmt: skip
    (metric,) = said["metadata"]["component"]["modelCard"]["quantitativeAnalysis"][
        "performanceMetrics"
    ]
    assert (metric["type"], metric["value"], metric["slice"]) == ("accuracy", "0.75", "colds")


def test_croissant_describes_the_data_sets_without_what_is_for_members_only(
    handed: Handed, out: Path
) -> None:
    (path,) = (out / "provenance" / "datasets").iterdir()
    said = json.loads(path.read_text())
    read = mlcroissant.Dataset(jsonld=said)
    assert not read.metadata.ctx.issues.errors
    assert read.metadata.name == "notes"
    assert "a rival" not in path.read_text()
    assert "3.5" not in path.read_text()
    bill = json.loads((out / "provenance" / "bom.cdx.json").read_text())
    (data,) = [one for one in bill["components"] if one["type"] == "data"]
    assert (out / data["data"][0]["contents"]["url"]) == path


async def test_the_card_and_the_bill_tell_what_was_measured_of_these_weights_alone(
    handed: Handed, tmp_path: Path
) -> None:
    origin, visit, _ = handed.entries
    before = handed.measurement(origin, handed.fresh.manifest, 0.99)
    visit = sign_entry(visit.fact, (origin.digest, before.digest), handed.key)
    after = handed.measurement(visit, handed.model.manifest, 0.5)
    handed.entries = (origin, before, visit, after)
    await elsewhere(handed).export(tmp_path / "other")
    for name in ("README.md", "provenance/bom.cdx.json"):
        text = (tmp_path / "other" / name).read_text().split("## Lineage")[0]
        assert "0.5" in text
        assert "0.99" not in text


def test_it_is_verified_with_a_rosters_file_alone(handed: Handed, out: Path) -> None:
    verified = handed.verify(out)
    assert verified.entries == handed.entries
    assert verified.exporter is not None
    assert (verified.exporter.name, verified.exporter.network) == ("ada", NETWORK)
    assert verified.own_statements == 0
    assert not verified.converted
    assert handed.verify(copied(out, handed.folder / "copy")) == verified


async def test_a_site_that_signed_for_others_is_heard_in_its_own_words(
    handed: Handed, tmp_path: Path
) -> None:
    """Whatever a later version of it says more; and a false statement of its own is left out."""
    origin, visit, measured = handed.entries
    said = statement_of(visit, NETWORK)
    said["predicate"]["fact"]["co2_g"] = 12.5
    own = sealed(said, handed.key)
    praise = statement_of(measured, NETWORK)
    praise["predicate"]["fact"]["value"] = 0.99
    handed.statements = (
        SignedStatement(entry=origin.digest, signed=sign_statement(origin, "banks", handed.key)),
        SignedStatement(entry=visit.digest, signed=own),
        SignedStatement(entry=measured.digest, signed=sealed(praise, handed.verifier)),
    )
    out = tmp_path / "own"
    await elsewhere(handed).export(out)
    lines = (out / "provenance" / "statements.intoto.jsonl").read_text().splitlines()
    assert lines[1].encode() == own
    assert stated(lines[1], handed.key.public)["predicate"]["fact"]["co2_g"] == 12.5
    assert "0.99" not in str(stated(lines[2], handed.owner.public))
    assert handed.verify(out).own_statements == 1


async def test_what_a_site_of_a_later_release_says_of_its_visit_is_handed_over(
    handed: Handed, tmp_path: Path
) -> None:
    """The control centre, the exporter and whoever verifies the folder are of this release."""
    origin, visit, measured = handed.entries
    later = sign_entry(visit.fact, visit.previous, handed.key, {"co2_g": 12.5, "by": ("sun",)})
    measured = sign_entry(measured.fact, (later.digest,), handed.verifier, {"asked": 40})
    handed.entries = (origin, later, measured)
    own = SignedStatement(entry=later.digest, signed=sign_statement(later, NETWORK, handed.key))
    handed.statements = (own,)
    out = tmp_path / "later"
    await elsewhere(handed).export(out)
    verified = handed.verify(out)
    assert verified.own_statements == 1
    assert verified.entries[1].more == {"co2_g": 12.5, "by": ("sun",)}
    lines = (out / "provenance" / "statements.intoto.jsonl").read_text().splitlines()
    assert stated(lines[1], handed.key.public)["predicate"]["more"]["co2_g"] == 12.5
    lineage = out / "lineage.json"
    text = lineage.read_text()
    for changed in (text.replace("12.5", "11.5"), text.replace('"more"', '"less"')):
        assert changed != text
        lineage.write_text(changed)
        with pytest.raises(Corrupt):
            handed.verify(out)
        with pytest.raises(Corrupt, match=r"signature|builds on"):
            read_entries(lineage)


def read_entries(lineage: Path) -> None:
    """Check the entries alone, as of an unsigned folder."""
    check_lineage(msgspec.json.decode(lineage.read_bytes(), type=Lineage))


async def test_a_form_that_the_exporter_made_is_its_own_word(
    handed: Handed, tmp_path: Path
) -> None:
    """Sites signed the parts: nobody but the exporter says what became of them."""
    out = tmp_path / "made"
    copied(handed.folder / "out", out)
    for name in ("manifest.json", "tokenizer.json", "model.sig"):
        (out / name).unlink()
    bill = json.loads((out / "provenance" / "bom.cdx.json").read_text())
    bill["components"] = [one for one in bill["components"] if one["name"] != "tokenizer.json"]
    bill["dependencies"][0]["dependsOn"].remove("file/tokenizer.json")
    (out / "provenance" / "bom.cdx.json").write_text(json.dumps(bill))
    write_exporter(
        out, handed.owner, handed.members["ada"], NETWORK, (handed.model.manifest, "gguf"), 5.0
    )
    hashes = {name: hashed(path) for name, path in files_in(out).items()}
    (out / "model.sig").write_bytes(signature_of("made", hashes, handed.owner))
    verified = handed.verify(out)
    assert verified.converted
    assert "only ada says" in " ".join(summary(out, verified, Signers()))
