"""QIRCE's decision over arrays with nothing kept, nothing left out and every figure worked out for
every row: to the last bit, the decision that the engine must take by whatever shorter way."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from daitn.control.queries.context import QueryContext, QueryPlan
from daitn.control.queries.engine import NEAR
from daitn.control.queries.scoring import QIRCE, WAIT_WEIGHS
from daitn.objects.queries import AUTO, QueryConstraints, QueryIntent, Strategy
from daitn.objects.randomness import Rng
from daitn.topology.arrays import Flags, Floats
from daitn.topology.qrrt.accuracy import UNMEASURED_ACCURACY, accuracy_on
from daitn.topology.qrrt.snapshot import Accuracies

from .oracle import HOLDS, Question

MEASURED = {"accuracy", "first-token", "deadline", "cost"}
"""Filters of which the bound may be met to the last bit: not those of the scalar policy."""


class Plain:
    """A context under the wishes of its intent, or others."""

    def __init__(self, context: QueryContext, constraints: QueryConstraints | None = None) -> None:
        intent = context.intent
        if constraints is not None:
            context = replace(
                context, intent=msgspec.structs.replace(intent, constraints=constraints)
            )
        self.context, self.intent = context, context.intent
        columns = context.snapshot.columns
        question = Question(context)
        self.numbers = np.array([each.row for each in question.candidates], np.intp)
        rows = self.numbers
        tokens_out, timed = _tokens_out(self.intent)
        slots, first_s = columns.slots[rows], columns.first_token_s[rows]
        self.rtt_s = context.paths.rtt_s[rows]
        self.service_s: Floats = columns.per_token_s[rows] * timed + first_s
        load = np.maximum(columns.in_flight[rows], context.in_flight[rows])
        ahead = np.maximum(load + 1.0 - slots, 0.0)
        wait_s = ahead * self.service_s / slots
        self.first_token_s: Floats = self.rtt_s + wait_s + first_s
        self.seconds: Floats = self.rtt_s + wait_s + self.service_s
        tokens_in = np.array([each.tokens_in for each in question.candidates], float)
        self.cost_usd: Floats = (
            columns.price_in[rows] * tokens_in + columns.price_out[rows] * tokens_out
        )
        self.usual_wait_s = wait_s
        usual = self.intent.tokens_usual
        if usual is not None:
            self.usual_wait_s = ahead * (columns.per_token_s[rows] * usual + first_s) / slots
        fresh = replace(context.snapshot, accuracies=Accuracies(context.snapshot.accuracies.topics))
        known = accuracy_on(fresh, self.intent.topic, self.intent.constraints.trust).value[rows]
        self.accuracy: Floats = np.nan_to_num(known, nan=UNMEASURED_ACCURACY)
        self.passes = self._bounds(known)
        for name in HOLDS.keys() - MEASURED:
            here = [HOLDS[name](context, each) for each in question.candidates]
            self.passes &= np.array(here, np.bool_)

    def _bounds(self, known: Floats) -> Flags:
        constraints, passes = self.intent.constraints, np.ones(len(self.numbers), np.bool_)
        if constraints.min_accuracy is not None and self.intent.site is None:
            passes &= known >= constraints.min_accuracy
        for value, bound in (
            (self.first_token_s, constraints.max_first_token_s),
            (self.seconds, constraints.deadline_s),
            (self.cost_usd, constraints.max_cost_usd),
        ):
            passes &= value <= (math.inf if bound is None else bound)
        return passes

    def scores(self, passes: Flags) -> Floats:
        context = self.context
        attempts = context.snapshot.columns.error_share[self.numbers] + 1.0
        slow_s = self.usual_wait_s * WAIT_WEIGHS + (self.rtt_s + self.service_s)
        terms = {
            "accuracy": self.accuracy,
            "latency": _relative(slow_s * attempts + 0.05, passes),
            "cost": _relative(self.cost_usd + 1e-6, passes),
            "affinity": (self.numbers == context.affinity).astype(np.float64),
        }
        weights = QIRCE.weighted(context.preferences)
        result: Floats = np.zeros(len(passes))
        for name, weight in weights.items():
            if weight > 0:
                result += terms[name] * (weight / sum(weights.values()))
        return np.where(passes, result, -1.0)

    def same_model(self, at: int) -> Flags:
        rows = self.context.snapshot.rows
        return np.array([rows[n].name == rows[self.numbers[at]].name for n in self.numbers])

    def plan(self, strategy: Strategy, order: list[int], members: int = 1) -> QueryPlan:
        first, asked = order[0], order[:members]
        seconds = float(max(self.seconds[at] for at in asked))
        return QueryPlan(
            strategy=strategy,
            rows=tuple(int(self.numbers[at]) for at in order),
            members=members,
            expected_first_token_s=float(self.first_token_s[first]) if members == 1 else seconds,
            expected_cost_usd=float(sum(self.cost_usd[at] for at in asked)),
            expected_seconds=seconds,
            late_after_s=-math.log(0.05) * float(self.first_token_s[first]) + 0.05,
        )


def plainly(context: QueryContext, rng: Rng) -> QueryPlan | None:
    """The plan; none where the query is refused."""
    plain = Plain(context)
    scores, constraints = plain.scores(plain.passes), context.intent.constraints
    if not plain.passes.any():
        return None
    if constraints.strategy is Strategy.ENSEMBLE and (members := _members(plain, scores)):
        others = scores.copy()
        others[members] = -1.0
        order = [*members, *_best(others, constraints.attempts, 0.0, rng)]
        return plain.plan(Strategy.ENSEMBLE, order, len(members))
    better = _best(scores, constraints.attempts, NEAR, rng)
    if constraints.strategy is Strategy.CASCADE and context.intent.model == AUTO:
        loose = Plain(context, msgspec.structs.replace(constraints, min_accuracy=None))
        cheaper = _cheaper(plain, loose, better[0])
        if cheaper.any():
            first = _best(loose.scores(cheaper), constraints.attempts, NEAR, rng)
            return msgspec.structs.replace(
                loose.plan(Strategy.CASCADE, first),
                better=tuple(int(plain.numbers[at]) for at in better),
                expected_first_token_s=float(loose.seconds[first[0]]),
            )
    return plain.plan(Strategy.SINGLE, better)


def _members(plain: Plain, scores: Floats) -> list[int]:
    """Of an ensemble; none where no two models may be asked together."""
    constraints, left = plain.intent.constraints, scores.copy()
    chosen: list[int] = []
    if plain.intent.model != AUTO:
        return []
    if constraints.max_first_token_s is not None:
        left[plain.seconds > constraints.max_first_token_s] = -1.0
    left_usd = math.inf if constraints.max_cost_usd is None else constraints.max_cost_usd
    while len(chosen) < constraints.members and left.max() >= 0.0:
        at = int(left.argmax())
        chosen.append(at)
        left_usd -= float(plain.cost_usd[at])
        left[plain.same_model(at) | (plain.cost_usd > left_usd)] = -1.0
    return chosen if len(chosen) > 1 else []


def _cheaper(plain: Plain, loose: Plain, best: int) -> Flags:
    constraints = plain.intent.constraints
    cheaper: Flags = loose.passes & (loose.cost_usd < plain.cost_usd[best])
    cheaper &= ~plain.same_model(best)
    for bound, both in (
        (constraints.max_first_token_s, loose.seconds + plain.first_token_s[best]),
        (constraints.deadline_s, loose.seconds + plain.seconds[best]),
        (constraints.max_cost_usd, loose.cost_usd + plain.cost_usd[best]),
    ):
        cheaper &= both <= (math.inf if bound is None else bound)
    return cheaper


def _tokens_out(intent: QueryIntent) -> tuple[float, float]:
    """For cost and for time."""
    priced = intent.tokens_out if intent.tokens_expected is None else intent.tokens_expected
    return priced, priced if intent.tokens_timed is None else intent.tokens_timed


def _relative(values: Floats, passes: Flags) -> NDArray[np.float64]:
    if not passes.any():
        return np.zeros(len(values))
    terms: Floats = values[passes].min() / values
    return terms


def _best(scores: Floats, most: int, near: float, rng: Rng) -> list[int]:
    order = [int(at) for at in np.argsort(-scores, kind="stable") if scores[at] >= 0.0]
    if near and order:
        close = np.flatnonzero(scores >= scores[order[0]] - near)
        first = int(close[int(rng.random() * len(close))])
        order = [first, *(at for at in order if at != first)]
    return order[:most]
