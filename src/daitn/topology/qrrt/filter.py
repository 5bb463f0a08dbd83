"""The `Filter` type, and the filters that check a query against descriptors.

Load, time and measurements do not change the result of these filters.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from daitn.objects.access import allows
from daitn.objects.queries import Privacy
from daitn.topology.qrrt.cache import Kept, cached
from daitn.topology.qrrt.relevance import QsQrrt
from daitn.topology.qrrt.snapshot import Deployed, Flags, Floats
from daitn.topology.relaxation import as_value

__all__ = ["SAID", "Filter", "FilterCause", "Told", "deployed_at", "filter_kind", "passing_filters"]

_MOST_KINDS = 256


class FilterCause(enum.Enum):
    """What would have to change for a row to pass."""

    WISH = "wish"
    """The query."""
    PRESENCE = "presence"
    """The deployment or the path to it has to come back."""
    LOAD = "load"
    """Other queries have to finish."""


@dataclass(frozen=True, slots=True)
class Told:
    """Why one row does not pass."""

    reason: str
    shortfall: float = 1.0
    unit: str = ""
    relax_to: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """One hard constraint. `field` names the part of the request that would have to change."""

    name: str
    field: str
    cause: FilterCause
    passes: Callable[[QsQrrt], Flags | bool]
    told: Callable[[QsQrrt, int], Told]
    short: Callable[[QsQrrt], Floats] | None = None
    """Grows with how far each row misses the bound, if the bound is a number."""


def filter_kind(cut: QsQrrt) -> tuple[object, ...]:
    """Everything in a query that these filters depend on."""
    intent, constraints, memo = cut.intent, cut.intent.constraints, cut.snapshot.memo
    if "restricted" not in memo:
        memo["restricted"] = any("*" not in r.descriptor.policy.askers for r in cut.snapshot.rows)
    return (
        intent.model,
        intent.site,
        intent.api,
        intent.owner if memo["restricted"] else "",
        intent.origin,
        constraints.jurisdictions,
        constraints.owners,
        constraints.privacy,
    )


def passing_filters(cut: QsQrrt, kind: tuple[object, ...]) -> Flags:
    """The rows that pass all of `SAID`; do not modify. `kind`: see `filter_kind`."""
    kept: Kept[Flags] = cached(cut.snapshot.memo, "said", (), _MOST_KINDS)
    known = kept.get(kind)
    if known is None:
        known = np.ones(len(cut.numbers), np.bool_)
        for filter_ in SAID:
            known &= filter_.passes(cut)
        kept.put(kind, known)
    return known


def deployed_at(cut: QsQrrt, position: int) -> Deployed:
    """The row at a position of the cut."""
    return cut.snapshot.rows[int(cut.numbers[position])]


def _each(cut: QsQrrt, holds: Callable[[Deployed], bool]) -> Flags:
    rows = cut.snapshot.rows
    return np.fromiter((holds(rows[number]) for number in cut.numbers.tolist()), np.bool_)


def _widened(listed: tuple[str, ...], name: str) -> str:
    return as_value(sorted({*listed, name}))


def _api_told(cut: QsQrrt, position: int) -> Told:
    apis = ", ".join(deployed_at(cut, position).descriptor.apis)
    return Told(f"answers {apis or 'nothing'}, not {cut.intent.api}")


def _private(cut: QsQrrt) -> Flags | bool:
    privacy, origin = cut.intent.constraints.privacy, cut.intent.origin
    if privacy is Privacy.ANY:
        return True
    if privacy is Privacy.SITE:
        return _each(cut, lambda row: row.site == origin)
    return _each(cut, lambda row: not row.facility.keeps_queries)


def _private_told(cut: QsQrrt, position: int) -> Told:
    row = deployed_at(cut, position)
    if cut.intent.constraints.privacy is Privacy.UNKEPT:
        return Told(f"{row.site} keeps queries", relax_to=as_value(Privacy.ANY))
    wider = Privacy.ANY if row.facility.keeps_queries else Privacy.UNKEPT
    return Told(f"{row.site} is not the gateway's own site", relax_to=as_value(wider))


SAID = (
    Filter(
        "api",
        "model",
        FilterCause.WISH,
        lambda cut: _each(cut, lambda row: cut.intent.api in row.descriptor.apis),
        _api_told,
    ),
    Filter(
        "release",
        "model",
        FilterCause.WISH,
        lambda cut: _each(
            cut, lambda row: allows(row.descriptor.policy.release_to, row.jurisdiction)
        ),
        lambda cut, at: Told(
            f"may not be hosted in {deployed_at(cut, at).jurisdiction}, says its owner"
        ),
    ),
    Filter(
        "askers",
        "model",
        FilterCause.WISH,
        lambda cut: _each(cut, lambda row: allows(row.descriptor.policy.askers, cut.intent.owner)),
        lambda cut, at: Told(f"its owner does not let {cut.intent.owner or 'strangers'} ask it"),
    ),
    Filter(
        "jurisdiction",
        "daitn.jurisdictions",
        FilterCause.WISH,
        lambda cut: (
            not (wanted := cut.intent.constraints.jurisdictions)
            or _each(cut, lambda row: row.jurisdiction in wanted)
        ),
        lambda cut, at: Told(
            f"is under the law of {deployed_at(cut, at).jurisdiction}",
            relax_to=_widened(
                cut.intent.constraints.jurisdictions, deployed_at(cut, at).jurisdiction
            ),
        ),
    ),
    Filter(
        "owner",
        "daitn.owners",
        FilterCause.WISH,
        lambda cut: (
            not (wanted := cut.intent.constraints.owners)
            or _each(cut, lambda row: row.provider in wanted)
        ),
        lambda cut, at: Told(
            f"its facility is {deployed_at(cut, at).provider}'s",
            relax_to=_widened(cut.intent.constraints.owners, deployed_at(cut, at).provider),
        ),
    ),
    Filter(
        "privacy",
        "daitn.privacy",
        FilterCause.WISH,
        _private,
        _private_told,
        lambda cut: _each(cut, lambda row: row.facility.keeps_queries).astype(np.float64),
    ),
)
