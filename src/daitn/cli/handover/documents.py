"""Checks what an export says about a model in other words than sites did: bill, card, descriptions
of data sets, program and envelopes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

import daitn
from daitn.cli.card import SignedFacts, Words, model_card
from daitn.cli.handover.bill import bill_of, words_of
from daitn.cli.handover.comparing import difference
from daitn.cli.handover.descriptions import check_description
from daitn.cli.handover.folder import (
    BILL,
    CARD,
    DATASETS,
    EXPORTER,
    PROGRAM,
    STATEMENTS,
    WRITTEN,
    hashed,
    read_bytes,
)
from daitn.cli.handover.stated_card import card_words
from daitn.cli.handover.table import By, Checked, check_present, rule_of
from daitn.identity.dsse import plain_json, read_dsse
from daitn.objects.errors import Corrupt
from daitn.objects.lineage import Origin
from daitn.objects.models import Manifest

__all__ = ["MOST_STATED_BYTES", "Documents"]

_PROGRAMS: Final = {
    recipe: Path(daitn.__file__).parent / "learning" / package / PROGRAM
    for recipe, package in (("classifier", "classifier"), ("boosted-trees", "boosted_trees"))
}
"""The programs that this release puts beside the parts of a recipe."""
MOST_STATED_BYTES: Final = 256 << 20
"""Limit on the file of statements."""


class Documents:
    """The files of one export, of which each is one that the exporter signed, if anybody did."""

    def __init__(
        self,
        folder: Path,
        hashes: Mapping[str, str],
        facts: SignedFacts,
        manifest: Manifest | None,
        *,
        signed: bool,
    ) -> None:
        """`hashes`: the SHA-256 of each file. `manifest`: none in another form than parts."""
        self._folder, self._hashes = folder, hashes
        self._facts, self._manifest, self._signed = facts, manifest, signed
        self._parts = None if manifest is None else {part.name for part in manifest.parts}
        self._version = ""
        """Of the software that exported, by the bill; empty if there is none."""

    def check(self) -> dict[str, Checked]:
        """Check all of them; returns what each is worth."""
        check_present(self._hashes.keys(), signed=self._signed, parts=self._parts is not None)
        checked = {name: self._by_rule(name) for name in self._hashes}
        if self._signed:
            self._check_envelopes()
        described = {
            check_description(self._json(name), name, self._facts.visits): name
            for name in sorted(self._hashes)
            if name.startswith(f"{DATASETS}/")
        }
        if BILL in self._hashes:
            words = self._check_bill(described)
            self._check_card(words)
        elif CARD in checked:
            checked[CARD] = Checked(by=By.NOBODY)
        if PROGRAM in checked and checked[PROGRAM].by is By.RELEASE:
            checked[PROGRAM] = self._program()
        return checked

    def _by_rule(self, name: str) -> Checked:
        rule = rule_of(name, self._parts)
        return Checked(by=self._signer(rule.by), words=rule.words)

    def _signer(self, by: By) -> By:
        return By.NOBODY if by is By.EXPORTER and not self._signed else by

    def _json(self, name: str) -> Any:
        return plain_json(read_bytes(self._folder / name, name), name)

    def _check_envelopes(self) -> None:
        """Their signatures do not cover what is around the statements."""
        lines = {f"{EXPORTER}:1": read_bytes(self._folder / EXPORTER, EXPORTER)}
        stated = read_bytes(self._folder / STATEMENTS, STATEMENTS, MOST_STATED_BYTES)
        for number, line in enumerate(stated.splitlines(keepends=True), 1):
            lines[f"{STATEMENTS}:{number}"] = line
        for field, line in lines.items():
            if msgspec.json.encode(read_dsse(line, field)) + b"\n" != line:
                raise self._lie("it holds something that is not signed", field)

    def _check_bill(self, described: Mapping[tuple[str, str], str]) -> Words:
        """Recompute the bill; returns what only it says."""
        bill = self._json(BILL)
        try:
            words = words_of(bill)
        except (ValueError, msgspec.ValidationError) as error:
            raise self._lie(f"no bill of an export: {error}", BILL) from None
        self._version = words.version
        words = self._known(words)
        weights = {n: of for n, of in self._hashes.items() if self._is_of_model(n)}
        expected = bill_of(self._facts, words, weights, described)
        if found := difference(bill, expected):
            raise self._lie(
                f"{found.path} is {found.stated or 'missing'}, and by the lineage and the files it "
                f"is {found.expected or 'not there'}",
                f"{BILL}:{found.path}",
            )
        return words

    def _known(self, words: Words) -> Words:
        """With the recipe, and the size of the manifest, which sites signed."""
        if self._manifest is None:
            made = (fact.recipe for fact in self._facts.every if isinstance(fact, Origin))
            return dataclasses.replace(words, recipe=next(made, words.recipe))
        recipe, size_bytes = self._manifest.recipe, self._manifest.size_bytes
        return dataclasses.replace(words, recipe=recipe, size_bytes=size_bytes)

    def _is_of_model(self, name: str) -> bool:
        """Whether it is one of the files that a bill lists."""
        return name not in WRITTEN and not name.startswith(f"{DATASETS}/")

    def _check_card(self, words: Words) -> None:
        """Recompute the card."""
        stated = read_bytes(self._folder / CARD, CARD)
        try:
            text = stated.decode()
            words = card_words(text, self._facts, words, sized=self._manifest is not None)
        except ValueError as error:
            raise self._lie(f"no card of an export: {error}", CARD) from None
        lines, expected = text.split("\n"), model_card(self._facts, words).split("\n")
        if lines == expected:
            return
        length = max(len(lines), len(expected))
        for number in range(length):
            one, other = lines[number : number + 1], expected[number : number + 1]
            if one != other:
                raise self._lie(
                    f"line {number + 1} is {''.join(one)[:100]!a}, and by the lineage and the bill "
                    f"it is {''.join(other)[:100]!a}",
                    f"{CARD}:{number + 1}",
                )

    def _program(self) -> Checked:
        """Compare the program with that of this release: recipients run it."""
        program = _PROGRAMS.get(self._manifest.recipe) if self._manifest else None
        if program is None:
            return Checked(by=self._signer(By.EXPORTER))
        if self._hashes[PROGRAM] == hashed(program):
            return Checked(by=By.RELEASE)
        if self._version == daitn.__version__:
            raise self._lie(
                f"it is not the program that daitn {self._version} writes, which the bill names",
                PROGRAM,
            )
        return Checked(by=self._signer(By.EXPORTER))

    def _lie(self, problem: str, field: str) -> Corrupt:
        again = "have another member of the network export the model"
        if self._version not in ("", daitn.__version__):
            again = f"check it with the release that it names, daitn {self._version}; or {again}"
        return Corrupt(problem, field=field, fix=f"do not believe it; {again}")
