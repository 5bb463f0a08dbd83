"""Q-FAM, the query feasibility assessment module (paper, section IV).

It explains why no deployment may answer a query, and what would have to change.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from daitn.control.queries.context import QueryRefusal, TooLong
from daitn.objects.decisions import Decision, Rejection, Relaxation
from daitn.objects.queries import AUTO, QueryIntent
from daitn.objects.text import some
from daitn.topology.arrays import Flags
from daitn.topology.qrrt.filters import (
    CONTEXT,
    FILTERS,
    NOT_EJECTED,
    Filter,
    FilterCause,
    rejection,
)
from daitn.topology.qrrt.relevance import QsQrrt
from daitn.topology.qrrt.snapshot import Qrrt

__all__ = ["EXPLAINED_ROWS", "REFUSED_ROWS", "refuse", "rejections"]

TRY_AGAIN_S = 2.0
"""When to retry a query that lacks a deployment: a crash is noticed within a second, and loading
the model elsewhere takes a few more."""
_LEAST_AGAIN_S, _MOST_AGAIN_S = 0.1, 60.0
EXPLAINED_ROWS = 200
"""Rows with rejections in an explanation, those that fail the fewest filters first."""
REFUSED_ROWS = 20
"""The same for a refusal: other queries wait while it is built, and nobody reads more."""
_NAMED = 5
_COMPARED = 500
"""Names to compare with a misspelt one: it takes milliseconds, during which all queries wait."""


def rejections(cut: QsQrrt, fails: NDArray[np.bool_], most: int) -> tuple[Rejection, ...]:
    """Every (row, filter) that failed, for the `most` rows that failed the fewest filters."""
    count = fails.sum(axis=0)
    failed_rows = np.flatnonzero(count)
    nearest = failed_rows[np.argsort(count[failed_rows], kind="stable")[:most]]
    return tuple(
        rejection(cut, filter_, int(row))
        for row in sorted(nearest)
        for filter_, failed in zip(FILTERS, fails, strict=True)
        if failed[row]
    )


def refuse(cut: QsQrrt, fails: NDArray[np.bool_], decision: Decision) -> QueryRefusal:
    """Why no row of the cut passes."""
    if not len(cut.numbers):
        return _unknown(cut, decision)
    wish, presence = _of_cause(fails, FilterCause.WISH), _of_cause(fails, FilterCause.PRESENCE)
    load = _of_cause(fails, FilterCause.LOAD)
    late = _late_by_load(cut, fails)
    wish, load = wish & ~late, load | late
    if (may := ~wish & ~presence & load).any():
        wait_s = float(cut.wait_s[may].min())
        reason = f"all {int(may.sum())} deployments that may answer are full"
        return _later("overloaded", reason, wait_s, decision)
    if (may := ~wish).any():
        return _away(cut, fails, may, decision)
    relaxations = _relaxations(cut, fails, ~presence)
    return QueryRefusal(
        code="infeasible",
        reason=_reason(cut, fails),
        field=relaxations[0].field if relaxations else _commonest(fails).field,
        retry_after_s=None,
        decision=decision,
        relaxations=relaxations,
        too_long=_too_long(cut, fails),
    )


def _too_long(cut: QsQrrt, fails: NDArray[np.bool_]) -> TooLong | None:
    """By how much the query exceeds the deployments that nothing else permanently excludes."""
    constrained = fails[[filter_.cause is FilterCause.WISH for filter_ in FILTERS]]
    alone = np.flatnonzero(fails[FILTERS.index(CONTEXT)] & (constrained.sum(axis=0) == 1))
    if not len(alone):
        return None
    holds = cut.selected.context_tokens
    longest = int(alone[holds[alone].argmax()])
    tokens_in = np.broadcast_to(cut.tokens_in, cut.numbers.shape)[longest]
    return TooLong(math.ceil(tokens_in), cut.intent.tokens_out, int(holds[longest]))


def _of_cause(fails: NDArray[np.bool_], cause: FilterCause) -> Flags:
    of_cause: NDArray[np.bool_] = fails[[filter_.cause is cause for filter_ in FILTERS]]
    return np.asarray(of_cause.any(axis=0))


def _late_by_load(cut: QsQrrt, fails: NDArray[np.bool_]) -> Flags:
    """Rows that only miss time constraints, and would meet them on an idle deployment."""
    timed = {"first-token": cut.first_token_s, "deadline": cut.seconds}
    constraints = cut.intent.constraints
    bounds = {"first-token": constraints.max_first_token_s, "deadline": constraints.deadline_s}
    late = np.ones(len(cut.numbers), np.bool_)
    some = np.zeros(len(late), np.bool_)
    for filter_, failed in zip(FILTERS, fails, strict=True):
        if filter_.cause is not FilterCause.WISH:
            continue
        bound = bounds.get(filter_.name)
        if bound is None:
            late &= ~failed
        else:
            late &= ~failed | (timed[filter_.name] - cut.wait_s <= bound)
            some |= failed
    return late & some


def _unknown(cut: QsQrrt, decision: Decision) -> QueryRefusal:
    intent, known = cut.intent, sorted(_shortest(cut.snapshot))
    if intent.model == AUTO and intent.site is None:
        return _later("unavailable", "no model is deployed in the network", None, decision)
    if intent.site is not None and intent.model in cut.snapshot.rows_of:
        sites = sorted(cut.snapshot.rows[row].site for row in cut.snapshot.rows_of[intent.model])
        reason = f"model {intent.model} is not at {intent.site}; it is at {some(sites)}"
    elif owned := [name for name in known if name.endswith(f"/{intent.model}")]:
        reason = f"{intent.model} alone names no model here; there is {some(owned)}"
    else:
        alike = known if len(known) <= _COMPARED else []
        near = difflib.get_close_matches(intent.model, alike, n=_NAMED) or known
        reason = f"there is no model {intent.model}; there is {some(near) or 'none'}"
    return QueryRefusal(
        code="model_not_found",
        reason=reason,
        field="model",
        retry_after_s=None,
        decision=decision,
        relaxations=(),
    )


def _shortest(snapshot: Qrrt) -> Iterator[str]:
    """The shortest name of each model: the bare name if it is unambiguous, else `owner/name`."""
    for name, rows in snapshot.rows_of.items():
        if snapshot.rows[int(rows[0])].called[-1] == name:
            yield name


def _away(cut: QsQrrt, fails: NDArray[np.bool_], may: Flags, decision: Decision) -> QueryRefusal:
    """All eligible deployments are disconnected, degraded, cordoned or failed."""
    others = [
        failed for filter_, failed in zip(FILTERS, fails, strict=True) if filter_ != NOT_EJECTED
    ]
    resting = may & ~np.any(others, axis=0)
    until_s = cut.snapshot.columns.suspended_until_s[cut.rows][resting]
    rest_s = float(until_s.min() - cut.now_s) if len(until_s) else None
    rows = [cut.snapshot.rows[int(number)] for number in cut.numbers[may]]
    ids = sorted(f"{row.id} {row.cordoned}" if row.cordoned else row.id for row in rows)
    what = "disconnected, degraded, cordoned or failed recently"
    reason = f"the eligible deployments are {what}: {some(ids)}"
    return _later("unavailable", reason, rest_s, decision)


def _later(code: str, reason: str, after_s: float | None, decision: Decision) -> QueryRefusal:
    again_s = TRY_AGAIN_S if after_s is None else after_s
    return QueryRefusal(
        code=code,
        reason=reason,
        field="",
        retry_after_s=min(max(again_s, _LEAST_AGAIN_S), _MOST_AGAIN_S),
        decision=decision,
        relaxations=(),
    )


def _relaxations(cut: QsQrrt, fails: NDArray[np.bool_], available: Flags) -> tuple[Relaxation, ...]:
    """For each constraint, the smallest change that admits a row failing nothing else."""
    count = fails.sum(axis=0)
    found = []
    for filter_, failed in zip(FILTERS, fails, strict=True):
        if filter_.cause is not FilterCause.WISH:
            continue
        alone = np.flatnonzero(failed & (count == 1) & available)
        if not len(alone):
            continue
        nearest = 0 if filter_.short is None else int(filter_.short(cut)[alone].argmin())
        least = rejection(cut, filter_, int(alone[nearest]))
        if least.relax_to:
            found.append(
                Relaxation(
                    field=least.field,
                    current=_current(cut.intent, least.field),
                    proposed=least.relax_to,
                    effect=f"{least.candidate} may answer",
                )
            )
    return tuple(found)


def _current(intent: QueryIntent, field: str) -> str:
    if field == "max_tokens":
        return str(intent.tokens_out)
    value = getattr(intent.constraints, field.removeprefix("daitn."), "")
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _reason(cut: QsQrrt, fails: NDArray[np.bool_]) -> str:
    """A sentence with the number of rows each filter rejects."""
    counts = {
        filter_.name: int(failed.sum())
        for filter_, failed in zip(FILTERS, fails, strict=True)
        if failed.any()
    }
    parts = ", ".join(f"{count} by {name}" for name, count in Counter(counts).most_common())
    return f"none of {len(cut.numbers)} deployments may answer: left out {parts}"


def _commonest(fails: NDArray[np.bool_]) -> Filter:
    constraints = [
        (int(failed.sum()), -position)
        for position, (filter_, failed) in enumerate(zip(FILTERS, fails, strict=True))
        if filter_.cause is FilterCause.WISH
    ]
    return FILTERS[-max(constraints)[1]]
