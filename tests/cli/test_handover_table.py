"""Each file of an export is checked, or whose word it is, is told: an exporter who signs what
contradicts the lineage is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import daitn
from daitn.cli.card import is_prose
from daitn.cli.handover.folder import files_in, hashed
from daitn.cli.handover.signers import Signers
from daitn.cli.handover.summary import summary
from daitn.cli.handover.table import TABLE, By
from daitn.cli.handover.verifying import verify_folder
from daitn.identity.dsse import sealed
from daitn.identity.model_signing import SIGNATURE
from daitn.identity.statements import sign_statement
from daitn.objects.errors import Corrupt
from daitn.objects.statements import statement_of
from tests.cli.handed import NETWORK, Handed, copied
from tests.cli.test_handover_hostile import Cheat, lineage, refused, stripped

BILL, DATASET = "provenance/bom.cdx.json", "provenance/datasets/clinic.notes.json"
PROGRAM = Path(daitn.__file__).parent / "learning" / "classifier" / "predict.py"


def edited(name: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    """Change the JSON of a file."""

    def edit(out: Path) -> None:
        value = json.loads((out / name).read_text())
        change(value)
        (out / name).write_text(json.dumps(value))

    return edit


def replaced(name: str, old: str, new: str) -> Callable[[Path], object]:
    """Change the text of a file."""

    def replace(out: Path) -> None:
        text = (out / name).read_text()
        assert old in text
        (out / name).write_text(text.replace(old, new, 1))

    return replace


def metrics(bill: Any) -> Any:
    return bill["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]


def other_program(out: Path) -> None:
    (out / "predict.py").write_text("print('class 1')")
    with_file("predict.py")(out)


def with_file(name: str) -> Callable[[Path], object]:
    """List a file beside the parts in the bill, as an export does."""

    def add(out: Path) -> None:
        bill = json.loads((out / BILL).read_text())
        listed = {one["name"]: one for one in bill["components"] if one["type"] == "file"}
        content = hashed(out / name)
        listed[name] = {
            "type": "file", "bom-ref": f"file/{name}", "name": name,
            "hashes": [{"alg": "SHA-256", "content": content}],
        }  # fmt: skip
        data = [one for one in bill["components"] if one["type"] == "data"]
        bill["components"] = [*data, *(listed[one] for one in sorted(listed))]
        bill["dependencies"][0]["dependsOn"] = [one["bom-ref"] for one in bill["components"]]
        (out / BILL).write_text(json.dumps(bill))

    return add


LIES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a better figure in the bill": (
        edited(BILL, lambda b: metrics(b)[0].update(value="0.999")),
        f"{BILL}:metadata.component.modelCard.quantitativeAnalysis.performanceMetrics[0].value",
        'is "0.999", and by the lineage and the files it is "0.75"',
    ),
    "one figure more in the bill": (
        edited(BILL, lambda b: metrics(b).append(metrics(b)[0])), BILL, "is not there",
    ),
    "no figure in the bill": (edited(BILL, lambda b: metrics(b).clear()), BILL, "is missing"),
    "praise in the bill": (
        edited(BILL, lambda b: b.update(annotations=["0.999"])), f"{BILL}:annotations", "0.999",
    ),
    "another model in the bill": (
        edited(BILL, lambda b: b["metadata"]["component"].update(version="e" * 64)), BILL, "eeee",
    ),
    "fewer visits in the bill": (
        edited(BILL, lambda b: b["components"][0]["data"][0].update(description="0 visits")),
        f"{BILL}:components[0].data[0].description", "1 visit, 20 examples",
    ),
    "a file less in the bill": (edited(BILL, lambda b: b["components"].pop()), BILL, "missing"),
    "an empty bill": (lambda out: (out / BILL).write_text("{}"), BILL, "no bill of an export"),
    "a bill of two minds": (
        replaced(BILL, '"bomFormat"', '"version": 2, "bomFormat"'), BILL, "twice",
    ),
    "a bill that is none": (lambda out: (out / BILL).write_text("x"), BILL, "no JSON"),
    "no bill": (lambda out: (out / BILL).unlink(), BILL, "is missing, which every signed export"),
    "a description that is none": (
        lambda out: (out / DATASET).write_text('"x"'), DATASET, "no description of a data set",
    ),
    "a description with praise": (
        edited(DATASET, lambda d: d.update(accuracy=0.999)), f"{DATASET}:accuracy", "0.999",
    ),
    "a description without a name": (
        edited(DATASET, lambda d: d.pop("name")), DATASET, "no 'name'",
    ),
    "a description with a number for its date": (
        edited(DATASET, lambda d: d.update(dateModified=0.999)), DATASET, "no description",
    ),
    "a description with labels that are none": (
        edited(DATASET, lambda d: d.update({"daitn:labels": ["x"]})), DATASET, "no description",
    ),
    "a description with a date in words": (
        edited(DATASET, lambda d: d.update(dateModified="0.999")), DATASET, "no time in UTC",
    ),
    "a data set that was not visited": (
        edited(DATASET, lambda d: d.update(name="scans")), f"{DATASET}:name", "did not visit",
    ),
    "no description, though the bill has one": (
        lambda out: (out / DATASET).unlink(), BILL, "provenance/datasets/clinic.notes.json",
    ),
    "no card": (lambda out: (out / "README.md").unlink(), "README.md", "is missing"),
    "a card that is none": (
        lambda out: (out / "README.md").write_text("0.999"), "README.md", "no card of an export",
    ),
    "a better figure in the card": (
        replaced("README.md", "| 0.7500 |", "| 0.9990 |"), "README.md", "0.7500",
    ),
    "a target with a figure": (
        replaced("README.md", " |  | exam |", " | 0.9 by exam | exam |"), "README.md", "TARGET",
    ),
    "a better figure in the card's lineage": (
        replaced("README.md", "colds 0.7500", "colds 0.9990"), "README.md:", "0.7500",
    ),
    "praise in the card": (
        replaced("README.md", "## Where", "Accuracy: 0.999\n\n## Where"), "README.md:", "0.999",
    ),
    "a better figure for programs that read the card": (
        replaced("README.md", '"value": 0.75', '"value": 0.99'), "README.md:4", "model-index",
    ),
    "another owner in the card": (
        replaced("README.md", "for `acme`", "for `ada`"), "README.md:8", "acme",
    ),
    "another state": (
        replaced("README.md", "the job: reached", "the job: great"), "README.md", "unknown state",
    ),
    "a table among the instructions": (
        replaced("README.md", "## Measured", "## Use\n\n|a|b|\n|-|-|\n\n## Measured"),
        "README.md", "could pass for another part",
    ),
    "instructions that hide the figures": (
        replaced("README.md", "## Measured", "## Use\n\n```\nx\n\n## Measured"),
        "README.md", "could pass for another part",
    ),
    "a lineage with praise": (
        edited("lineage.json", lambda v: v["entries"][2]["fact"].update(best=0.999)),
        "lineage.json:entries[2].fact.best", "is not signed",
    ),
    "a manifest with praise": (
        edited("manifest.json", lambda v: v.update(accuracy=0.999)),
        "manifest.json:accuracy", "is not signed",
    ),
    "a file of which nobody knows what it is": (
        lambda out: (out / "provenance" / "figures.json").write_text("0.999"),
        "provenance/figures.json", "",
    ),
    "another program": (other_program, "predict.py", f"the program that daitn {daitn.__version__}"),
}  # fmt: skip


@pytest.mark.parametrize("what", LIES)
def test_what_an_exporter_signs_against_the_lineage_is_refused(
    what: str, handed: Handed, out: Path
) -> None:
    change, field, told = LIES[what]
    change(out)
    Cheat(handed, out).signs(handed.owner)
    error = refused(handed, out)
    assert error.field.startswith(field)
    assert told in error.problem


def test_an_exporter_adds_nothing_to_what_a_site_signed(handed: Handed, out: Path) -> None:
    origin, visit, measured = handed.entries
    said = statement_of(measured, NETWORK)
    said["predicate"]["fact"]["best"] = 0.999
    lines = [sign_statement(one, NETWORK, handed.owner) for one in (origin, visit)]
    Cheat(handed, out).hands_over(lineage(handed), *lines, sealed(said, handed.owner))
    assert "ada adds predicate.fact.best to what exam signed" in refused(handed, out).problem
    around = sign_statement(measured, NETWORK, handed.owner)[:-1] + b',"best":0.999}'
    Cheat(handed, out).hands_over(lineage(handed), *lines, around)
    assert refused(handed, out).field == "provenance/statements.intoto.jsonl:3"


def test_a_lie_of_another_release_is_told_from_the_form_of_its_files(
    handed: Handed, out: Path
) -> None:
    def change(bill: Any) -> None:
        bill["metadata"]["tools"]["components"][0]["version"] = "9.9"
        bill["news"] = 1

    edited(BILL, change)(out)
    Cheat(handed, out).signs(handed.owner)
    error = refused(handed, out)
    assert error.field == f"{BILL}:news"
    assert "check it with the release that it names, daitn 9.9" in error.fix


def test_the_words_of_an_exporter_are_not_compared(handed: Handed, out: Path) -> None:
    """Docs list them."""

    def change(bill: Any) -> None:
        bill["metadata"]["timestamp"] = "2020-01-01T00:00:00+00:00"
        bill["metadata"]["component"]["description"] = "Trained by DA-ITN for bob"

    edited(BILL, change)(out)
    replaced("README.md", "`acme`", "`bob`")(out)
    replaced("README.md", "## Measured", "## Use\n\nAsk `it`:\n\n```\n# so\n```\n\n## Measured")(
        out
    )
    edited(DATASET, lambda d: d.update(description="Notes.", license="CC0"))(out)
    Cheat(handed, out).signs(handed.owner)
    verified = handed.verify(out)
    assert "owner" in verified.files[BILL].words
    assert {"owner", "use"} <= set(verified.files["README.md"].words)
    assert {"description", "license"} <= set(verified.files[DATASET].words)


def test_it_is_told_of_each_file_whose_word_it_is(handed: Handed, out: Path) -> None:
    shutil.copyfile(PROGRAM, out / "predict.py")
    (out / "config.json").write_text("{}")
    for name in ("predict.py", "config.json"):
        with_file(name)(out)
    Cheat(handed, out).signs(handed.owner)
    verified = handed.verify(out)
    assert verified.files.keys() == files_in(out).keys()
    assert TABLE.keys() <= verified.files.keys()
    assert {name: one.by for name, one in verified.files.items()} == {
        "weights.safetensors": By.SITES,
        "tokenizer.json": By.SITES,
        "manifest.json": By.SITES,
        "lineage.json": By.SITES,
        "README.md": By.LINEAGE,
        BILL: By.LINEAGE,
        DATASET: By.LINEAGE,
        "provenance/statements.intoto.jsonl": By.LINEAGE,
        "provenance/exporter.dsse.json": By.EXPORTER,
        "provenance/exporter.pem": By.EXPORTER,
        "model.sig": By.EXPORTER,
        "predict.py": By.RELEASE,
        "config.json": By.EXPORTER,
    }
    text = "\n".join(summary(out, verified, Signers()))
    assert "only ada says what is in config.json" in text


def test_what_nobody_vouches_for_in_an_unsigned_folder_is_named(handed: Handed, out: Path) -> None:
    stripped(out)
    shutil.copyfile(PROGRAM, out / "predict.py")
    (out / "config.json").write_text("{}")

    def told() -> str:
        return "\n".join(summary(out, handed.verify(out, unsigned=True), Signers()))

    assert "predict.py" not in told()
    (out / "predict.py").write_text("import os")
    (out / "README.md").write_text("0.999")
    text = told()
    assert "nobody vouches for:" in text
    assert (
        "  README.md, all of it\n  config.json, all of it\n  predict.py, all of it (a program)"
        in text
    )
    said = json.loads(msgspec.json.encode(handed.verify(out, unsigned=True)))["files"]
    assert {name for name, one in said.items() if one["by"] == "nobody"} == {
        "README.md", "config.json", "predict.py"
    }  # fmt: skip


@pytest.mark.parametrize("what", ["a better figure in the bill", "a better figure in the card"])
def test_an_unsigned_folder_with_a_bill_is_compared_with_its_lineage(
    what: str, handed: Handed, out: Path
) -> None:
    for name in ("exporter.pem", "exporter.dsse.json", "statements.intoto.jsonl"):
        (out / "provenance" / name).unlink()
    (out / SIGNATURE).unlink()
    text = "\n".join(summary(out, handed.verify(out, unsigned=True), Signers()))
    assert "  README.md: owner, parameters, state, targets, use" in text
    LIES[what][0](out)
    with pytest.raises(Corrupt):
        handed.verify(out, unsigned=True)


@pytest.mark.parametrize("added", [b" ", b"\n", b"\n\n"])
def test_a_signature_has_nothing_around_it(added: bytes, handed: Handed, out: Path) -> None:
    data = (out / SIGNATURE).read_bytes()
    inside = data[:-2] + b',"best":0.999}\n'
    hinted = data.replace(b'"hint":"', b'"hint":"0')
    logged = data.replace(b'"tlogEntries":[]', b'"tlogEntries":[0.999]')
    for changed in (data + added, added + data, data[:-1], inside, hinted, logged):
        assert changed != data
        (out / SIGNATURE).write_bytes(changed)
        assert refused(handed, out).field == SIGNATURE


def test_a_key_has_nothing_around_it(handed: Handed, out: Path) -> None:
    key = out / "provenance" / "exporter.pem"
    key.write_bytes(b"accuracy: 0.999\n" + key.read_bytes())
    assert "holds more than the key" in refused(handed, out).problem


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("It answers `f\"<question>{x}\"`; so:\n\n```python\n# a | b\n```\n\nEnd.", True),
        ("````\n```\n````", True),
        ("# a", False), ("a\n=", False), ("a | b", False), ("<h1>", False), ("```\na", False),
        ("![x](y)", False), ("a\rb", False), ("`a", False), ("\\`<h1>\\`", False),
        ("```\na\n  ```\n# b\n```", False), ("``a`` <h1>", False),
    ],
)  # fmt: skip
def test_instructions_are_prose_and_code(text: str, prose: bool) -> None:
    assert is_prose(text) is prose


def test_a_copy_of_an_export_is_worth_the_same(handed: Handed, out: Path) -> None:
    assert handed.verify(copied(out, handed.folder / "copy")) == handed.verify(out)


def test_without_a_roster_all_is_compared_too(handed: Handed, out: Path) -> None:
    LIES["a better figure in the bill"][0](out)
    Cheat(handed, out).signs(handed.owner)
    with pytest.raises(Corrupt, match=r"0\.999"):
        verify_folder(out)
