"""The signed chain of a model's visits and verifications.

Each entry names the digests of the entries it builds on, as a Git commit names its parents, so none
can be dropped or reordered. The site that wrote it signs it. A visit builds on every verification
of the model it received; a merge builds on the visits that made its models; a verification builds
on what made the model it measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import msgspec

from daitn.objects.compression import Compression
from daitn.objects.digests import digest_of
from daitn.objects.identifiers import Digest, JobId, SiteId, VisitId, Word
from daitn.objects.merging import MOST_MERGED, MergeRule
from daitn.objects.privacy import PrivacySpent
from daitn.objects.unknown_fields import Extensible
from daitn.objects.wire import canonical

__all__ = [
    "MOST_LABELS",
    "MOST_STATEMENT_BYTES",
    "MOST_VISITS",
    "Entry",
    "Lineage",
    "LineageFact",
    "Merge",
    "Origin",
    "SignedStatement",
    "Verification",
    "Visit",
    "ancestry",
    "descent",
    "given_to",
    "left_by",
    "released",
    "rounds_behind",
    "shares_of",
    "visits_behind",
]

MOST_VISITS: Final = 4096
"""Maximum number of visits behind one model."""

MOST_LABELS: Final = 4096
"""Labels of one data or test set."""
MOST_STATEMENT_BYTES: Final = 1 << 20
"""Size limit of an entry in its envelope; that of a merge names up to 256 models."""


class Origin(msgspec.Struct, frozen=True, kw_only=True, tag="origin", omit_defaults=True):
    """A fresh or imported model was created at `site`."""

    job: JobId
    visit: VisitId
    site: SiteId
    at_s: float
    recipe: Word
    seed: int
    model: Digest
    order: Digest = Digest("")
    """The order under which it was made; empty on a fabric without signatures."""


class Visit(msgspec.Struct, frozen=True, kw_only=True, tag="visit", omit_defaults=True):
    """A model was trained at `site`."""

    job: JobId
    visit: VisitId
    site: SiteId
    dataset: Word
    at_s: float
    """When the visit ended."""
    seconds: float
    """Training only."""
    transfer_s: float
    """Fetching the model from its holders."""
    overhead_s: float
    """From the command's arrival to the report, minus transfer and training."""
    bytes_in: int
    """Bytes transferred to the site, without chunks it already held."""
    examples: Annotated[int, msgspec.Meta(ge=0, le=10**12)]
    loss: float | None
    """Mean over the visit's last tenth, rounded; none if the recipe reported none."""
    model_in: Digest
    model_out: Digest
    size_bytes: int
    order: Digest = Digest("")
    """As in `Origin`."""
    release_to: tuple[Word, ...] = ("*",)
    """Jurisdictions into which models that learned from this data may travel; `*` means all."""
    privacy: PrivacySpent | None = None
    """What it may reveal about any record; absent means there is no such bound."""
    stands_for: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    """Number of examples as which the update counts in a merge; 0 means `examples`."""
    compression: Compression = Compression.NONE
    """If other than `none`, `model_out` is an update of `model_in`, from which a merge makes a
    model."""

    @property
    def share(self) -> int:
        """The weight of its result in a merge."""
        return self.stands_for or self.examples


class Verification(msgspec.Struct, frozen=True, kw_only=True, tag="verification"):
    """A model was measured by the MPVU at `site`."""

    job: JobId
    visit: VisitId
    site: SiteId
    at_s: float
    seconds: float
    transfer_s: float
    bytes_in: int
    model: Digest
    topic: Word
    metric: Word
    value: float
    items: int
    standard_error: float
    by_label: Annotated[dict[Word, float], msgspec.Meta(max_length=MOST_LABELS)] = {}


_OF_MODELS = msgspec.Meta(max_length=MOST_MERGED)


class Merge(msgspec.Struct, frozen=True, kw_only=True, tag="merge", omit_defaults=True):
    """Models that sites trained from one were merged at `site`."""

    job: JobId
    visit: VisitId
    site: SiteId
    at_s: float
    seconds: float
    """Merging only."""
    transfer_s: float
    """Fetching the models from their holders."""
    overhead_s: float
    """From the command's arrival to the report, minus transfer and merging."""
    bytes_in: int
    base: Digest
    """The model from which they were trained."""
    models: Annotated[tuple[Digest, ...], _OF_MODELS]
    shares: Annotated[tuple[int, ...], _OF_MODELS]
    """Weight of each model: the number of examples of its visit, or that it stands for."""
    rule: MergeRule
    starts: Annotated[tuple[Digest, ...], _OF_MODELS] = ()
    """The model from which each was trained; empty means all from `base`."""
    part: bool = False
    """Whether it merged a group of a round's models, for the merge that makes the round's model."""
    behind: Annotated[tuple[int, ...], _OF_MODELS] = ()
    """By how many rounds each of them is older than `base`; empty means by none."""
    model_out: Digest
    size_bytes: int
    moments: Digest = Digest("")
    """State of the outer step, as the parts of a model; empty means none."""
    moments_bytes: int = 0
    summed: Annotated[tuple[SiteId, ...], _OF_MODELS] = ()
    """Sites whose models are in a secure sum; some may have been lost meanwhile. Empty means it is
    not one."""
    order: Digest = Digest("")
    """As in `Origin`."""

    def __post_init__(self) -> None:
        if not len(self.starts) == len(self.behind) in (0, len(self.models)):
            raise ValueError("starts, behind: each model has one of both, or none has")


LineageFact = Origin | Visit | Verification | Merge


class Entry(Extensible, frozen=True, kw_only=True):
    """One signed fact. `signature` covers it, `previous` and `more`; see `daitn.identity`."""

    fact: LineageFact
    previous: tuple[Digest, ...]
    public_key: Word
    signature: Word

    @property
    def digest(self) -> Digest:
        """BLAKE3 of the entry; later entries refer to it by this."""
        return digest_of(canonical(self))


class SignedStatement(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as an in-toto statement, signed by its site for readers outside the network."""

    entry: Digest
    signed: Annotated[bytes, msgspec.Meta(max_length=MOST_STATEMENT_BYTES)]
    """A DSSE envelope, JSON on one line; see `daitn.objects.statements`."""


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """The whole chain, oldest first."""

    job: JobId
    entries: tuple[Entry, ...] = ()


def given_to(fact: LineageFact) -> tuple[Digest, ...]:
    """The models given to a site; none if one was created."""
    match fact:
        case Origin():
            return ()
        case Visit():
            return (fact.model_in,)
        case Verification():
            return (fact.model,)
        case Merge():
            return (fact.base, *fact.models, *fact.starts)


def left_by(fact: LineageFact) -> Digest:
    """The model that results from an entry: the one that was made or measured."""
    return fact.model_out if isinstance(fact, Visit | Merge) else fact.model


def released(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Jurisdictions into which a model of these entries may travel; `*` means all."""
    rules = [set(e.fact.release_to) for e in entries if isinstance(e.fact, Visit)]
    bounds = [rule for rule in rules if "*" not in rule]
    return tuple(sorted(set.intersection(*bounds))) if bounds else ("*",)


def ancestry(lineage: Lineage, model: Digest) -> Lineage:
    """The entries of one model: those that made or measured it, and all on which they build."""
    wanted: set[Digest] = set()
    entries = []
    for entry in reversed(lineage.entries):
        if entry.digest in wanted or left_by(entry.fact) == model:
            wanted.update(entry.previous)
            entries.append(entry)
    return Lineage(job=lineage.job, entries=tuple(reversed(entries)))


def rounds_behind(entries: Iterable[Entry], base: Digest, start: Digest) -> int | None:
    """Number of consecutive rounds that made `base` from `start`; none if it does not descend from
    it."""
    before: dict[Digest, Digest] = {}
    for entry in entries:
        match entry.fact:
            case Visit(model_in=given, model_out=left) | Merge(base=given, model_out=left):
                before[left] = given
    for rounds in range(len(before) + 1):
        if base == start:
            return rounds
        if base not in before:
            return None
        base = before[base]
    return None


def descent(entries: Sequence[Entry], *models: Digest) -> tuple[Entry, ...]:
    """The entries, among these, that made some models, each after those that made its inputs; none
    for a model that was not made."""
    found = []
    wanted = set(models)
    for entry in reversed(entries):
        if not isinstance(entry.fact, Verification) and left_by(entry.fact) in wanted:
            found.append(entry)
            wanted.discard(left_by(entry.fact))
            wanted.update(given_to(entry.fact))
    return tuple(reversed(found))


def visits_behind(entries: Sequence[Entry], model: Digest) -> dict[VisitId, Visit]:
    """The visits from which a model descends, each once, however many paths lead to it."""
    facts = [entry.fact for entry in descent(entries, model)]
    return {fact.visit: fact for fact in facts if isinstance(fact, Visit)}


def shares_of(entries: Sequence[Entry], one: Digest, other: Digest) -> tuple[int, int] | None:
    """Weights of two models that meet: the number of examples that only it descends from. None if
    one has learned everything that the other has."""
    mine, theirs = visits_behind(entries, one), visits_behind(entries, other)
    if mine.keys() <= theirs.keys() or theirs.keys() <= mine.keys():
        return None
    return (
        max(1, sum(visit.examples for name, visit in mine.items() if name not in theirs)),
        max(1, sum(visit.examples for name, visit in theirs.items() if name not in mine)),
    )
