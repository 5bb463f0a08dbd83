"""QIRCE, the query inference route compute engine (paper, section IV).

Filter, score, pick over the query's QS-QRRT. The usual case, a single deployment with fallbacks,
takes tens of microseconds over a thousand deployments; `explain` reports the same decision with
every term and every rejection.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from daitn.control.queries.context import QueryContext, QueryPlan, QueryRefusal
from daitn.control.queries.feasibility import (
    EXPLAINED_ROWS,
    REFUSED_ROWS,
    refuse,
    rejections,
)
from daitn.control.queries.hedging import first_late_after_s
from daitn.control.queries.scoring import QIRCE, Weighed
from daitn.objects.decisions import Decision, Rejection
from daitn.objects.queries import AUTO, QueryConstraints, Strategy
from daitn.objects.randomness import Rng
from daitn.policy.pipeline import OUT, best_first
from daitn.topology.arrays import Flags, Floats
from daitn.topology.qrrt.filters import failing, passing
from daitn.topology.qrrt.relevance import QsQrrt, relevant_to

__all__ = ["Qirce"]

NEAR = 0.02
"""Scores that differ by less count as equal: their inputs are no more precise."""


class Qirce:
    """Decides on one query: a plan, or a refusal with reasons."""

    def decide(self, context: QueryContext, rng: Rng) -> QueryPlan | QueryRefusal:
        """Raises `InvalidInput` for a preference that names an unknown scorer."""
        cut = _cut(context)
        passes = passing(cut)
        if not np.count_nonzero(passes):
            fails = failing(cut)
            explanation = self._explained(
                context, cut, passes, rejections(cut, fails, REFUSED_ROWS)
            )
            return refuse(cut, fails, explanation)
        scores = _scores(context, cut, passes)
        constraints = context.intent.constraints
        if constraints.strategy is Strategy.CASCADE:
            return _cascade(context, cut, scores, rng)
        if constraints.strategy is Strategy.ENSEMBLE:
            return _ensemble(context, cut, scores, rng)
        return _single(context, cut, scores, rng)

    def explain(self, context: QueryContext, rng: Rng) -> Decision:
        """The same decision with its ranking, terms and rejections; slower."""
        cut = _cut(context)
        plan = self.decide(context, rng)
        chosen = () if isinstance(plan, QueryRefusal) else plan.rows[: plan.members]
        rejected = rejections(cut, failing(cut), EXPLAINED_ROWS)
        return self._explained(context, cut, passing(cut), rejected, chosen)

    def _explained(
        self,
        context: QueryContext,
        cut: QsQrrt,
        passes: Flags,
        rejected: tuple[Rejection, ...],
        chosen: tuple[int, ...] = (),
    ) -> Decision:
        rows = context.snapshot.rows
        return QIRCE.decision(
            Weighed(cut, context.affinity),
            _scores(context, cut, passes),
            lambda at: rows[int(cut.numbers[at])].id,
            chosen=" + ".join(rows[row].id for row in chosen) or None,
            rejections=rejected,
            snapshot_version=context.snapshot.version,
            now_s=context.now_s,
        )


def _cut(context: QueryContext, constraints: QueryConstraints | None = None) -> QsQrrt:
    """The query's QS-QRRT, optionally with other constraints."""
    intent = context.intent
    return relevant_to(
        context.snapshot,
        intent if constraints is None else msgspec.structs.replace(intent, constraints=constraints),
        context.paths,
        context.in_flight,
        context.now_s,
        context.excluded,
    )


def _scores(context: QueryContext, cut: QsQrrt, passes: Flags) -> Floats:
    return QIRCE.scores(Weighed(cut, context.affinity), passes, context.preferences)


def _single(context: QueryContext, cut: QsQrrt, scores: Floats, rng: Rng) -> QueryPlan:
    order = best_first(scores, context.intent.constraints.attempts, NEAR, rng)
    return _plan(cut, Strategy.SINGLE, order, 1)


def _cascade(context: QueryContext, cut: QsQrrt, scores: Floats, rng: Rng) -> QueryPlan:
    """Accurate rows as in a single plan, preceded by cheaper rows of other models.

    The cheaper ones need not meet the accuracy constraint, because their answers count only where
    they are confident. Time and cost constraints cover both stages together.
    """
    constraints = context.intent.constraints
    better = best_first(scores, constraints.attempts, NEAR, rng)
    if context.intent.model != AUTO:
        return _plan(cut, Strategy.SINGLE, better, 1)
    loose = _cut(context, msgspec.structs.replace(constraints, min_accuracy=None))
    best = better[0]
    cheaper = passing(loose) & (loose.cost_usd < cut.cost_usd[best])
    cheaper[_same_model(cut, best)] = False
    for bound, both in (
        (constraints.max_first_token_s, loose.seconds + cut.first_token_s[best]),
        (constraints.deadline_s, loose.seconds + cut.seconds[best]),
        (constraints.max_cost_usd, loose.cost_usd + cut.cost_usd[best]),
    ):
        if bound is not None:
            cheaper &= both <= bound
    if not cheaper.any():
        return _plan(cut, Strategy.SINGLE, better, 1)
    first = best_first(_scores(context, loose, cheaper), constraints.attempts, NEAR, rng)
    plan = _plan(loose, Strategy.CASCADE, first, 1)
    return QueryPlan(
        strategy=Strategy.CASCADE,
        rows=plan.rows,
        better=tuple(int(cut.numbers[at]) for at in better),
        expected_first_token_s=float(loose.seconds[first[0]]),
        expected_cost_usd=plan.expected_cost_usd,
        expected_seconds=plan.expected_seconds,
        late_after_s=plan.late_after_s,
    )


def _ensemble(context: QueryContext, cut: QsQrrt, scores: Floats, rng: Rng) -> QueryPlan:
    """The best deployment of each of the best models whose total cost is within the constraint.

    The fallbacks follow by score. There is no answer before all members have answered.
    """
    constraints = context.intent.constraints
    if context.intent.model != AUTO:
        return _single(context, cut, scores, rng)
    left = scores.copy()
    if constraints.max_first_token_s is not None:
        left[cut.seconds > constraints.max_first_token_s] = OUT
    left_usd = math.inf if constraints.max_cost_usd is None else constraints.max_cost_usd
    chosen: list[int] = []
    while len(chosen) < constraints.members and left[at := int(left.argmax())] >= 0.0:
        chosen.append(at)
        left_usd -= float(cut.cost_usd[at])
        left[_same_model(cut, at)] = OUT
        left[cut.cost_usd > left_usd] = OUT
    if len(chosen) < 2:
        return _single(context, cut, scores, rng)
    others = scores.copy()
    others[chosen] = OUT
    spare = best_first(others, constraints.attempts, 0.0, rng)
    return _plan(cut, Strategy.ENSEMBLE, [*chosen, *spare], len(chosen))


def _same_model(cut: QsQrrt, at: int) -> NDArray[np.intp]:
    """Positions of a row's replicas, in a cut of all rows."""
    return cut.snapshot.rows_of[cut.snapshot.rows[at].key]


def _plan(cut: QsQrrt, strategy: Strategy, order: list[int], members: int) -> QueryPlan:
    numbers, first, members_asked = cut.numbers, order[0], order[:members]
    first_s = cut.first_token_s_at(first)
    seconds = max(cut.seconds_at(at) for at in members_asked)
    return QueryPlan(
        strategy=strategy,
        rows=tuple([int(numbers[at]) for at in order]),
        members=members,
        expected_first_token_s=first_s if members == 1 else seconds,
        expected_cost_usd=float(sum(cut.cost_usd[at] for at in members_asked)),
        expected_seconds=seconds,
        late_after_s=first_late_after_s(first_s),
    )
