"""A site's audit log: a chain of entries, each of which names all before it by a digest.

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

from daitn.objects.identifiers import Digest, SiteId
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
"""Comes before the first entry."""
MOST_HASHES = 4096
"""Entries that one claim spans, 128 KiB; a longer chain is claimed in several reports."""


class AuditEvent(enum.StrEnum):
    """What an entry is about."""

    STARTED = "started"
    """The site's process started."""
    BEGUN = "begun"
    """A visit or a measurement was let in and begins to read records."""
    RESUMED = "resumed"
    """A visit whose process ended goes on from its savepoint. It counted as it began."""
    MADE = "made"
    """A fresh model was made, without any record."""
    VISITED = "visited"
    """A visit ended; the trained model may leave."""
    MEASURED = "measured"
    """A measurement ended; its values leave."""
    REFUSED = "refused"
    """A policy said no."""
    FAILED = "failed"
    """Work failed; an error leaves."""
    STOPPED = "stopped"
    """Work was stopped from outside, or the process ended."""
    TORN = "torn"
    """The process or the power ended while an entry was written; nothing was acknowledged of it."""
    CORDONED = "cordoned"
    """The site was cordoned by `owner`: it takes nothing new."""
    DRAINED = "drained"
    """The same, and its deployments are to move elsewhere."""
    UNCORDONED = "uncordoned"
    """The cordon was lifted."""
    COUNTERSIGNED = "countersigned"
    """A control centre signed an earlier entry's digest."""


class CountersignedHead(msgspec.Struct, frozen=True, kw_only=True):
    """A control centre's word that it saw a site's log up to an entry, in this form."""

    site: SiteId
    number: int
    """Of the entry."""
    digest: Digest
    at_s: float
    public_key: str
    """Of the control centre, Ed25519, base64."""
    signature: str


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry. It holds no record and nothing that a recipe said."""

    number: int
    """Counts from 1."""
    at_s: float
    event: AuditEvent
    data: str = ""
    """The data set or test set, for instance `data set notes`."""
    owner: str = ""
    """Of the visiting model; so are the next four."""
    job: str = ""
    visit: str = ""
    recipe: str = ""
    purpose: str = ""
    examples: int = 0
    seconds: float = 0.0
    """From the beginning of training or measuring to its end."""
    model: str = ""
    """Digest of the model that may leave, or that was measured."""
    size_bytes: int = 0
    """Of the model that may leave."""
    values: dict[str, float] = {}
    """Measured values and losses that leave, by name."""
    reason: str = ""
    """Of a refusal or a failure, as its asker reads it."""
    field: str = ""
    head: CountersignedHead | None = None


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file."""

    entry: AuditEntry
    previous: Digest
    """Of the entry before, or `START`."""
    digest: Digest
    public_key: str
    """Of the site, Ed25519, base64."""
    signature: str
    """Of the site, over `digest`."""


class AuditClaim(msgspec.Struct, frozen=True, kw_only=True):
    """What a site says of its log to a control centre: the way from one entry to a later one."""

    after: int
    """Number of the entry from which it goes on; 0: the beginning."""
    digest: Digest
    """Of that entry."""
    hashes: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)], ...],
        msgspec.Meta(max_length=MOST_HASHES),
    ]
    """Of the entries since, without their content."""
    signature: str
    """Of the site, over the last one's digest."""


def entry_hash(entry: AuditEntry) -> bytes:
    """The hash of an entry by itself."""
    return blake3(canonical(entry)).digest()


def next_digest(previous: Digest, of_entry: bytes) -> Digest:
    """The digest of an entry with this hash that follows the entry with digest `previous`."""
    return Digest(blake3(bytes.fromhex(previous) + of_entry).hexdigest())
