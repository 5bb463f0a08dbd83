"""How each file of an export is checked, and whose word it is then."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from daitn.cli.handover.folder import (
    BILL,
    CARD,
    CONFIG,
    DATASETS,
    EXPORTER,
    EXPORTER_KEY,
    LINEAGE,
    MANIFEST,
    PROGRAM,
    PROVENANCE,
    STATEMENTS,
    WRITTEN,
)
from daitn.identity.dsse import AGAIN
from daitn.identity.model_signing import SIGNATURE
from daitn.objects.errors import Corrupt

__all__ = ["TABLE", "By", "Checked", "Rule", "check_present", "rule_of"]


class By(enum.StrEnum):
    """Whose word the content of a file is."""

    SITES = "sites"
    """Sites signed it, or the digest of it."""
    LINEAGE = "lineage"
    """Recomputed from what sites signed, and the same."""
    RELEASE = "release"
    """The same as what this release writes."""
    EXPORTER = "exporter"
    """Only the exporter signed it."""
    NOBODY = "nobody"
    """Nobody vouches for it."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The result of checking one file."""

    by: By
    words: tuple[str, ...] = ()
    """What in it was not compared: the exporter's word, if it signed the file; else nobody's."""


class When(enum.Enum):
    """In which exports a file must be present."""

    ALL = enum.auto()
    PARTS = enum.auto()
    """In those in the form of parts; in others it must not be."""
    SIGNED = enum.auto()
    """In signed ones: unsigned ones of earlier releases lack it."""
    MAYBE = enum.auto()


class Rule(NamedTuple):
    """How a file is checked."""

    by: By
    """Whose word it is if the check passes."""
    when: When
    words: tuple[str, ...] = ()
    """As in `Checked`."""


TABLE: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        MANIFEST: Rule(By.SITES, When.PARTS),
        LINEAGE: Rule(By.SITES, When.ALL),
        STATEMENTS: Rule(By.LINEAGE, When.SIGNED),
        BILL: Rule(By.LINEAGE, When.SIGNED, ("owner", "parameters", "timestamp", "version")),
        CARD: Rule(By.LINEAGE, When.SIGNED, ("owner", "parameters", "state", "targets", "use")),
        SIGNATURE: Rule(By.EXPORTER, When.SIGNED),
        EXPORTER: Rule(By.EXPORTER, When.SIGNED),
        EXPORTER_KEY: Rule(By.EXPORTER, When.SIGNED),
        CONFIG: Rule(By.EXPORTER, When.MAYBE),
        PROGRAM: Rule(By.RELEASE, When.MAYBE),
    }
)
"""Of files with fixed names. A file of the model named like one of the last two is one of the
model's."""
_DATASET: Final = Rule(
    By.LINEAGE,
    When.MAYBE,
    (
        "description", "license", "keywords", "dateModified", "dataSchema", "modality", "topics",
        "samples", "labels", "quality", "jurisdiction",
    ),
)  # fmt: skip
"""Of a data set's description: that the model visited it is compared, and the rest is as its site
published it, by the exporter's word."""
_PART: Final = Rule(By.SITES, When.ALL)
"""Of a part that the manifest names."""
_CONVERTED: Final = Rule(By.EXPORTER, When.MAYBE)
"""Of the weights in another form than that which sites signed."""


def rule_of(name: str, parts: Set[str] | None) -> Rule:
    """How a file is checked. `parts`: names of those in the manifest; none: the model is in another
    form. Raises `Corrupt` for a file of which nothing says what it is."""
    if parts is not None and name in parts:
        return _PART
    if name.startswith(f"{DATASETS}/"):
        return _DATASET
    if parts is not None and name in TABLE:
        return TABLE[name]
    if parts is None and name in WRITTEN - {MANIFEST}:
        return TABLE[name]
    if parts is None and name != MANIFEST and not name.startswith(f"{PROVENANCE}/"):
        return _CONVERTED
    form = "in another form than parts " if parts is None else ""
    raise Corrupt(f"an export {form}has no file {name}", field=name, fix=AGAIN)


def check_present(present: Set[str], *, signed: bool, parts: bool) -> None:
    """Raise `Corrupt` for a file that every such export has, and this one lacks."""
    needed = {When.ALL} | ({When.SIGNED} if signed else set()) | ({When.PARTS} if parts else set())
    for name, rule in TABLE.items():
        if rule.when in needed and name not in present:
            raise Corrupt(
                f"{name} is missing, which every {'signed ' * signed}export has",
                field=name,
                fix="have a member of the network export the model again",
            )
