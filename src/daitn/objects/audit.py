"""A site's audit log: a chain of entries, each of which commits to all earlier ones by a digest.

The digest of an entry is BLAKE3 over the digest of the entry before it and the entry's own hash. So
who knows one digest can follow the chain from there by hashes alone, without seeing an entry: that
is how the control centre notices that a log was rewritten, and sees nothing of what is in it.
(Haber and Stornetta, "How to time-stamp a digital document", Journal of Cryptology 3, 1991.)
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from blake3 import blake3

from daitn.objects.digests import digest_of
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.unknown_fields import Extensible
from daitn.objects.wire import canonical

__all__ = [
    "MOST_HASHES",
    "START",
    "AuditClaim",
    "AuditEntry",
    "AuditEvent",
    "AuditRecord",
    "CountersignedHead",
    "entry_hash",
    "next_digest",
]

START = Digest("0" * 64)
"""Precedes the first entry."""
MOST_HASHES = 4096
"""Entries in one claim, 128 KiB; a longer chain is claimed in several reports."""


class AuditEvent(enum.StrEnum):
    """What an entry is about."""

    STARTED = "started"
    """The site started."""
    BEGUN = "begun"
    """A visit or a measurement was admitted and starts to read records: from now on it counts."""
    RESUMED = "resumed"
    """A visit continues from its savepoint after a crash or a restart; it was counted when it
    began."""
    MADE = "made"
    """A fresh model was created, without reading any record."""
    VISITED = "visited"
    """A visit ended; the model with this digest and size, and its loss, may leave."""
    MEASURED = "measured"
    """A measurement ended; these values leave."""
    REFUSED = "refused"
    """A policy refused work; nothing leaves but the reason in the entry."""
    FAILED = "failed"
    """Work failed; nothing leaves but the error in the entry."""
    STOPPED = "stopped"
    """Work was stopped from outside, or its process ended; nothing leaves."""
    TORN = "torn"
    """A crash or a power failure interrupted an entry, of which nothing had been acknowledged; its
    remains are set aside."""
    CORDONED = "cordoned"
    """The site was cordoned by the member in `owner`: it accepts nothing new."""
    DRAINED = "drained"
    """Likewise, and its deployments are to move elsewhere."""
    UNCORDONED = "uncordoned"
    """The cordon was lifted."""
    COUNTERSIGNED = "countersigned"
    """The control centre signed the state of the log."""


class CountersignedHead(msgspec.Struct, frozen=True, kw_only=True):
    """A control centre's statement that it saw a site's log up to an entry, in this form."""

    site: SiteId
    number: int
    """Number of the entry."""
    digest: Digest
    at_s: float
    public_key: str
    """The control centre's Ed25519 public key, base64."""
    signature: str


class AuditEntry(Extensible, frozen=True, kw_only=True, omit_defaults=True):
    """One entry. It contains no record and no output of a recipe."""

    number: int
    """Counts from 1."""
    at_s: float
    event: AuditEvent
    data: str = ""
    """The data set or test set, for instance `data set notes`."""
    owner: str = ""
    """Owner of the visiting model; the next four are about it too."""
    job: str = ""
    visit: str = ""
    recipe: str = ""
    purpose: str = ""
    examples: int = 0
    seconds: float = 0.0
    """Duration of training or measuring."""
    model: str = ""
    """Digest of the model that may leave, or that was measured."""
    size_bytes: int = 0
    """Size of the model that may leave."""
    values: dict[str, float] = {}
    """Measured values and losses that leave, by name."""
    reason: str = ""
    """Reason of a refusal or failure, as shown to the requester."""
    field: str = ""
    head: CountersignedHead | None = None


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file."""

    entry: AuditEntry
    previous: Digest
    """Digest of the previous entry, or `START`."""
    digest: Digest
    public_key: str
    """The site's Ed25519 public key, base64."""
    signature: str
    """The site's signature over `digest`."""


class AuditClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A site's statement about its log for a control centre: the chain from one entry to a later
    one."""

    after: int
    """Number of the entry from which it continues; 0 means the beginning."""
    digest: Digest
    """Digest of that entry."""
    hashes: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)], ...],
        msgspec.Meta(max_length=MOST_HASHES),
    ]
    """Hashes of the entries since, without their content."""
    signature: str
    """The site's signature over the last one's digest."""


def entry_hash(entry: AuditEntry) -> bytes:
    """The hash of a single entry."""
    return blake3(canonical(entry)).digest()


def next_digest(previous: Digest, of_entry: bytes) -> Digest:
    """The digest of an entry with this hash that follows the entry with digest `previous`."""
    return digest_of(bytes.fromhex(previous) + of_entry)
