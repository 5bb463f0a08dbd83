"""The `Filter` type, and the filters that check a query against descriptors.

Load, time and measurements do not change the result of these filters.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daitn.objects.abilities import Need
from daitn.objects.access import allows
from daitn.objects.queries import Privacy
from daitn.topology.arrays import Flags, Floats
from daitn.topology.qrrt.cache import PartsCache, cached
from daitn.topology.qrrt.columns import changed
from daitn.topology.qrrt.relevance import QsQrrt
from daitn.topology.qrrt.snapshot import Deployed, Qrrt
from daitn.topology.relaxation import as_value

__all__ = [
    "DESCRIPTOR_FILTERS",
    "Filter",
    "FilterCause",
    "Unmet",
    "deployed_at",
    "filter_kind",
    "passing_filters",
]

_MOST_KINDS = 256


class FilterCause(enum.Enum):
    """What would have to change for a row to pass."""

    WISH = "wish"
    """The query."""
    PRESENCE = "presence"
    """The deployment or the path to it must come back."""
    LOAD = "load"
    """Other queries must finish."""


@dataclass(frozen=True, slots=True)
class Unmet:
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
    explain: Callable[[QsQrrt, int], Unmet]
    short: Callable[[QsQrrt], Floats] | None = None
    """How far each row misses the bound, if the bound is a number."""


@dataclass(frozen=True, slots=True)
class _Passing:
    """The rows that pass, and the numbers of the descriptors behind that."""

    described: NDArray[np.int64]
    passes: Flags


def filter_kind(cut: QsQrrt) -> tuple[object, ...]:
    """Everything in a query that these filters depend on."""
    intent, constraints = cut.intent, cut.intent.constraints
    return (
        intent.model,
        intent.site,
        intent.api,
        intent.needs,
        constraints.language,
        intent.owner if _any_restricted(cut.snapshot) else "",
        intent.origin,
        constraints.jurisdictions,
        constraints.owners,
        constraints.privacy,
    )


def passing_filters(cut: QsQrrt, kind: tuple[object, ...]) -> Flags:
    """The rows that pass all of `DESCRIPTOR_FILTERS`; do not modify. `kind`: see `filter_kind`."""
    kept: PartsCache[_Passing] = cached(cut.snapshot.cache, "said", (), _MOST_KINDS)
    known, described = kept.get(kind), cut.snapshot.described[cut.rows]
    if known is None:
        return kept.put(kind, _Passing(described, _passing(cut))).passes
    positions = changed(known.described, described)
    if len(known.described) == len(described) and not len(positions):
        return known.passes
    passes = np.resize(known.passes, len(described)) if len(known.passes) else _passing(cut)
    passes[positions] = _passing(cut.only(positions))
    return kept.put(kind, _Passing(described, passes)).passes


def _passing(cut: QsQrrt) -> Flags:
    passes = np.ones(len(cut.numbers), np.bool_)
    for filter_ in DESCRIPTOR_FILTERS:
        passes &= filter_.passes(cut)
    return passes


def _any_restricted(snapshot: Qrrt) -> bool:
    restricted = snapshot.columns.restricted
    kept: PartsCache[bool] = cached(snapshot.cache, "restricted", (restricted,), 1)
    known = kept.get(None)
    return kept.put(None, bool(restricted.any())) if known is None else known


def deployed_at(cut: QsQrrt, position: int) -> Deployed:
    """The row at a position of the cut."""
    return cut.snapshot.rows[int(cut.numbers[position])]


def _each(cut: QsQrrt, holds: Callable[[Deployed], bool]) -> Flags:
    rows = cut.snapshot.rows
    return np.fromiter((holds(rows[number]) for number in cut.numbers.tolist()), np.bool_)


def _widened(listed: tuple[str, ...], name: str) -> str:
    return as_value(sorted({*listed, name}))


def _api_reason(cut: QsQrrt, position: int) -> Unmet:
    apis = ", ".join(deployed_at(cut, position).descriptor.apis)
    return Unmet(f"answers {apis or 'nothing'}, not {cut.intent.api}")


def _private(cut: QsQrrt) -> Flags | bool:
    privacy, origin = cut.intent.constraints.privacy, cut.intent.origin
    if privacy is Privacy.ANY:
        return True
    if privacy is Privacy.SITE:
        return _each(cut, lambda row: row.site == origin)
    return _each(cut, lambda row: not row.facility.keeps_queries)


def _private_reason(cut: QsQrrt, position: int) -> Unmet:
    row = deployed_at(cut, position)
    if cut.intent.constraints.privacy is Privacy.UNKEPT:
        return Unmet(f"{row.site} keeps queries", relax_to=as_value(Privacy.ANY))
    wider = Privacy.ANY if row.facility.keeps_queries else Privacy.UNKEPT
    return Unmet(f"{row.site} is not the gateway's own site", relax_to=as_value(wider))


def _meets(need: Need, field: str, reason: str) -> Filter:
    """The filter of one need."""
    return Filter(
        need,
        field,
        FilterCause.WISH,
        lambda cut: need not in cut.intent.needs or _each(cut, lambda r: r.descriptor.meets(need)),
        lambda cut, at: Unmet(f"{reason}; {_abilities_reason(deployed_at(cut, at))}"),
    )


def _abilities_reason(row: Deployed) -> str:
    abilities = row.descriptor.abilities
    return f"it reads {_some(abilities.reads)} and says {_some(abilities.says)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


_NEEDS = (
    _meets(Need.TEXT, "messages", "it does not read text"),
    _meets(Need.RECORD, "messages", "it does not read a record of numbers"),
    _meets(Need.IMAGE, "messages", "it does not read images"),
    _meets(Need.AUDIO, "messages", "it does not read audio"),
    _meets(Need.VIDEO, "messages", "it does not read video"),
    _meets(Need.FILE, "messages", "it does not read documents"),
    _meets(Need.TALK, "model", "it does not answer in free text"),
    _meets(Need.VOICE, "modalities", "it does not answer with audio"),
    _meets(Need.TOOLS, "tools", "it does not call tools"),
    _meets(Need.JSON, "response_format", "its answers cannot be held to a JSON schema"),
)

DESCRIPTOR_FILTERS = (
    Filter(
        "cordoned",
        "model",
        FilterCause.PRESENCE,
        lambda cut: _each(cut, lambda row: not row.cordoned),
        lambda cut, at: Unmet(f"its site {deployed_at(cut, at).cordoned}"),
    ),
    Filter(
        "api",
        "model",
        FilterCause.WISH,
        lambda cut: _each(cut, lambda row: cut.intent.api in row.descriptor.apis),
        _api_reason,
    ),
    *_NEEDS,
    Filter(
        "language",
        "daitn.language",
        FilterCause.WISH,
        lambda cut: (
            not (wanted := cut.intent.constraints.language)
            or _each(cut, lambda row: row.descriptor.abilities.speaks(wanted))
        ),
        lambda cut, at: Unmet(
            f"knows {_some(deployed_at(cut, at).descriptor.abilities.languages)}"
        ),
    ),
    Filter(
        "release",
        "model",
        FilterCause.WISH,
        lambda cut: _each(
            cut, lambda row: allows(row.descriptor.policy.release_to, row.jurisdiction)
        ),
        lambda cut, at: Unmet(
            f"may not be hosted in {deployed_at(cut, at).jurisdiction}, says its owner"
        ),
    ),
    Filter(
        "askers",
        "model",
        FilterCause.WISH,
        lambda cut: _each(cut, lambda row: allows(row.descriptor.policy.askers, cut.intent.owner)),
        lambda cut, at: Unmet(f"its owner does not let {cut.intent.owner or 'strangers'} ask it"),
    ),
    Filter(
        "jurisdiction",
        "daitn.jurisdictions",
        FilterCause.WISH,
        lambda cut: (
            not (wanted := cut.intent.constraints.jurisdictions)
            or _each(cut, lambda row: row.jurisdiction in wanted)
        ),
        lambda cut, at: Unmet(
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
        lambda cut, at: Unmet(
            f"its facility is {deployed_at(cut, at).provider}'s",
            relax_to=_widened(cut.intent.constraints.owners, deployed_at(cut, at).provider),
        ),
    ),
    Filter(
        "privacy",
        "daitn.privacy",
        FilterCause.WISH,
        _private,
        _private_reason,
        lambda cut: _each(cut, lambda row: row.facility.keeps_queries).astype(np.float64),
    ),
)
