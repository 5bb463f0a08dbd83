"""Signs and checks audit logs, at the site and at the control centre that countersigns them."""

from __future__ import annotations

import msgspec

from daitn.identity.keys import SigningKey, check_signature, raw_of
from daitn.objects.audit import (
    AuditClaim,
    AuditEntry,
    AuditRecord,
    CountersignedHead,
    entry_hash,
    next_digest,
)
from daitn.objects.errors import Corrupt
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.wire import canonical

__all__ = [
    "check_claim",
    "check_countersigned",
    "check_record",
    "countersign",
    "followed",
    "line_of",
    "read_record",
    "recorded",
]

_ENTRY = b"daitn audit entry 1\0"
_HEAD = b"daitn audit head 1\0"
"""Domain separation of these signatures."""


def recorded(entry: AuditEntry, previous: Digest, key: SigningKey) -> AuditRecord:
    """The signed record of an entry that follows the one with digest `previous`."""
    digest = next_digest(previous, entry_hash(entry))
    return AuditRecord(
        entry=entry,
        previous=previous,
        digest=digest,
        public_key=key.public,
        signature=key.sign(_ENTRY + digest.encode()),
    )


def line_of(record: AuditRecord) -> bytes:
    """The record as a line of the file; a record has only one form."""
    return msgspec.json.encode(record) + b"\n"


def check_record(line: bytes) -> AuditRecord:
    """The record in a line. Raises `Corrupt` unless it is whole, unchanged and signed."""
    record = read_record(line)
    check_signature(record.public_key, record.signature, _ENTRY + record.digest.encode())
    return record


def read_record(line: bytes) -> AuditRecord:
    """The record in a line, at a tenth of the cost. Raises `Corrupt` unless it is complete and
    matches its digest; its signature is not checked."""
    try:
        record = msgspec.json.decode(line, type=AuditRecord)
        whole = line_of(record) == line and _plain(record)
        digest = next_digest(record.previous, entry_hash(record.entry))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Corrupt(f"it is not an entry: {error}") from None
    if not whole:
        raise Corrupt("it is not in canonical form")
    if record.digest != digest:
        raise Corrupt("its digest does not match its content")
    return record


def _plain(record: AuditRecord) -> bool:
    """Whether its digest is in canonical form, of several that mean the same bytes. Raises
    `ValueError` for an invalid key or signature."""
    previous = bytes.fromhex(record.previous)
    raw_of(record.signature)
    raw_of(record.public_key)
    return (len(previous), previous.hex()) == (32, record.previous)


def followed(claim: AuditClaim) -> dict[int, Digest]:
    """The digests along a claim, by number of entry; the last one is the log's head."""
    at = claim.digest
    digests = {claim.after: at}
    for position, each in enumerate(claim.hashes, claim.after + 1):
        digests[position] = at = next_digest(at, each)
    return digests


def check_claim(claim: AuditClaim, head: Digest, public_key: str) -> None:
    """Raise `Corrupt` unless the site with this key signed the head of its claim."""
    check_signature(public_key, claim.signature, _ENTRY + head.encode())


def countersign(
    site: SiteId, number: int, digest: Digest, at_s: float, key: SigningKey
) -> CountersignedHead:
    """A control centre's signature of a site's head."""
    signed = _head(site, number, digest, at_s)
    return CountersignedHead(
        site=site,
        number=number,
        digest=digest,
        at_s=at_s,
        public_key=key.public,
        signature=key.sign(signed),
    )


def check_countersigned(head: CountersignedHead) -> None:
    """Raise `Corrupt` unless the key in a head signed it."""
    signed = _head(head.site, head.number, head.digest, head.at_s)
    check_signature(head.public_key, head.signature, signed)


def _head(site: SiteId, number: int, digest: Digest, at_s: float) -> bytes:
    return _HEAD + canonical((site, number, digest, at_s))
