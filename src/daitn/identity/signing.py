"""Signed adverts and the signed lineage of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from daitn.identity.keys import SigningKey, check_signature, check_signature_once
from daitn.objects.audit import AuditClaim
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import Corrupt
from daitn.objects.findings import Attestation, Finding
from daitn.objects.identifiers import Digest, JobId, SiteId
from daitn.objects.lineage import (
    Entry,
    Lineage,
    LineageFact,
    Merge,
    Origin,
    Verification,
    given_to,
    left_by,
)
from daitn.objects.messages import Advert, WorkOutcome, WorkReport
from daitn.objects.usage import SignedUsage, UsageStatement
from daitn.objects.wire import canonical, decode

__all__ = [
    "check_attestation",
    "check_descent",
    "check_entry",
    "check_lineage",
    "check_model",
    "check_report",
    "check_usage",
    "read_advert",
    "sign_advert",
    "sign_attestation",
    "sign_entry",
    "sign_report",
    "sign_usage",
]


_USAGE = b"daitn usage 1\0"
"""A signature of a statement is one of nothing else."""


class _Signed(msgspec.Struct, frozen=True):
    """The data that an entry's signature covers."""

    previous: tuple[Digest, ...]
    fact: LineageFact


def sign_entry(fact: LineageFact, previous: tuple[Digest, ...], key: SigningKey) -> Entry:
    """Sign one fact together with the digests of the entries it builds on."""
    message = canonical(_Signed(previous, fact))
    return Entry(fact=fact, previous=previous, public_key=key.public, signature=key.sign(message))


def check_entry(entry: Entry) -> None:
    """Raise `Corrupt` unless the entry matches its author's signature.

    Whoever has a model shows the same entries with every report and every piece of work.
    """
    message = canonical(_Signed(entry.previous, entry.fact))
    check_signature_once(entry.public_key, entry.signature, message)


def check_lineage(lineage: Lineage, keys: Mapping[SiteId, str] | None = None) -> None:
    """Raise `Corrupt` unless every entry is signed and builds only on earlier entries.

    An entry must build on those that left the model that it was given. With `keys` (site to public
    key) each entry must also be signed with its site's key.
    """
    known: dict[Digest, Digest] = {}
    for position, entry in enumerate(lineage.entries):
        field = f"entries[{position}]"
        try:
            check_entry(entry)
        except Corrupt as error:
            raise Corrupt(error.problem, field=field, fix=error.fix) from None
        if keys is not None and keys.get(entry.fact.site) != entry.public_key:
            raise Corrupt(
                f"signed with a key that is not {entry.fact.site}'s",
                field=field,
                fix="get the site's public key from `daitn describe node`",
            )
        if not known.keys() >= set(entry.previous):
            raise Corrupt(
                "builds on an entry that is not before it",
                field=field,
                fix="export the model again",
            )
        if any(known[digest] not in given_to(entry.fact) for digest in entry.previous):
            raise Corrupt(
                "was given another model than the entries that it builds on left",
                field=field,
                fix="do not use this model; ask its owner where it comes from",
            )
        if isinstance(entry.fact, Merge) and not set(entry.fact.models) <= {
            known[digest] for digest in entry.previous
        }:
            raise Corrupt(
                "merged a model of which no entry tells where it comes from",
                field=field,
                fix="do not use this model; ask its owner where it comes from",
            )
        known[entry.digest] = left_by(entry.fact)


def check_descent(
    entries: Sequence[Entry],
    start: Digest | None,
    job: JobId,
    order: Digest,
    keys: Mapping[SiteId, str],
) -> frozenset[Digest]:
    """The models that the entries made. Each was made from what earlier ones left or from `start`,
    the owner's weights (none: fresh ones), for a job and an order (by its digest), and is signed
    with its site's key. Raises `Corrupt` otherwise."""
    made: set[Digest] = set()
    known = {start}
    for position, entry in enumerate(entries):
        fact = entry.fact
        if isinstance(fact, Verification) or (fact.job, fact.order) != (job, order):
            problem = "belongs to another order"
        elif keys.get(fact.site) != entry.public_key:
            problem = f"signed with a key that is not {fact.site}'s"
        elif isinstance(fact, Origin) and start is not None:
            problem = "made a fresh model, and the owner's weights were to be trained"
        elif not known.issuperset(given_to(fact)):
            problem = "was given another model than the entries before it left"
        else:
            check_entry(entry)
            made.add(left_by(fact))
            known.add(left_by(fact))
            continue
        raise Corrupt(problem, field=f"lineage[{position}]", fix="train the model anew")
    return frozenset(made)


def check_model(
    lineage: Lineage, manifest: Digest, keys: Mapping[SiteId, str] | None = None
) -> None:
    """Raise `Corrupt` unless the lineage is whole and ends with the model of this manifest.

    `keys` as for `check_lineage`. They must come from another source than the lineage.
    """
    if not lineage.entries:
        raise Corrupt(
            "the model has no lineage: nobody says where it comes from",
            field="lineage",
            fix="do not use this model; ask its owner where it comes from",
        )
    check_lineage(lineage, keys)
    last = left_by(lineage.entries[-1].fact)
    if last != manifest:
        raise Corrupt(
            f"the lineage is that of model {last}, not of {manifest}",
            field=f"entries[{len(lineage.entries) - 1}]",
            fix="do not use this model; ask its owner where it comes from",
        )


def sign_advert(descriptor: NodeDescriptor, key: SigningKey) -> Advert:
    """Sign a node's descriptor."""
    return Advert(descriptor=descriptor, signature=key.sign(canonical(descriptor)))


def sign_report(
    outcome: WorkOutcome, key: SigningKey, audit: AuditClaim | None = None
) -> WorkReport:
    """Sign the outcome of a piece of work; what it says of the audit log is signed by itself."""
    return WorkReport(outcome=outcome, signature=key.sign(canonical(outcome)), audit=audit)


def check_report(report: WorkReport, public_key: str) -> None:
    """Raise `Corrupt` unless this key signed the report and the entry in it."""
    check_signature(public_key, report.signature, canonical(report.outcome))
    entry = report.outcome.entry
    if entry is None:
        return
    check_entry(entry)
    if entry.public_key != public_key or entry.fact.site != report.outcome.site:
        raise Corrupt(
            "the lineage entry is another site's",
            field="entry.public_key",
            fix="sign entries with the key of the site's advert",
        )


class _ReceivedAdvert(msgspec.Struct, frozen=True):
    descriptor: msgspec.Raw
    signature: str


def read_advert(data: bytes) -> NodeDescriptor:
    """The descriptor in an advert. Raises `Corrupt` unless it is signed with the key it names.

    A site of a later version may say more in it than this version knows, so that the signature is
    checked over what was received. Earlier versions sent it in another order than they signed.
    """
    received = decode(data, _ReceivedAdvert)
    raw = bytes(received.descriptor)
    descriptor = decode(raw, NodeDescriptor)
    try:
        check_signature(descriptor.public_key, received.signature, raw)
    except Corrupt:
        check_signature(descriptor.public_key, received.signature, canonical(descriptor))
    return descriptor


def sign_attestation(finding: Finding, key: SigningKey) -> Attestation:
    """Sign a verification unit's finding."""
    return Attestation(finding=finding, signature=key.sign(canonical(finding)))


def check_attestation(attestation: Attestation, public_key: str) -> None:
    """Raise `Corrupt` unless the finding matches the signature of the unit with this key."""
    check_signature(public_key, attestation.signature, canonical(attestation.finding))


def sign_usage(statement: UsageStatement, key: SigningKey) -> SignedUsage:
    """Sign what a gateway or facility states."""
    return SignedUsage(statement=statement, signature=key.sign(_USAGE + canonical(statement)))


def check_usage(signed: SignedUsage, public_key: str) -> None:
    """Raise `Corrupt` unless this key signed the statement."""
    check_signature(public_key, signed.signature, _USAGE + canonical(signed.statement))
