"""QIRCE, the query inference route compute engine (paper, section IV).

Filter, score, pick over the query's QS-QRRT. The usual case, a single deployment with others to
fall back on, is decided in tens of microseconds over a thousand deployments; `explain` tells the
same decision with every term and every rejection.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from daitn.control.queries.context import QueryContext, QueryPlan, Refusal
from daitn.control.queries.feasibility import refuse, rejections
from daitn.control.queries.scoring import QIRCE, Weighed
from daitn.objects.decisions import Decision, Scored
from daitn.objects.queries import Strategy
from daitn.policy.arrays import best_first
from daitn.policy.pipeline import Rng
from daitn.topology.qrrt.filters import passing
from daitn.topology.qrrt.relevance import QsQrrt, relevant_to
from daitn.topology.qrrt.snapshot import Flags, Floats

__all__ = ["Qirce"]

NEAR = 0.01
"""Scores that differ by less are equally good: what they rest on is not known better."""
_LATE = -math.log(0.05)
"""Of the expected time to a first piece: the 95th percentile of an exponential distribution.
Hedging after the 95th percentile: Dean and Barroso, "The tail at scale", CACM 2013."""
_LATE_LEAST_S = 0.05
_RANKED = 20


class Qirce:
    """Decides on one query: a plan, or why there is none."""

    def decide(self, context: QueryContext, rng: Rng) -> QueryPlan | Refusal:
        """Raises `InvalidInput` for a preference that names no scorer."""
        cut = _cut(context)
        passes = passing(cut)
        if not passes.any():
            return refuse(cut, self._told(context, cut, passes, []))
        scores = _scores(context, cut, passes)
        wishes = context.intent.wishes
        if wishes.strategy is Strategy.CASCADE:
            return _cascade(context, cut, scores, rng)
        if wishes.strategy is Strategy.ENSEMBLE:
            return _ensemble(context, cut, scores, rng)
        return _single(context, cut, scores, rng)

    def explain(self, context: QueryContext, rng: Rng) -> Decision:
        """The same decision with its ranking, terms and rejections; slower."""
        cut = _cut(context)
        plan = self.decide(context, rng)
        chosen = [] if isinstance(plan, Refusal) else list(plan.rows[: plan.members])
        return self._told(context, cut, passing(cut), chosen)

    def _told(
        self, context: QueryContext, cut: QsQrrt, passes: Flags, chosen: list[int]
    ) -> Decision:
        rows = context.snapshot.rows
        scores = _scores(context, cut, passes)
        terms = QIRCE.terms(Weighed(cut, context.affinity), passes)
        order = np.lexsort((np.arange(len(scores)), -scores))[:_RANKED]
        return Decision(
            policy=QIRCE.name,
            chosen=" + ".join(rows[row].id for row in chosen) or None,
            ranking=tuple(
                Scored(
                    candidate=rows[int(cut.numbers[at])].id,
                    score=float(scores[at]),
                    terms={name: float(term[at]) for name, term in terms.items()},
                )
                for at in order
                if passes[at]
            ),
            rejections=rejections(cut),
            snapshot_version=context.snapshot.version,
            at_s=context.now_s,
        )


def _cut(context: QueryContext) -> QsQrrt:
    return relevant_to(
        context.snapshot,
        context.intent,
        context.paths,
        context.in_flight,
        context.now_s,
        context.excluded,
    )


def _scores(context: QueryContext, cut: QsQrrt, passes: Flags) -> Floats:
    return QIRCE.scores(Weighed(cut, context.affinity), passes, context.preferences)


def _single(context: QueryContext, cut: QsQrrt, scores: Floats, rng: Rng) -> QueryPlan:
    order = best_first(scores, context.intent.wishes.attempts, NEAR, rng)
    return _plan(cut, Strategy.SINGLE, order, 1)


def _cascade(context: QueryContext, cut: QsQrrt, scores: Floats, rng: Rng) -> QueryPlan:
    """Better rows as a single plan would take them; before them cheaper ones of other models,
    which need not be as accurate as the query wishes: they are heard only where they are sure."""
    better = best_first(scores, context.intent.wishes.attempts, NEAR, rng)
    loose_wishes = msgspec.structs.replace(context.intent.wishes, min_accuracy=None)
    loose_intent = msgspec.structs.replace(context.intent, wishes=loose_wishes)
    loose = relevant_to(
        context.snapshot,
        loose_intent,
        context.paths,
        context.in_flight,
        context.now_s,
        context.excluded,
    )
    rows = context.snapshot.rows
    name = rows[int(cut.numbers[better[0]])].name
    cheaper = passing(loose) & (loose.cost_usd < cut.cost_usd[better[0]])
    cheaper &= [rows[int(number)].name != name for number in loose.numbers]
    if not cheaper.any():
        return _plan(cut, Strategy.SINGLE, better, 1)
    first = best_first(_scores(context, loose, cheaper), context.intent.wishes.attempts, NEAR, rng)
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
    """The best deployment of each of the best models, then everything else by score."""
    rows, wanted = context.snapshot.rows, context.intent.wishes.members
    ranked = best_first(scores, len(scores), 0.0, rng)
    members: dict[str, int] = {}
    for at in ranked:
        members.setdefault(rows[int(cut.numbers[at])].name, at)
    chosen = list(members.values())[:wanted]
    if len(chosen) < 2:
        return _single(context, cut, scores, rng)
    spare = [at for at in ranked if at not in chosen][: context.intent.wishes.attempts]
    return _plan(cut, Strategy.ENSEMBLE, [*chosen, *spare], len(chosen))


def _plan(cut: QsQrrt, strategy: Strategy, order: list[int], members: int) -> QueryPlan:
    asked = order[:members]
    first = order[0]
    first_s = float(cut.first_token_s[first])
    return QueryPlan(
        strategy=strategy,
        rows=tuple(int(cut.numbers[at]) for at in order),
        members=members,
        expected_first_token_s=first_s,
        expected_cost_usd=float(sum(cut.cost_usd[at] for at in asked)),
        expected_seconds=float(max(cut.seconds[at] for at in asked)),
        late_after_s=_LATE * first_s + _LATE_LEAST_S,
    )
