"""The hard constraints of a query, as filters over the rows of its QS-QRRT.

Each filter computes for all rows at once which pass, and explains for one row why it does not, by
how much, and what the query would have to ask instead. Their joint result is recomputed per query
only where load, time or the query's length may change it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from daitn.objects.decisions import Rejection
from daitn.objects.queries import QueryIntent, Trust
from daitn.objects.tokens import most_tokens
from daitn.topology.arrays import Flags, Floats
from daitn.topology.qrrt.accuracy import TRUSTED, accuracy_on, narrowest
from daitn.topology.qrrt.cache import PartsCache, cached
from daitn.topology.qrrt.descriptor_filters import (
    DESCRIPTOR_FILTERS,
    Filter,
    FilterCause,
    Unmet,
    deployed_at,
    filter_kind,
    passing_filters,
)
from daitn.topology.qrrt.relevance import QsQrrt
from daitn.topology.relaxation import as_value, rounded_down, rounded_up

__all__ = [
    "CONTEXT",
    "FILTERS",
    "NOT_EJECTED",
    "Filter",
    "FilterCause",
    "failing",
    "passing",
    "rejection",
]

_MOST_KINDS = 256


@dataclass(frozen=True, slots=True)
class _Standing:
    """Cached filter results for one kind of query.

    They hold while no accuracy is measured and no deployment fails, appears or leaves: for seconds,
    whereas loads change with every query.
    """

    passes: Flags
    """Rows that pass all filters independent of time, load and lengths."""
    ejected_until_s: float
    """After this time no row is suspended for a failure."""


def passing(cut: QsQrrt) -> Flags:
    """The rows of the cut that pass every filter."""
    standing, intent = _standing(cut), cut.intent
    passes = standing.passes
    # Skip the check per row if all rows meet a bound.
    if cut.now_s < standing.ejected_until_s:
        passes = passes & NOT_EJECTED.passes(cut)
    if _most_tokens(intent) > cut.selected.least_context:
        passes = passes & CONTEXT.passes(cut)
    if not cut.paths.everywhere:
        passes = passes & _PATH.passes(cut)
    for filter_ in _CHANGING:
        here = filter_.passes(cut)
        if here is not True:
            passes = passes & here
    return passes


def failing(cut: QsQrrt) -> Flags:
    """Matrix, filter x row: whether the row failed."""
    rows = np.ones(len(cut.numbers), np.bool_)
    return np.array([~(rows & filter_.passes(cut)) for filter_ in FILTERS], np.bool_)


def rejection(cut: QsQrrt, filter_: Filter, position: int) -> Rejection:
    """Why the row at `position` of the cut does not pass; it must be a failing one."""
    unmet = filter_.explain(cut, position)
    return Rejection(
        candidate=deployed_at(cut, position).id,
        filter=filter_.name,
        reason=unmet.reason,
        field=filter_.field,
        shortfall=unmet.shortfall,
        unit=unmet.unit,
        relax_to=unmet.relax_to,
    )


def _standing(cut: QsQrrt) -> _Standing:
    snapshot, constraints = cut.snapshot, cut.intent.constraints
    columns = snapshot.columns
    parts = (
        snapshot.described,
        snapshot.accuracies,
        columns.available,
        columns.degraded,
        columns.suspended_until_s,
    )
    kept: PartsCache[_Standing] = cached(snapshot.cache, "standing", parts, _MOST_KINDS)
    stated = filter_kind(cut)
    if constraints.min_accuracy is None:
        kind = stated
    else:
        topic = narrowest(snapshot.accuracies.topics, cut.intent.topic)
        kind = *stated, topic, constraints.trust, constraints.min_accuracy
    known = kept.get(kind)
    if known is None:
        passes = passing_filters(cut, stated)
        for filter_ in _STANDING:
            passes = passes & filter_.passes(cut)
        ejected_until_s = columns.suspended_until_s[cut.rows].max(initial=0.0)
        known = kept.put(kind, _Standing(passes, float(ejected_until_s)))
    return known


def _accurate(cut: QsQrrt) -> Flags | bool:
    intent, constraints = cut.intent, cut.intent.constraints
    if constraints.min_accuracy is None or intent.site is not None:
        return True
    known = accuracy_on(cut.snapshot, intent.topic, constraints.trust).value[cut.rows]
    enough: Flags = known >= constraints.min_accuracy
    return enough


def _accuracy_misses(cut: QsQrrt) -> Floats:
    """Infinite if unknown: no smaller bound would help."""
    misses = (cut.intent.constraints.min_accuracy or 0.0) - cut.accuracy(
        cut.intent.constraints.trust
    ).value
    return np.nan_to_num(misses, nan=np.inf)


def _accurate_reason(cut: QsQrrt, position: int) -> Unmet:
    constraints = cut.intent.constraints
    least, value = (
        constraints.min_accuracy or 0.0,
        float(cut.accuracy(constraints.trust).value[position]),
    )
    about = cut.intent.topic or "any topic"
    if np.isnan(value):
        trust = cut.accuracy(Trust.CLAIMED).trust[position]
        have = next((name for name, level in TRUSTED.items() if level == trust), None)
        words = "nothing is known of" if have is None else f"only {have} is known of"
        return Unmet(f"{words} its accuracy on {about}, {constraints.trust} is wanted")
    return Unmet(
        f"its accuracy on {about} is {value:.3f}, at least {least:g} is wanted",
        shortfall=least - value,
        unit="accuracy",
        relax_to=rounded_down(value),
    )


def _context_reason(cut: QsQrrt, position: int) -> Unmet:
    holds = deployed_at(cut, position).descriptor.context_tokens
    tokens_in = math.ceil(np.broadcast_to(_tokens_of_longest(cut), cut.numbers.shape)[position])
    wanted = tokens_in + cut.intent.tokens_out
    return Unmet(
        f"holds {holds} tokens of prompt and answer, {wanted} are needed",
        shortfall=float(wanted - holds),
        unit="tokens",
        relax_to=as_value(left) if (left := holds - tokens_in) > 0 else "",
    )


def _most_tokens(intent: QueryIntent) -> int:
    """The maximum that any tokenizer makes of prompt and answer."""
    if intent.characters is None:
        return intent.tokens_in + intent.tokens_out
    return most_tokens(intent.characters) + intent.tokens_apart + intent.tokens_out


def _tokens_of_longest(cut: QsQrrt) -> Floats | float:
    """Tokens of the prompt that must be in the context together."""
    share = cut.intent.longest_share
    return cut.tokens_in if share == 1.0 else cut.tokens_in * share


def _context(cut: QsQrrt) -> Flags:
    fits: Flags = _tokens_of_longest(cut) + cut.intent.tokens_out <= cut.selected.context_tokens
    return fits


def _room(cut: QsQrrt) -> Flags:
    fits: Flags = cut.load < cut.selected.room
    return fits


def _tried(cut: QsQrrt) -> Flags | bool:
    return ~np.isin(cut.numbers, cut.excluded) if cut.excluded else True


def _at_most(quantity: str, bound: float | None, value: float, unit: str) -> Unmet:
    return Unmet(
        f"{quantity} {value:.3g} {unit} is expected, at most {bound:g} is wanted",
        shortfall=value - (bound or 0.0),
        unit=unit,
        relax_to=rounded_up(value) if np.isfinite(value) else "",
    )


_STANDING = (
    Filter(
        "accuracy",
        "daitn.min_accuracy",
        FilterCause.WISH,
        _accurate,
        _accurate_reason,
        _accuracy_misses,
    ),
    Filter(
        "available",
        "model",
        FilterCause.PRESENCE,
        lambda cut: cut.snapshot.columns.available[cut.rows],
        lambda cut, at: Unmet(
            f"is {deployed_at(cut, at).descriptor.state}, or its site is disconnected"
        ),
    ),
    Filter(
        "healthy",
        "model",
        FilterCause.PRESENCE,
        lambda cut: cut.intent.site is not None or ~cut.snapshot.columns.degraded[cut.rows],
        lambda cut, at: Unmet("a verification unit found that it answers worse than before"),
    ),
)
"""Filters independent of time, load and the query's length."""

CONTEXT = Filter(
    "context",
    "max_tokens",
    FilterCause.WISH,
    _context,
    _context_reason,
    lambda cut: -cut.selected.context_tokens.astype(np.float64),
)

NOT_EJECTED = Filter(
    "suspended",
    "model",
    FilterCause.PRESENCE,
    lambda cut: cut.snapshot.columns.suspended_until_s[cut.rows] <= cut.now_s,
    lambda cut, at: Unmet(
        "failed recently",
        shortfall=float(cut.snapshot.columns.suspended_until_s[cut.rows][at] - cut.now_s),
        unit="s",
    ),
)

_PATH = Filter(
    "path",
    "model",
    FilterCause.PRESENCE,
    lambda cut: np.isfinite(cut.rtt_s),
    lambda cut, at: Unmet(
        f"there is no path from {cut.intent.origin} to {deployed_at(cut, at).site}"
    ),
)

_CHANGING = (
    Filter(
        "tried",
        "daitn.attempts",
        FilterCause.PRESENCE,
        _tried,
        lambda cut, at: Unmet("was tried for this query and failed"),
    ),
    Filter(
        "room",
        "",
        FilterCause.LOAD,
        _room,
        lambda cut, at: Unmet(
            f"is full: {cut.load[at]:.0f} queries are in progress",
            shortfall=float(cut.wait_s[at]),
            unit="s",
        ),
    ),
    Filter(
        "first-token",
        "daitn.max_first_token_s",
        FilterCause.WISH,
        lambda cut: (
            (most := cut.intent.constraints.max_first_token_s) is None or cut.first_token_s <= most
        ),
        lambda cut, at: _at_most(
            "a first token after",
            cut.intent.constraints.max_first_token_s,
            float(cut.first_token_s[at]),
            "s",
        ),
        lambda cut: cut.first_token_s,
    ),
    Filter(
        "deadline",
        "daitn.deadline_s",
        FilterCause.WISH,
        lambda cut: (most := cut.intent.constraints.deadline_s) is None or cut.seconds <= most,
        lambda cut, at: _at_most(
            "an answer after", cut.intent.constraints.deadline_s, float(cut.seconds[at]), "s"
        ),
        lambda cut: cut.seconds,
    ),
    Filter(
        "cost",
        "daitn.max_cost_usd",
        FilterCause.WISH,
        lambda cut: (most := cut.intent.constraints.max_cost_usd) is None or cut.cost_usd <= most,
        lambda cut, at: _at_most(
            "a cost of", cut.intent.constraints.max_cost_usd, float(cut.cost_usd[at]), "USD"
        ),
        lambda cut: cut.cost_usd,
    ),
)

_ACCURATE, _AVAILABLE, _HEALTHY = _STANDING
_TRIED, *_BOUNDS = _CHANGING

FILTERS = (
    *DESCRIPTOR_FILTERS,
    _ACCURATE,
    CONTEXT,
    _AVAILABLE,
    _HEALTHY,
    NOT_EJECTED,
    _TRIED,
    _PATH,
    *_BOUNDS,
)
