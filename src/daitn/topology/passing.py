"""Sites that are left out only for the time being: away, cordoned, or outside of their hours."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from daitn.objects.decisions import Rejection
from daitn.objects.identifiers import SiteId

__all__ = ["left_out_for_now"]

_AWAY: Final = frozenset({"alive", "verifier-alive"})
_CORDONED: Final = frozenset({"cordoned", "verifier-cordoned"})
_PINNED: Final = "pinned"
_PASSING: Final = _AWAY | _CORDONED | {"hours", "verifier-hours", _PINNED}
"""Filters that a site fails only temporarily."""


def left_out_for_now(rejections: Iterable[Rejection], given_up: Collection[SiteId] = ()) -> str:
    """Sites that filters leave out for passing reasons alone, so that waiting may bring them back;
    empty if there are none. Sites that were `given_up` do not count."""
    reasons: dict[str, set[str]] = {}
    for rejection in rejections:
        reasons.setdefault(rejection.candidate, set()).add(rejection.filter)
    passing = {
        candidate.split("/")[0]: filters - {_PINNED}
        for candidate, filters in reasons.items()
        if filters - {_PINNED} and filters <= _PASSING
    }
    sites = passing.keys() - set(given_up)
    away = {site for site in sites if passing[site] & _AWAY}
    cordoned = {site for site in sites - away if passing[site] & _CORDONED}
    waits = (
        ("sites that are away", away),
        ("sites that are cordoned", cordoned),
        ("sites outside of their hours", sites - away - cordoned),
    )
    return "; ".join(f"{what}: {', '.join(sorted(found))}" for what, found in waits if found)
