"""Entries of a model that travels on its own, as reported by its home to a control centre."""

from __future__ import annotations

from collections.abc import Container, Iterable

import msgspec

from daitn.objects.accounts import LedgerEntry
from daitn.objects.identifiers import SiteId, VisitId

__all__ = ["of_travels"]


def of_travels(
    home: SiteId, entries: Iterable[LedgerEntry], proven: Container[VisitId], at_s: float
) -> tuple[LedgerEntry, ...]:
    """Entries for a travelling model's facts: those of its job's `entries` whose work a site signed
    (`proven`).

    Their causes name the home, which gives its jobs their names: they are none of another home's or
    of a control centre's. A model that reports again has the same causes.
    """
    return tuple(
        msgspec.structs.replace(entry, cause=f"{home}/{entry.cause}", at_s=at_s)
        for entry in entries
        if VisitId(entry.cause.partition("/")[2]) in proven
    )
