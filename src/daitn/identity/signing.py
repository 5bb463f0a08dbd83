"""Signed adverts and the signed lineage of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from daitn.identity.keys import SigningKey, check_signature_once
from daitn.identity.received import check_received
from daitn.identity.statements import sign_statement
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
from daitn.objects.models import DO_NOT_USE
from daitn.objects.unknown_fields import More
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
"""Domain separation of these signatures."""


class _Signed(msgspec.Struct, frozen=True):
    """The data that an entry's signature covers."""

    previous: tuple[Digest, ...]
    fact: LineageFact
    more: More | msgspec.UnsetType = msgspec.UNSET


def sign_entry(
    fact: LineageFact,
    previous: tuple[Digest, ...],
    key: SigningKey,
    more: More | msgspec.UnsetType = msgspec.UNSET,
) -> Entry:
    """Sign one fact together with the digests of the entries it builds on."""
    return Entry(
        fact=fact,
        previous=previous,
        public_key=key.public,
        signature=key.sign(canonical(_Signed(previous, fact, more))),
        more=more,
    )


def check_entry(entry: Entry) -> None:
    """Raise `Corrupt` unless the entry matches its author's signature.

    Each holder of a model shows the same entries with every report and every piece of work.
    """
    message = canonical(_Signed(entry.previous, entry.fact, entry.more))
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
                "starts from another model than those of the entries that it builds on",
                field=field,
                fix=DO_NOT_USE,
            )
        if isinstance(entry.fact, Merge) and not set(entry.fact.models) <= {
            known[digest] for digest in entry.previous
        }:
            raise Corrupt(
                "merges a model whose origin no entry states",
                field=field,
                fix=DO_NOT_USE,
            )
        known[entry.digest] = left_by(entry.fact)


def check_descent(
    entries: Sequence[Entry],
    start: Digest | None,
    job: JobId,
    order: Digest,
    keys: Mapping[SiteId, str],
) -> frozenset[Digest]:
    """The models that the entries made. Each was made from earlier results or from `start`, the
    owner's weights (none: fresh ones), for a job and an order (by its digest), and is signed with
    its site's key. Raises `Corrupt` otherwise."""
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
        raise Corrupt(problem, field=f"lineage[{position}]", fix="train the model again")
    return frozenset(made)


def check_model(
    lineage: Lineage, manifest: Digest, keys: Mapping[SiteId, str] | None = None
) -> None:
    """Raise `Corrupt` unless the lineage is complete and ends with the model of this manifest.

    `keys` as for `check_lineage`. They must come from another source than the lineage.
    """
    if not lineage.entries:
        raise Corrupt(
            "the model has no lineage, so its origin is unknown",
            field="lineage",
            fix=DO_NOT_USE,
        )
    check_lineage(lineage, keys)
    last = left_by(lineage.entries[-1].fact)
    if last != manifest:
        raise Corrupt(
            f"the lineage is that of model {last}, not of {manifest}",
            field=f"entries[{len(lineage.entries) - 1}]",
            fix=DO_NOT_USE,
        )


def sign_advert(descriptor: NodeDescriptor, key: SigningKey) -> Advert:
    """Sign a node's descriptor."""
    return Advert(descriptor=descriptor, signature=key.sign(canonical(descriptor)))


def sign_report(
    outcome: WorkOutcome,
    key: SigningKey,
    audit: AuditClaim | None = None,
    network: str = "",
) -> WorkReport:
    """Sign the outcome of a piece of work, and its entry once more for outsiders (empty if there is
    none). Its audit claim is signed separately."""
    entry = outcome.entry
    statement = sign_statement(entry, network, key) if entry is not None and network else b""
    signature = key.sign(canonical(outcome))
    return WorkReport(outcome=outcome, signature=signature, audit=audit, statement=statement)


class _ReceivedReport(msgspec.Struct, frozen=True):
    outcome: msgspec.Raw


def check_report(report: WorkReport, public_key: str, received: bytes) -> None:
    """Raise `Corrupt` unless this key signed the report and the entry in it. `received`: the bytes
    of which it was read."""
    outcome = bytes(decode(received, _ReceivedReport).outcome)
    check_received(public_key, report.signature, outcome, report.outcome)
    entry = report.outcome.entry
    if entry is None:
        return
    check_entry(entry)
    if entry.public_key != public_key or entry.fact.site != report.outcome.site:
        raise Corrupt(
            "the lineage entry belongs to another site",
            field="entry.public_key",
            fix="sign entries with the key of the site's advert",
        )


class _ReceivedAdvert(msgspec.Struct, frozen=True):
    descriptor: msgspec.Raw
    signature: str


def read_advert(data: bytes) -> NodeDescriptor:
    """The descriptor in an advert. Raises `Corrupt` unless it is signed with the key in it."""
    received = decode(data, _ReceivedAdvert)
    raw = bytes(received.descriptor)
    descriptor = decode(raw, NodeDescriptor)
    check_received(descriptor.public_key, received.signature, raw, descriptor)
    return descriptor


def sign_attestation(finding: Finding, key: SigningKey) -> Attestation:
    """Sign a verification unit's finding."""
    return Attestation(finding=finding, signature=key.sign(canonical(finding)))


class _ReceivedAttestation(msgspec.Struct, frozen=True):
    finding: msgspec.Raw


def check_attestation(attestation: Attestation, public_key: str, received: bytes) -> None:
    """Raise `Corrupt` unless the unit with this key signed the finding. `received`: the bytes of
    which it was read."""
    finding = bytes(decode(received, _ReceivedAttestation).finding)
    check_received(public_key, attestation.signature, finding, attestation.finding)


def sign_usage(statement: UsageStatement, key: SigningKey) -> SignedUsage:
    """Sign a report of a gateway or facility."""
    return SignedUsage(statement=statement, signature=key.sign(_USAGE + canonical(statement)))


class _ReceivedUsage(msgspec.Struct, frozen=True):
    statement: msgspec.Raw


def check_usage(signed: SignedUsage, public_key: str, received: bytes) -> bytes:
    """The signed statement. Raises `Corrupt` unless this key signed it. `received`: the bytes of
    which it was read."""
    statement = bytes(decode(received, _ReceivedUsage).statement)
    return check_received(public_key, signed.signature, statement, signed.statement, _USAGE)
