"""Checks an exported folder without a network."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Final

import msgspec

from daitn.cli.card import SignedFacts
from daitn.cli.handover.comparing import difference
from daitn.cli.handover.documents import MOST_STATED_BYTES, Documents
from daitn.cli.handover.exporter import Exporter, read_exporter
from daitn.cli.handover.folder import (
    ADDED,
    BESIDE,
    DATASETS,
    LINEAGE,
    MANIFEST,
    SIGNED,
    STATEMENTS,
    WRITTEN,
    files_in,
    hashed,
    other_line_ends,
    read_bytes,
    read_whole,
)
from daitn.cli.handover.signers import Signers
from daitn.cli.handover.table import Checked
from daitn.identity.dsse import AGAIN, opened, read_dsse
from daitn.identity.model_signing import SIGNATURE
from daitn.identity.signing import check_model
from daitn.identity.statements import check_statement
from daitn.objects.digests import digest_of
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.lineage import Entry, Lineage, ancestry
from daitn.objects.models import DO_NOT_USE, Manifest, Part
from daitn.objects.statements import statement_of
from daitn.objects.text import some
from daitn.objects.wire import canonical
from daitn.tools.mobility.manifests import checked_manifest

__all__ = ["VerifiedModel", "verify_folder"]

PARTS: Final = "parts"
_MOST_TEXT_BYTES: Final = 64 << 20
"""Maximum size of a file that may have been converted to another system's text format."""


class VerifiedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The verified properties of an exported folder."""

    job: str
    model: Digest
    """Name in its manifest."""
    entries: tuple[Entry, ...]
    """Its lineage, oldest first."""
    exporter: Exporter | None = None
    """Signer of the folder; none if nobody signed."""
    own_statements: int = 0
    """Number of statements signed by the entries' own sites; the exporter signed the others."""
    roster_version: int = 0
    """Version of the roster against which the keys were checked; 0 means none."""
    files: dict[str, Checked]
    """Whose word each file is, by its path."""

    @property
    def converted(self) -> bool:
        """Whether the weights are not those that sites signed, but were made from them by the
        exporter."""
        return self.exporter is not None and self.exporter.form != PARTS


def verify_folder(
    folder: Path, signers: Signers | None = None, *, unsigned: bool = False
) -> VerifiedModel:
    """Check an exported folder: its signature, its lineage, its weights, and whatever else it says
    of them.

    `signers`: whose keys are whose; none: whoever signed is believed. With a roster, somebody in it
    must have signed the folder, unless `unsigned`. Raises `NotFound` for a missing file, `Corrupt`
    for a model that is not what it says, and `Refused` for one that nobody signed.
    """
    signers = signers or Signers()
    files = files_in(folder)
    exporter, hashes = _exporter(folder, files, signers, unsigned)
    lineage = read_whole(folder, LINEAGE, Lineage)
    if exporter is not None and exporter.form != PARTS:
        manifest, model = None, exporter.model
    else:
        manifest = checked_manifest(read_whole(folder, MANIFEST, Manifest))
        model = digest_of(canonical(manifest))
    if exporter is not None and exporter.model != model:
        raise Corrupt(
            f"the folder is signed as the model {exporter.model}, and the manifest is of {model}",
            field=MANIFEST,
            fix=AGAIN,
        )
    _check_lineage(lineage, model, signers)
    own = _check_statements(folder, lineage, exporter)
    if manifest is not None:
        _check_names(folder, files, manifest)
    found = _check_contents(files, hashes, manifest)
    facts = SignedFacts(lineage.job, model, lineage.entries)
    documents = Documents(folder, found, facts, manifest, signed=exporter is not None)
    return VerifiedModel(
        job=lineage.job,
        model=model,
        entries=lineage.entries,
        exporter=exporter,
        own_statements=own,
        roster_version=signers.roster.version if signers.roster else 0,
        files=documents.check(),
    )


def _exporter(
    folder: Path, files: Mapping[str, Path], signers: Signers, unsigned: bool
) -> tuple[Exporter | None, dict[str, str] | None]:
    """The signer of the folder, and the SHA-256 of each file; none if no signature is required."""
    if files.keys().isdisjoint(SIGNED):
        if signers.roster is not None and not unsigned:
            raise Refused(
                "the folder is unsigned: whoever gave it to you may have changed what no site "
                "signed, or left something out",
                field=SIGNATURE,
                fix="have a member of the network export it again; for unsigned exports of "
                "earlier releases, --unsigned checks what sites signed, and names the rest",
            )
        return None, None
    exporter, hashes = read_exporter(folder)
    signers.check_exporter(exporter)
    present = files.keys() - {SIGNATURE}
    _check_same(
        present,
        hashes.keys(),
        "not among the files that the exporter signed",
        "the exporter signed",
    )
    return exporter, hashes


def _check_same(present: Set[str], named: Set[str], added: str, missing: str) -> None:
    """Raise `Corrupt` unless the files in a folder are exactly those `named`."""
    if more := sorted(present - named):
        raise Corrupt(
            f"{_several(more)} {added}",
            field=more[0],
            fix=f"if you put {'it' if len(more) == 1 else 'them'} there, move that out of the "
            f"folder; else {AGAIN}",
        )
    if less := sorted(named - present):
        raise Corrupt(
            f"{_several(less)} missing: {missing} {'it' if len(less) == 1 else 'them'}",
            field=less[0],
            fix=f"put back what you have moved out of the folder; else {AGAIN}",
        )


def _several(names: Sequence[str]) -> str:
    """Some names with the right verb: `a is`, `a, b and 3 more are`."""
    return f"{some(names)} {'is' if len(names) == 1 else 'are'}"


def _check_lineage(lineage: Lineage, model: Digest, signers: Signers) -> None:
    """Raise `Corrupt` unless every entry belongs to this model, and to its site."""
    signers.check_lineage(lineage)
    keys: Mapping[SiteId, str] | None = signers.sites
    if signers.roster is None and not signers.keys:
        keys = None
    check_model(lineage, model, keys)
    times = Counter(entry.digest for entry in lineage.entries)
    theirs = {entry.digest for entry in ancestry(lineage, model).entries}
    for position, entry in enumerate(lineage.entries):
        problem = "occurs twice" if times[entry.digest] > 1 else ""
        if entry.digest not in theirs:
            problem = "is of another model: nothing of this one builds on it"
        elif entry.fact.job != lineage.job:
            problem = f"is of the job {entry.fact.job}, and the lineage of {lineage.job}"
        if problem:
            raise Corrupt(
                f"the entry {problem}",
                field=f"entries[{position}]",
                fix=DO_NOT_USE,
            )


def _check_statements(folder: Path, lineage: Lineage, exporter: Exporter | None) -> int:
    """Raise `Corrupt` unless there is a statement for each entry, in their order; returns how many
    were signed by the entries' own sites."""
    if exporter is None:
        return 0
    lines = read_bytes(folder / STATEMENTS, STATEMENTS, MOST_STATED_BYTES).splitlines()
    if len(lines) != len(lineage.entries):
        raise Corrupt(
            f"{len(lines)} statements of {len(lineage.entries)} entries",
            field=STATEMENTS,
            fix=AGAIN,
        )
    own = 0
    for number, (line, entry) in enumerate(zip(lines, lineage.entries, strict=True), 1):
        field = f"{STATEMENTS}:{number}"
        signer = check_statement(line, entry, exporter.network, exporter.public_key, field)
        if signer == entry.public_key:
            own += 1
            continue
        stated = opened(read_dsse(line, field), signer, field)
        if found := difference(stated, statement_of(entry, exporter.network)):
            raise Corrupt(
                f"{exporter.name} adds {found.path} to what {entry.fact.site} signed",
                field=field,
                fix=DO_NOT_USE,
            )
    return own


def _check_names(folder: Path, files: Mapping[str, Path], manifest: Manifest) -> None:
    named = {part.name for part in manifest.parts}
    added = {name for name in files if name in WRITTEN or name.startswith(f"{DATASETS}/")}
    if taken := sorted(named & ADDED):
        raise Corrupt(
            f"the manifest of {folder} names {taken[0]} as a part of the model, which no part is "
            "called",
            field=MANIFEST,
            fix=AGAIN,
        )
    _check_same(
        files.keys() - added - (BESIDE - named),
        named,
        f"not among the parts that the manifest of {folder} names",
        f"the manifest of {folder} names",
    )


def _check_contents(
    files: Mapping[str, Path], hashes: Mapping[str, str] | None, manifest: Manifest | None
) -> dict[str, str]:
    """The SHA-256 of each file. Raise `Corrupt` for one that differs from the signed one."""
    parts = {part.name: part for part in manifest.parts} if manifest else {}
    return {name: _checked(name, path, parts.get(name), hashes) for name, path in files.items()}


def _checked(name: str, path: Path, part: Part | None, hashes: Mapping[str, str] | None) -> str:
    by = "the exporter signed" if part is None else "the manifest says"
    chunks: list[Digest] = []
    if part is None or path.stat().st_size == part.size_bytes:
        found = hashed(path, chunks.append if part is not None else None)
        signed = found if hashes is None or name == SIGNATURE else hashes[name]
        if part is None or tuple(chunks) == part.chunks:
            if found == signed:
                return found
            by = "the exporter signed"
    if hashes is not None and name in hashes and _has_other_line_ends(path, hashes[name]):
        raise other_line_ends(name)
    raise Corrupt(f"{name} is not what {by}", field=name, fix=AGAIN)


def _has_other_line_ends(path: Path, signed: str) -> bool:
    if path.stat().st_size > _MOST_TEXT_BYTES:
        return False
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest() == signed
