"""The hard constraints of a query, as filters over the rows of its QS-QRRT.

Each filter says for all rows at once which pass, and for one row why it does not, by how much,
and what the query would have to say instead. Filters that neither load nor time changes are
worked out once per kind of query and rows.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from daitn.identity.access import allows
from daitn.objects.decisions import Rejection
from daitn.objects.queries import Privacy, Trust
from daitn.topology.qrrt.accuracy import TRUSTED, accuracy_on
from daitn.topology.qrrt.relevance import QsQrrt
from daitn.topology.qrrt.snapshot import Deployed, Flags, Floats
from daitn.topology.relaxation import as_value, rounded_down, rounded_up

__all__ = ["FILTERS", "RESTED", "Cause", "Filter", "failing", "passing", "rejection"]

_MEMO_MOST = 512


class Cause(enum.Enum):
    """What would have to change for a row to pass."""

    WISH = "wish"
    """The query."""
    PRESENCE = "presence"
    """The deployment, or the way to it, has to come back."""
    LOAD = "load"
    """Others have to finish."""


@dataclass(frozen=True, slots=True)
class Told:
    """Why one row does not pass."""

    reason: str
    shortfall: float = 1.0
    unit: str = ""
    relax_to: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """One hard constraint. `field` is what of the request would have to change."""

    name: str
    field: str
    cause: Cause
    passes: Callable[[QsQrrt], Flags | bool]
    told: Callable[[QsQrrt, int], Told]
    short: Callable[[QsQrrt], Floats] | None = None
    """Grows with how far each row misses the bound, where that is a number."""


def passing(cut: QsQrrt) -> Flags:
    """The rows of the cut that pass every filter."""
    passes = _fixed(cut)
    for filter_ in _LIVE:
        here = filter_.passes(cut)
        if here is not True:
            passes = passes & here
    return passes


def failing(cut: QsQrrt) -> Flags:
    """Filter x row: whether it failed."""
    rows = np.ones(len(cut.numbers), np.bool_)
    return np.array([~(rows & filter_.passes(cut)) for filter_ in FILTERS], np.bool_)


def rejection(cut: QsQrrt, filter_: Filter, position: int) -> Rejection:
    """Why the row at `position` of the cut does not pass; it must not."""
    told = filter_.told(cut, position)
    return Rejection(
        candidate=_row(cut, position).id,
        filter=filter_.name,
        reason=told.reason,
        field=filter_.field,
        shortfall=told.shortfall,
        unit=told.unit,
        relax_to=told.relax_to,
    )


def _fixed(cut: QsQrrt) -> Flags:
    intent, wishes = cut.intent, cut.intent.wishes
    memo = cut.snapshot.memo
    if "restricted" not in memo:
        memo["restricted"] = any("*" not in r.descriptor.policy.askers for r in cut.snapshot.rows)
    key = (
        intent.model,
        intent.site,
        intent.api,
        intent.owner if memo["restricted"] else "",
        intent.origin,
        wishes.jurisdictions,
        wishes.owners,
        wishes.privacy,
    )
    known: Flags | None = memo.get(key)
    if known is None:
        if len(memo) >= _MEMO_MOST:
            memo.clear()
        known = memo[key] = np.ones(len(cut.numbers), np.bool_)
        for filter_ in _FIXED:
            known &= filter_.passes(cut)
    return known


def _row(cut: QsQrrt, position: int) -> Deployed:
    return cut.snapshot.rows[int(cut.numbers[position])]


def _each(cut: QsQrrt, holds: Callable[[Deployed], bool]) -> Flags:
    rows = cut.snapshot.rows
    return np.fromiter((holds(rows[number]) for number in cut.numbers.tolist()), np.bool_)


def _widened(listed: tuple[str, ...], name: str) -> str:
    return as_value(sorted({*listed, name}))


def _api_told(cut: QsQrrt, position: int) -> Told:
    apis = ", ".join(_row(cut, position).descriptor.apis)
    return Told(f"answers {apis or 'nothing'}, not {cut.intent.api}")


def _private(cut: QsQrrt) -> Flags | bool:
    privacy, origin = cut.intent.wishes.privacy, cut.intent.origin
    if privacy is Privacy.ANY:
        return True
    if privacy is Privacy.SITE:
        return _each(cut, lambda row: row.site == origin)
    return _each(cut, lambda row: not row.facility.keeps_queries)


def _private_told(cut: QsQrrt, position: int) -> Told:
    row = _row(cut, position)
    if cut.intent.wishes.privacy is Privacy.UNKEPT:
        return Told(f"{row.site} keeps queries", relax_to=as_value(Privacy.ANY))
    wider = Privacy.ANY if row.facility.keeps_queries else Privacy.UNKEPT
    return Told(f"{row.site} is not the gateway's own site", relax_to=as_value(wider))


def _accurate(cut: QsQrrt) -> Flags | bool:
    intent, wishes = cut.intent, cut.intent.wishes
    if wishes.min_accuracy is None or intent.site is not None:
        return True
    known = accuracy_on(cut.snapshot, intent.topic, wishes.trust).value[cut.rows]
    enough: Flags = known >= wishes.min_accuracy
    return enough


def _accuracy_misses(cut: QsQrrt) -> Floats:
    """Infinite where it is not known: no smaller bound would help."""
    misses = (cut.intent.wishes.min_accuracy or 0.0) - cut.accuracy(cut.intent.wishes.trust).value
    return np.nan_to_num(misses, nan=np.inf)


def _accurate_told(cut: QsQrrt, position: int) -> Told:
    wishes = cut.intent.wishes
    least, value = wishes.min_accuracy or 0.0, float(cut.accuracy(wishes.trust).value[position])
    about = cut.intent.topic or "any topic"
    if np.isnan(value):
        trust = cut.accuracy(Trust.CLAIMED).trust[position]
        have = next((name for name, level in TRUSTED.items() if level == trust), None)
        said = "nothing is known of" if have is None else f"only {have} is known of"
        return Told(f"{said} its accuracy on {about}, {wishes.trust} is wanted")
    return Told(
        f"its accuracy on {about} is {value:.3f}, at least {least:g} is wanted",
        shortfall=least - value,
        unit="accuracy",
        relax_to=rounded_down(value),
    )


def _context_told(cut: QsQrrt, position: int) -> Told:
    holds = _row(cut, position).descriptor.context_tokens
    wanted = cut.intent.tokens_in + cut.intent.tokens_out
    return Told(
        f"holds {holds} tokens of question and answer together, {wanted} are wanted",
        shortfall=float(wanted - holds),
        unit="tokens",
        relax_to=as_value(left) if (left := holds - cut.intent.tokens_in) > 0 else "",
    )


def _context(cut: QsQrrt) -> Flags:
    memo = cut.snapshot.memo
    if "context" not in memo:
        memo["context"] = np.array([r.descriptor.context_tokens for r in cut.snapshot.rows])
    fits: Flags = memo["context"][cut.rows] >= cut.intent.tokens_in + cut.intent.tokens_out
    return fits


def _room(cut: QsQrrt) -> Flags:
    columns = cut.snapshot.columns
    fits: Flags = cut.load < columns.slots[cut.rows] + columns.queue[cut.rows]
    return fits


def _tried(cut: QsQrrt) -> Flags | bool:
    return ~np.isin(cut.numbers, cut.excluded) if cut.excluded else True


def _at_most(quantity: str, bound: float | None, value: float, unit: str) -> Told:
    return Told(
        f"{quantity} {value:.3g} {unit} is expected, at most {bound:g} is wanted",
        shortfall=value - (bound or 0.0),
        unit=unit,
        relax_to=rounded_up(value) if np.isfinite(value) else "",
    )


_FIXED = (
    Filter(
        "api",
        "model",
        Cause.WISH,
        lambda cut: _each(cut, lambda row: cut.intent.api in row.descriptor.apis),
        _api_told,
    ),
    Filter(
        "release",
        "model",
        Cause.WISH,
        lambda cut: _each(
            cut, lambda row: allows(row.descriptor.policy.release_to, row.jurisdiction)
        ),
        lambda cut, at: Told(f"may not be hosted in {_row(cut, at).jurisdiction}, says its owner"),
    ),
    Filter(
        "askers",
        "model",
        Cause.WISH,
        lambda cut: _each(cut, lambda row: allows(row.descriptor.policy.askers, cut.intent.owner)),
        lambda cut, at: Told(f"its owner does not let {cut.intent.owner or 'strangers'} ask it"),
    ),
    Filter(
        "jurisdiction",
        "daitn.jurisdictions",
        Cause.WISH,
        lambda cut: (
            not (wanted := cut.intent.wishes.jurisdictions)
            or _each(cut, lambda row: row.jurisdiction in wanted)
        ),
        lambda cut, at: Told(
            f"is under the law of {_row(cut, at).jurisdiction}",
            relax_to=_widened(cut.intent.wishes.jurisdictions, _row(cut, at).jurisdiction),
        ),
    ),
    Filter(
        "owner",
        "daitn.owners",
        Cause.WISH,
        lambda cut: (
            not (wanted := cut.intent.wishes.owners)
            or _each(cut, lambda row: row.provider in wanted)
        ),
        lambda cut, at: Told(
            f"its facility is {_row(cut, at).provider}'s",
            relax_to=_widened(cut.intent.wishes.owners, _row(cut, at).provider),
        ),
    ),
    Filter(
        "privacy",
        "daitn.privacy",
        Cause.WISH,
        _private,
        _private_told,
        lambda cut: _each(cut, lambda row: row.facility.keeps_queries).astype(np.float64),
    ),
)
"""What neither load nor time nor measurements change."""

RESTED = Filter(
    "rested",
    "model",
    Cause.PRESENCE,
    lambda cut: cut.snapshot.columns.suspended_until_s[cut.rows] <= cut.now_s,
    lambda cut, at: Told(
        "failed lately",
        shortfall=float(cut.snapshot.columns.suspended_until_s[cut.rows][at] - cut.now_s),
        unit="s",
    ),
)

_LIVE = (
    Filter(
        "accuracy",
        "daitn.min_accuracy",
        Cause.WISH,
        _accurate,
        _accurate_told,
        _accuracy_misses,
    ),
    Filter(
        "context",
        "max_tokens",
        Cause.WISH,
        _context,
        _context_told,
        lambda cut: -cut.snapshot.memo["context"][cut.rows].astype(np.float64),
    ),
    Filter(
        "there",
        "model",
        Cause.PRESENCE,
        lambda cut: cut.snapshot.columns.there[cut.rows],
        lambda cut, at: Told(f"is {_row(cut, at).descriptor.state}, or its site is away"),
    ),
    Filter(
        "sound",
        "model",
        Cause.PRESENCE,
        lambda cut: cut.intent.site is not None or ~cut.snapshot.columns.degraded[cut.rows],
        lambda cut, at: Told("a verification unit found that it answers worse than it did"),
    ),
    RESTED,
    Filter(
        "tried",
        "daitn.attempts",
        Cause.PRESENCE,
        _tried,
        lambda cut, at: Told("was tried for this query and failed"),
    ),
    Filter(
        "path",
        "model",
        Cause.PRESENCE,
        lambda cut: np.isfinite(cut.rtt_s),
        lambda cut, at: Told(f"there is no way from {cut.intent.origin} to {_row(cut, at).site}"),
    ),
    Filter(
        "room",
        "",
        Cause.LOAD,
        _room,
        lambda cut, at: Told(
            f"is full: {cut.load[at]:.0f} queries are there",
            shortfall=float(cut.wait_s[at]),
            unit="s",
        ),
    ),
    Filter(
        "first-token",
        "daitn.max_first_token_s",
        Cause.WISH,
        lambda cut: (
            (most := cut.intent.wishes.max_first_token_s) is None or cut.first_token_s <= most
        ),
        lambda cut, at: _at_most(
            "a first token after",
            cut.intent.wishes.max_first_token_s,
            float(cut.first_token_s[at]),
            "s",
        ),
        lambda cut: cut.first_token_s,
    ),
    Filter(
        "deadline",
        "daitn.deadline_s",
        Cause.WISH,
        lambda cut: (most := cut.intent.wishes.deadline_s) is None or cut.seconds <= most,
        lambda cut, at: _at_most(
            "an answer after", cut.intent.wishes.deadline_s, float(cut.seconds[at]), "s"
        ),
        lambda cut: cut.seconds,
    ),
    Filter(
        "cost",
        "daitn.max_cost_usd",
        Cause.WISH,
        lambda cut: (most := cut.intent.wishes.max_cost_usd) is None or cut.cost_usd <= most,
        lambda cut, at: _at_most(
            "a cost of", cut.intent.wishes.max_cost_usd, float(cut.cost_usd[at]), "USD"
        ),
        lambda cut: cut.cost_usd,
    ),
)
"""What changes while queries come."""

FILTERS = (*_FIXED, *_LIVE)
